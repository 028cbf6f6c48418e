"""Training: a new run, or the rest of an old one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxvff.api import start
from jaxvff.api.run import Run
from jaxvff.core.errors import UserError
from jaxvff.runs import locks, run_file
from jaxvff.runs import trust as trust_
from jaxvff.settings import overrides, sweep
from jaxvff.settings.config import Config
from jaxvff.settings.overrides import Override

if TYPE_CHECKING:
    from jaxvff.runs.plan import Job

OWN = ("resume", "trust")  # the keys of the command itself


def train(
    *,
    method: str | None = None,
    env: str | None = None,
    seeds: int | None = None,
    on_report: Callable[[Mapping[str, Any]], None] | None = None,
    progress: bool = True,
    resume: str | Path | None = None,
    trust: bool = False,
    **settings: Any,
) -> Run:
    """Train a method for several seeds at once, as `jaxvff train` does.

    Ctrl-C, or the stop button of a notebook, ends it with a checkpoint: `Run.complete` is False
    then, and `resume` goes on.

    Args:
      method: `list_methods()`; None: nmqmix.
      env: `list_envs()`; None: matrix/a.
      seeds: how many; None: 32, or what the environment's settings say.
      on_report: told every report of every sweep value, as metrics.jsonl has it: "step", "sweep",
        "seed" `[S]`, and metrics `[S]` by name.
      progress: show a progress bar, in a notebook below its cell.
      resume: the folder of a run that is to go on; then `settings` may have total_steps,
        tensorboard and wandb.
      trust: run the code that a run folder names (docs/runs.md); with `resume`.
      **settings: any key of docs/configuration.md. Keys with a dot are given as
        `**{"env.payoff": [[5, 0], [0, 1]], "sweep.lr": [1e-3, 1e-4]}`.

    Raises:
      UserError: a mistake in what is asked for, before anything is trained.
    """
    chosen = {"method": method, "env": env, "seeds": seeds}
    given = {name: value for name, value in chosen.items() if value is not None} | settings
    own = {} if resume is None else {"resume": str(resume)}
    command = "train" if resume is None else run_file.read(Path(resume))[0]
    asked = request(command, own, overrides.from_values(given), trusted=trust)
    start.set_up(asked.configs[0])
    with prepared(asked) as (folder, jobs):
        from jaxvff.api import shown
        from jaxvff.reports import written

        resumed = asked.resume is not None
        results = shown.train(folder, jobs, resume=resumed, show=progress, on_report=on_report)
        written.write(folder, results)
    return Run(folder, trust=trust or resume is None)


class Request(NamedTuple):
    """A run that is asked for, and makes sense as far as one can tell without JAX."""

    command: str
    parts: list[list[Override]]  # of a new run
    given: list[Override]  # what was typed, for the rest of an old one
    resume: Path | None  # the folder of the old one
    trusted: bool
    configs: list[Config]  # of all sweep values


def request(
    command: str,
    own: Mapping[str, str],
    given: list[Override],
    parts: list[list[Override]] | None = None,
    *,
    trusted: bool = False,
) -> Request:
    """What was typed, checked before JAX is there, so that mistakes are answered at once.

    Args:
      command: that the run is of.
      own: the values of OWN that were typed.
      given: what was typed beside them.
      parts: the overrides of each part of a new run; None: `given` alone.
      trusted: as trust=true among `own`.

    Raises:
      UserError: a mistake.
    """
    resume = Path(own["resume"]) if "resume" in own else None
    trusted = trusted or overrides.flag(own, "trust")
    if trusted and resume is None:
        raise UserError("trust=true is for the code that a run folder names; add resume=<folder>")
    parts = [given] if parts is None else parts
    saved = parts if resume is None else run_file.read(resume, command)[1]
    configs = sweep.configs(saved)
    return Request(command, parts, given, resume, trusted, configs)


@contextmanager
def prepared(asked: Request) -> Iterator[tuple[Path, list[Job]]]:
    """The folder of a run and its jobs; no other process may write there meanwhile.

    JAX has been set up (api.start).

    Raises:
      UserError: a mistake, or another process writes there.
    """
    from jaxvff.runs import folder as runs
    from jaxvff.runs import shards

    if asked.resume is None:
        folder, jobs = runs.new_run(*asked.parts, command=asked.command)
        with locks.sole_writer(folder):
            yield folder, jobs
        return
    folder = asked.resume
    with locks.sole_writer(folder):
        if not asked.trusted:
            trust_.check(folder, asked.configs)
        shards.check_merged(folder)
        yield folder, runs.resumed_run(folder, asked.command, asked.given)
