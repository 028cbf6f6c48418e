"""Training under a progress bar, which says what is waited for; in a terminal or a notebook."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from jaxvff.runs import execute
from jaxvff.runs.execute import Result, Watcher
from jaxvff.runs.plan import Job
from jaxvff.training.loop import Report

# A report of one sweep value, as metrics.jsonl has it
OnReport = Callable[[Mapping[str, Any]], None]


class Bar(Protocol):
    """Where progress is shown."""

    def update(self, *, what: str, speed: str, done: int) -> None:
        """Show what goes on, how fast, and seed-steps done."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


def train(
    folder: Path,
    jobs: Sequence[Job],
    *,
    resume: bool,
    console: Console | None = None,
    show: bool = True,
    on_report: OnReport | None = None,
) -> list[Result]:
    """Train all jobs of a run.

    Args:
      folder: the run folder.
      jobs: from runs.folder.
      resume: continue from the checkpoints in `folder`.
      console: of the terminal.
      show: whether progress is shown.
      on_report: told every report of every sweep value.

    Returns:
      The results of the jobs that were begun before an interruption.
    """
    total = sum(job.n_lanes * job.config.total_steps for job in jobs)
    results: list[Result] = []
    with execute.interruptible() as stopped, _bar(console or Console(), total, show) as bar:
        progress = _Progress(bar, on_report)
        watcher = Watcher(
            stop_early=stopped,
            on_wait=progress.on_wait,
            on_progress=progress.on_progress,
            on_report=progress.on_report,
            tell=bar.say,
        )
        run = execute.execute(folder, jobs, resume=resume, watcher=watcher)
        for job, finished in zip(jobs, run, strict=False):
            results += finished
            progress.finish(job)
    return results


class _Progress:
    """Counts the seed-steps of all jobs of a run, and tells of reports."""

    def __init__(self, bar: Bar, on_report: OnReport | None) -> None:
        self._bar, self._told = bar, on_report
        self._done = 0  # seed-steps of the jobs that are finished
        self._shown = 0  # seed-steps that the bar shows
        self._begins: dict[str, tuple[int, float]] = {}  # of each job: its first steps, and when
        self._stopped: set[tuple[str, int]] = set()  # seeds that were told of

    def on_wait(self, job: Job, what: str) -> None:
        """Say what is waited for."""
        self._bar.update(what=f"{job.name}: {what}", speed="", done=self._shown)

    def on_progress(self, job: Job, steps: int) -> None:
        """Show the steps per lane of a job, and how fast they come."""
        first_steps, first_time = self._begins.setdefault(job.name, (steps, time.perf_counter()))
        elapsed = time.perf_counter() - first_time
        rate = job.n_lanes * (steps - first_steps) / elapsed if elapsed > 0.1 else 0
        self._shown = self._done + job.n_lanes * steps
        speed = f"{rate:,.0f} seed-steps/s" if rate else ""
        self._bar.update(what=job.name, speed=speed, done=self._shown)

    def on_report(self, job: Job, report: Report) -> None:
        """Tell of seeds that stopped, and whoever wants to know."""
        from jaxvff.reports.stops import stops

        for line in stops(job, report.metrics, self._stopped):
            self._bar.say(line)
        if self._told is None:
            return
        for value, metrics in execute.by_value(job, report.metrics):
            of_seeds = {name: x for name, x in metrics.items() if x.ndim == 1}
            about = {"step": report.step, "sweep": value.label, "seed": list(value.seeds)}
            self._told({**about, **of_seeds, "wall_s": report.wall_s})

    def finish(self, job: Job) -> None:
        """Count a job as done, also where it was interrupted."""
        self._done += job.n_lanes * job.config.total_steps
        self._shown = self._done
        self._bar.update(what=job.name, speed="", done=self._done)


@contextmanager
def _bar(console: Console, total: int, show: bool) -> Iterator[Bar]:
    """The bar that fits where this process runs."""
    if not show:
        yield _Nothing()
    elif console.is_jupyter:
        yield NotebookBar(total)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            yield _TerminalBar(console, progress, total)


class _TerminalBar:
    """A bar at the bottom of a terminal."""

    def __init__(self, console: Console, progress: Progress, total: int) -> None:
        self._console, self._progress = console, progress
        self._task = progress.add_task("starting", total=total, speed="")

    def update(self, *, what: str, speed: str, done: int) -> None:
        self._progress.update(self._task, description=what, speed=speed, completed=done)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._console.print(line, soft_wrap=True, markup=False, highlight=False)


class NotebookBar:
    """A bar below a notebook's cell, drawn by the browser; no widgets are needed."""

    def __init__(self, total: int) -> None:
        """`total`: seed-steps of the run."""
        from IPython.display import HTML, display

        self._html, self._total, self._lines = HTML, max(total, 1), list[str]()
        self._began = time.perf_counter()
        self._at = ("starting", "", 0)
        self._shown = display(HTML(self.text()), display_id=True)

    def text(self) -> str:
        """What is shown, as HTML."""
        what, speed, done = self._at
        share, elapsed = done / self._total, time.perf_counter() - self._began
        words = [html.escape(what), f"{share:.0%}", speed, f"{elapsed:.0f} s"]
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self._lines)
        bar = f"<progress value='{done}' max='{self._total}'></progress>"
        return f"{lines}<div>{bar} {' · '.join(filter(None, words))}</div>"

    def update(self, *, what: str, speed: str, done: int) -> None:
        """Draw it anew."""
        self._at = (what, speed, done)
        self._shown.update(self._html(self.text()))

    def say(self, line: str) -> None:
        """Add a line above the bar."""
        self._lines.append(line)
        self._shown.update(self._html(self.text()))


class _Nothing:
    """No bar; what has to be said is printed."""

    def update(self, *, what: str, speed: str, done: int) -> None:
        """Nothing is shown."""

    def say(self, line: str) -> None:
        print(line)
