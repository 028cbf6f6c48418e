"""Greedy evaluation of the jobs of a run, from their newest checkpoints."""

from __future__ import annotations

import dataclasses
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
def of_job(files: Path, job: Job, eval_episodes: int | None = None) -> Iterator[Evaluated | None]:
    """Play greedily; what plays games on the host ends with the context.

    Args:
      files: the folder of the job.
      job: from an old run.
      eval_episodes: greedy episodes a seed; None: as many as the run has in its reports.

    Yields:
      None where there is no checkpoint yet.

    Raises:
      UserError: it is damaged or of another run, or `eval_episodes` is out of range.
    """
    played = job if eval_episodes is None else _with_episodes(job, eval_episodes)
    with learned.open_program(played) as program:
        trained = learned.newest(files, job, program)
        if trained is None:
            yield None
            return
        metrics = loop.report_metrics(program, trained.carry, trained.lane)
        results = execute.results(job, files, trained.iteration, metrics=metrics, timing={})
        yield Evaluated(program, trained, results)


def _with_episodes(job: Job, eval_episodes: int) -> Job:
    """The job with another number of greedy episodes; its fingerprint is another one, too."""
    return Job(
        [
            value._replace(config=dataclasses.replace(value.config, eval_episodes=eval_episodes))
            for value in job.values
        ]
    )
