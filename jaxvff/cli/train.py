"""`jaxvff train`: train, or resume, and show the results."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from jaxvff.api import training
from jaxvff.api.training import OWN
from jaxvff.cli.start import importing
from jaxvff.settings import overrides
from jaxvff.settings.overrides import Override


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
    # Before JAX is there: mistakes are answered at once, and the cache is set up as asked for.
    asked = training.request(command, own, given, parts)
    with ExitStack() as stack:
        with importing(asked.configs[0]):
            from jaxvff.cli.progress import train_and_show

            folder, jobs = stack.enter_context(training.prepared(asked))
        return train_and_show(folder, jobs, command=command, resume=asked.resume is not None)
