"""`jaxvff train`: train, or resume, and show the results."""

from __future__ import annotations

from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.settings import overrides, sweep


def run(args: list[str]) -> int:
    """Train what the arguments ask for, or go on with the run that `resume=` names."""
    texts, own = overrides.split(args, "resume")
    given = overrides.parse(texts)
    options = None if "resume" in own else sweep.expand(given)[0].config
    with importing(options):
        from jaxvff.cli.progress import train_and_show
        from jaxvff.runs import folder as runs

        if "resume" in own:
            folder = Path(own["resume"])
            _, jobs = runs.old_run(folder, "train", given)
        else:
            folder, jobs = runs.new_run(given)
    return train_and_show(folder, jobs, command="train", resume="resume" in own)
