"""Training under a progress bar, then the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from jaxvff.api import shown
from jaxvff.runs import memory
from jaxvff.runs.execute import Result, is_complete
from jaxvff.runs.folder import resume_command
from jaxvff.runs.plan import Job


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
        results = shown.train(folder, jobs, resume=resume, console=console)
    except Exception as error:
        error.add_note(f"what was written is kept in {folder}; go on with: {go_on}")
        raise
    complete = is_complete(jobs, results)
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
