"""What `jaxvff reproduce <name>` trains: files of overrides in jaxvff.configs/reproduce."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import jaxvff.configs
from jaxvff.core.errors import UserError, check_name
from jaxvff.settings.overrides import Override, parse

FOLDER = Path(jaxvff.configs.__file__).parent / "reproduce"


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def overrides(name: str, extra: Iterable[str | Override]) -> list[list[Override]]:
    """A preset's overrides with the user's in place of those of the same key.

    Returns:
      The overrides for each of the preset's `parts`, which share its `overrides` and have methods
      of their own; parts of none of the methods in the user's sweep.method are left out.

    Raises:
      UserError: an unknown preset, a key that makes the preset what it is (`fixed` there), or a
        method that none of its parts has.
    """
    check_name(name, names(), "reproduce")
    preset = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    users = parse(extra)
    parts: list[list[Override]] = [[]]
    if "parts" in preset:
        asked = [o for o in users if o.swept and o.key == "method"]
        parts = _parts(preset["parts"], asked)
        users = [o for o in users if o not in asked]
    fixed = preset.get("fixed", [])
    set_by_user = {_typed_key(o) for o in users}
    if other := [k for k in set_by_user if any(k == f or k.startswith(f"{f}.") for f in fixed)]:
        raise UserError(f"{min(other)}= is no part of {name}; train takes it")
    shared = parse(preset["overrides"])
    return [
        [o for o in [*shared, *part] if _typed_key(o) not in set_by_user] + users for part in parts
    ]


def _typed_key(o: Override) -> str:
    """The key with "sweep.", since a value and a sweep of the same key are different requests."""
    return f"sweep.{o.key}" if o.swept else o.key


def _parts(parts: list[dict[str, Any]], asked: list[Override]) -> list[list[Override]]:
    """The overrides of each part that has one of the methods of `asked`, a list if anything."""
    every = [method for part in parts for method in part["methods"]]
    chosen = asked[-1].value if asked else every
    for method in chosen:  # type: ignore[attr-defined]  # a sweep's value is a list
        check_name(method, every, "sweep.method")
    methods = [[m for m in part["methods"] if m in chosen] for part in parts]  # type: ignore[operator]
    return [
        parse([f"sweep.method=[{','.join(some)}]", *part["overrides"]])
        for part, some in zip(parts, methods, strict=True)
        if some
    ]
