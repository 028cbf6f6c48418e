"""`jaxvff reproduce <name>`: a table or figure of the paper, or of ours."""

from __future__ import annotations

from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.core.errors import check_name
from jaxvff.settings import overrides, presets, sweep


def run(args: list[str]) -> int:
    """Train the parts of a preset, and show what came out."""
    name, rest = (args[0], args[1:]) if args else ("nothing", [])
    check_name(name, presets.names(), "reproduce")
    texts, own = overrides.split(rest, "resume")
    given, command = overrides.parse(texts), f"reproduce {name}"
    parts = [] if "resume" in own else presets.overrides(name, given)
    configs = [value.config for part in parts for value in sweep.expand(part)]
    with importing(configs[0] if configs else None):
        from jaxvff.cli.progress import train_and_show
        from jaxvff.runs import folder as runs

        if "resume" in own:
            folder = Path(own["resume"])
            _, jobs = runs.old_run(folder, command, given)
        else:
            folder, jobs = runs.new_run(*parts, command=command)
    return train_and_show(folder, jobs, command=command, resume="resume" in own)
