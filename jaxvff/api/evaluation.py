"""Greedy evaluation of the jobs of a run, from their newest checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from jaxvff.runs import execute, learned
from jaxvff.runs.execute import Result
from jaxvff.runs.learned import Trained
from jaxvff.runs.plan import Job
from jaxvff.training import loop
from jaxvff.training.program import Program


class Evaluated(NamedTuple):
    """A job as it plays now."""

    program: Program
    trained: Trained
    results: list[Result]  # of its sweep values


@contextmanager
def of_job(files: Path, job: Job) -> Iterator[Evaluated | None]:
    """Play greedily; what plays games on the host ends with the context.

    Args:
      files: the folder of the job.
      job: from an old run.

    Yields:
      None where there is no checkpoint yet.

    Raises:
      UserError: it is damaged or of another run.
    """
    with learned.open_program(job) as program:
        trained = learned.newest(files, job, program)
        if trained is None:
            yield None
            return
        metrics = loop.report_metrics(program, trained.carry, trained.lane)
        results = execute.results(job, files, trained.iteration, metrics=metrics, timing={})
        yield Evaluated(program, trained, results)
