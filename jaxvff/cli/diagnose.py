"""`jaxvff diagnose run=<folder>`: does greedy play of a trained run maximise its joint value?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvff.api import run as runs
from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.settings import diagnosis as options
from jaxvff.settings import overrides

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from jaxvff.reports.diagnosis import Diagnosis
    from jaxvff.runs.plan import Job
    from jaxvff.settings.diagnosis import DiagnosisOptions
    from jaxvff.training.diagnosis import Found


def run(args: list[str]) -> int:
    """Diagnose every lane of a run, and write what was found into its folder."""
    rest, own = overrides.split(args, "run", "trust", *options.KEYS)
    if "run" not in own or rest:
        keys = "=, ".join((*options.KEYS, "trust"))
        raise UserError(f"diagnose takes run=<run folder>, {keys}= and no more")
    trusted = overrides.flag(own, "trust")
    asked = options.read({key: text for key, text in own.items() if key in options.KEYS})
    trained = runs.load(own["run"], trust=trusted)
    folder = trained.folder
    with importing(trained.configs[0]):
        jobs = trained.files()

        from rich.console import Console

        from jaxvff.reports import diagnosis
        from jaxvff.runs import learned

    console = Console()
    found = _found(console, jobs, asked)
    if not found:
        raise learned.none_yet(folder)
    diagnosis.write(folder, asked, found)
    with console.status("drawing"):
        from jaxvff.reports import diagnosis_picture  # matplotlib takes a second to import

        diagnosis_picture.draw(found, folder / diagnosis_picture.FILE)
    console.print(diagnosis.table(found))
    for name in (diagnosis.FILE, diagnosis_picture.FILE):
        _say(console, folder / name)
    return 0


def _found(
    console: Console, files_and_jobs: Sequence[tuple[Path, Job]], asked: DiagnosisOptions
) -> list[Diagnosis]:
    """What is found of each job that has a checkpoint, under a progress bar; says what has none.

    Raises:
      UserError: no job can be diagnosed.
    """
    from rich.progress import Progress

    jobs = [job for _, job in files_and_jobs]
    refused = _refused(jobs)
    found: list[Diagnosis] = []
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("", total=sum(job.n_lanes for job in jobs))
        for index, (files, job) in enumerate(files_and_jobs):
            if index in refused:
                _say(bar.console, f"left out: {refused[index]}")
            else:
                found += _of_job(bar, task, files, job, asked)
            bar.update(task, completed=sum(job.n_lanes for job in jobs[: index + 1]))
    return found


def _refused(jobs: Sequence[Job]) -> dict[int, UserError]:
    """The numbers of the jobs that cannot be diagnosed, with the reasons.

    Raises:
      UserError: none can.
    """
    from jaxvff.training import diagnosis

    refused = {}
    for index, job in enumerate(jobs):
        try:
            diagnosis.check(job.config.method["name"], job.env)
        except UserError as reason:
            refused[index] = reason
    if len(refused) == len(jobs):
        raise refused[0]
    return refused


def _of_job(
    bar: Progress, task: TaskID, files: Path, job: Job, asked: DiagnosisOptions
) -> list[Diagnosis]:
    """What is found of a job; nothing where it has no checkpoint.

    Args:
      bar: that shows how many lanes are done.
      task: of the bar.
      files: the folder of the job.
      job: from an old run.
      asked: what was asked.
    """
    from jaxvff.reports import diagnosis as reports
    from jaxvff.runs import learned
    from jaxvff.training import diagnosis

    def shown(found: Iterator[Found]) -> Iterator[Found]:
        for each in found:
            bar.update(task, advance=each.share, description=job.name)
            yield each

    bar.update(task, description=f"{job.name}: compiling")
    with learned.open_program(job) as program:
        trained = learned.newest(files, job, program)
        if trained is None:
            _say(bar.console, f"{files} has no checkpoint yet")
            return []
        found = diagnosis.diagnose(program, trained.carry, trained.lane, asked)
        return list(reports.diagnoses(job, trained, asked, shown(found)))


def _say(console: Console, what: object) -> None:
    console.print(str(what), soft_wrap=True, markup=False, highlight=False)
