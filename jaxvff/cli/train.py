"""`jaxvff train`: train, or resume, and show the results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.runs import locks, run_file, trust
from jaxvff.settings import overrides, sweep
from jaxvff.settings.overrides import Override

OWN = ("resume", "trust")  # the keys of the command itself


def run(args: list[str]) -> int:
    """Train what the arguments ask for, or go on with the run that `resume=` names."""
    texts, own = overrides.split(args, *OWN)
    given = overrides.parse(texts, typed=True)
    return begin("train", [given], given, own)


def begin(
    command: str,
    parts: list[list[Override]],
    given: list[Override],
    own: Mapping[str, str],
) -> int:
    """Train a new run, or go on with an old one; the exit code.

    Args:
      command: that the run is of.
      parts: the overrides of each part of a new run.
      given: what the user typed, for the rest of an old one.
      own: the values of OWN that were typed.
    """
    resumed = Path(own["resume"]) if "resume" in own else None
    trusted = trust.wish(own.get("trust"))
    if trusted and resumed is None:
        raise UserError("trust=true is for the code that a run folder names; add resume=<folder>")
    # Before JAX is there: mistakes are answered at once, and the cache is set up as asked for.
    saved = parts if resumed is None else run_file.read(resumed, command)[1]
    configs = [value.config for part in saved for value in sweep.expand(part)]
    with ExitStack() as stack:
        with importing(configs[0]):
            from jaxvff.cli.progress import train_and_show
            from jaxvff.runs import folder as runs
            from jaxvff.runs import shards

            if resumed is None:
                folder, jobs = runs.new_run(*parts, command=command)
                stack.enter_context(locks.sole_writer(folder))
            else:
                folder = resumed
                stack.enter_context(locks.sole_writer(folder))
                if not trusted:
                    trust.check(folder, configs)
                shards.check_merged(folder)
                jobs = runs.resumed_run(folder, command, given)
        return train_and_show(folder, jobs, command=command, resume=resumed is not None)
