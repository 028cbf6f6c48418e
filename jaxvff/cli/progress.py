"""Training under a progress bar, which says what is waited for; then the results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxvff.runs import execute, memory
from jaxvff.runs.execute import Result, Watcher
from jaxvff.runs.folder import resume_command
from jaxvff.runs.plan import Job
from jaxvff.training.loop import Report


def train_and_show(folder: Path, jobs: Sequence[Job], *, command: str, resume: bool) -> int:
    """Train all jobs of a run, write and show the results; the exit code.

    Args:
      folder: the run folder.
      jobs: from runs.folder.
      command: the one that made the run, with what it reproduces.
      resume: continue from the checkpoints in `folder`.
    """
    console = Console()
    estimate = memory.describe(memory.largest(jobs))
    console.print(estimate, style="dim", highlight=False, soft_wrap=True)
    go_on = resume_command(command, folder, jobs)
    try:
        results = _train(console, folder, jobs, resume=resume)
    except Exception as error:
        error.add_note(f"what was written is kept in {folder}; go on with: {go_on}")
        raise
    complete = len(results) == sum(len(job.values) for job in jobs) and all(
        r.step >= r.value.config.n_iterations * r.value.config.steps_per_iteration for r in results
    )
    show(console, folder, results, command=command if complete else "")
    if complete:
        console.print(f"results: {folder}", soft_wrap=True, markup=False)
        return 0
    console.print(f"interrupted; continue with: {go_on}", soft_wrap=True, markup=False)
    return 130


def show(
    console: Console,
    folder: Path,
    results: Sequence[Result],
    *,
    command: str,
    where: Mapping[str, Any] | None = None,
) -> None:
    """Write and show the results of a run.

    Args:
      console: to show them on.
      folder: the run folder.
      results: of the sweep values.
      command: that made the run, if it is complete: Table 1 has a page of its own.
      where: the machine that they were trained on; None: this one.
    """
    from jaxvff.reports import written  # here, not above: matplotlib takes a second to import

    with console.status("writing tables and plots"):
        found = written.write(folder, results, where)
    if command == "reproduce table1":
        from jaxvff.reports import table1

        console.print(table1.write(folder, found, [r.folder for r in results], where))
    else:
        from jaxvff.reports import tables

        tables.print_results(console, found)


def _train(console: Console, folder: Path, jobs: Sequence[Job], *, resume: bool) -> list[Result]:
    """Train all jobs under a progress bar."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    results: list[Result] = []
    with execute.interruptible() as stopped, Progress(*columns, console=console) as bar:
        shown = _Bar(console, bar, jobs)
        watcher = Watcher(
            stop_early=stopped,
            on_wait=shown.on_wait,
            on_progress=shown.on_progress,
            on_report=shown.on_report,
            tell=shown.tell,
        )
        run = execute.execute(folder, jobs, resume=resume, watcher=watcher)
        for job, finished in zip(jobs, run, strict=False):
            results += finished
            shown.finish(job)
    return results


class _Bar:
    """The progress bar of a run: seed-steps of all its jobs."""

    def __init__(self, console: Console, bar: Progress, jobs: Sequence[Job]) -> None:
        total = sum(job.n_lanes * job.config.total_steps for job in jobs)
        self._console, self._bar = console, bar
        self._task: TaskID = bar.add_task("starting", total=total, speed="")
        self._done = 0  # seed-steps of the jobs that are finished
        self._begins: dict[str, tuple[int, float]] = {}  # of each job: its first steps, and when
        self._stopped: set[tuple[str, int]] = set()  # seeds that were told of

    def on_wait(self, job: Job, what: str) -> None:
        """Say what is waited for."""
        self._bar.update(self._task, description=f"{job.name}: {what}", speed="")

    def on_progress(self, job: Job, steps: int) -> None:
        """Show the steps per lane of a job, and how fast they come."""
        first_steps, first_time = self._begins.setdefault(job.name, (steps, time.perf_counter()))
        elapsed = time.perf_counter() - first_time
        rate = job.n_lanes * (steps - first_steps) / elapsed if elapsed > 0.1 else 0
        self._bar.update(
            self._task,
            completed=self._done + job.n_lanes * steps,
            description=job.name,
            speed=f"{rate:,.0f} seed-steps/s" if rate else "",
        )

    def on_report(self, job: Job, report: Report) -> None:
        """Tell of seeds that stopped."""
        from jaxvff.reports.stops import stops

        for line in stops(job, report.metrics, self._stopped):
            self.tell(line)

    def tell(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)

    def finish(self, job: Job) -> None:
        """Count a job as done, also where it was interrupted."""
        self._done += job.n_lanes * job.config.total_steps
        self._bar.update(self._task, completed=self._done)
