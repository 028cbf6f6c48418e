"""What `jaxvff reproduce <name>` trains: files of overrides in jaxvff.configs/reproduce."""

from __future__ import annotations

from pathlib import Path

import yaml

import jaxvff.configs
from jaxvff.options import choose
from jaxvff.types import UserError

FOLDER = Path(jaxvff.configs.__file__).parent / "reproduce"


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def overrides(name: str, extra: list[str]) -> list[list[str]]:
    """A preset's overrides with the user's in place of those of the same key.

    Returns:
      A list of overrides for each of the preset's `parts`, which share its `overrides`.

    Raises:
      UserError: an unknown preset, or a key that makes the preset what it is (`fixed` there).
    """
    choose(name, names(), "reproduce")
    preset = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    mine = {text.split("=", 1)[0] for text in extra}
    fixed = preset.get("fixed", [])
    if other := [k for k in mine if any(k == f or k.startswith(f"{f}.") for f in fixed)]:
        raise UserError(f"{min(other)}= is no part of {name}; train takes it")
    parts = [[*preset["overrides"], *part] for part in preset.get("parts", [[]])]
    return [[t for t in part if t.split("=", 1)[0] not in mine] + extra for part in parts]
