"""`jaxvff train`: train, or resume, and show the results."""

from __future__ import annotations

from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.runs import run_file
from jaxvff.settings import overrides, sweep
from jaxvff.settings.overrides import Override


def run(args: list[str]) -> int:
    """Train what the arguments ask for, or go on with the run that `resume=` names."""
    texts, own = overrides.split(args, "resume")
    given = overrides.parse(texts)
    return begin("train", [given], given, own.get("resume"))


def begin(
    command: str, parts: list[list[Override]], given: list[Override], resume: str | None
) -> int:
    """Train a new run, or go on with an old one; the exit code.

    Args:
      command: that the run is of.
      parts: the overrides of each part of a new run.
      given: what the user typed, for the rest of an old one.
      resume: the folder of the old one; None: a new one.
    """
    # Before JAX is there: mistakes are answered at once, and the cache is set up as asked for.
    saved = parts if resume is None else run_file.read(Path(resume), command)[1]
    configs = [value.config for part in saved for value in sweep.expand(part)]
    with importing(configs[0]):
        from jaxvff.cli.progress import train_and_show
        from jaxvff.runs import folder as runs

        if resume is None:
            folder, jobs = runs.new_run(*parts, command=command)
        else:
            folder = Path(resume)
            _, jobs = runs.old_run(folder, command, given)
    return train_and_show(folder, jobs, command=command, resume=resume is not None)
