"""What `jaxvff reproduce <name>` trains: files of overrides in jaxvff.configs/reproduce."""

from __future__ import annotations

from pathlib import Path

import yaml

import jaxvff.configs
from jaxvff.options import choose
from jaxvff.types import UserError

FOLDER = Path(jaxvff.configs.__file__).parent / "reproduce"
SWEPT = "sweep.method="


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def overrides(name: str, extra: list[str]) -> list[list[str]]:
    """A preset's overrides with the user's in place of those of the same key.

    Returns:
      A list of overrides for each of the preset's `parts`, which share its `overrides` and have
      methods of their own; parts of none of the methods in the user's sweep.method are left out.

    Raises:
      UserError: an unknown preset, a key that makes the preset what it is (`fixed` there), or a
        method that none of its parts has.
    """
    choose(name, names(), "reproduce")
    preset = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    parts: list[list[str]] = [[]]
    if "parts" in preset:
        asked = [text for text in extra if text.startswith(SWEPT)]
        parts = _parts(preset["parts"], asked)
        extra = [text for text in extra if text not in asked]
    mine = {text.split("=", 1)[0] for text in extra}
    fixed = preset.get("fixed", [])
    if other := [k for k in mine if any(k == f or k.startswith(f"{f}.") for f in fixed)]:
        raise UserError(f"{min(other)}= is no part of {name}; train takes it")
    parts = [[*preset["overrides"], *part] for part in parts]
    return [[t for t in part if t.split("=", 1)[0] not in mine] + extra for part in parts]


def _parts(parts: list[dict[str, list[str]]], asked: list[str]) -> list[list[str]]:
    """The overrides of each part that has one of the methods of `asked`, a list if anything."""
    every = [method for part in parts for method in part["methods"]]
    chosen = yaml.safe_load(asked[-1].removeprefix(SWEPT)) if asked else every
    chosen = chosen if isinstance(chosen, list) else [chosen]
    for method in chosen:
        choose(method, every, "sweep.method")
    methods = [[m for m in part["methods"] if m in chosen] for part in parts]
    return [
        [f"{SWEPT}[{','.join(some)}]", *part["overrides"]]
        for part, some in zip(parts, methods, strict=True)
        if some
    ]
