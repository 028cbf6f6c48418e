"""What `jaxvff reproduce <name>` trains: files of overrides in jaxvff.configs/reproduce."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import jaxvff.configs
from jaxvff.core.errors import UserError, check_name
from jaxvff.core.machine import cores, largest_divisor
from jaxvff.settings import config, sweep
from jaxvff.settings.overrides import Override, check_read, parse, replaced

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
    preset = _read(name)
    users = parse(extra)
    fixed = preset.get("fixed", [])
    for o in users:
        if any(o.name == f or o.name.startswith(f"{f}.") for f in fixed):
            raise UserError(
                f"{o.text} would change what {name} compares, its methods and games; use jaxvff "
                f"train {o.text}"
            )
    parts: list[list[Override]] = [[]]
    if "parts" in preset:
        asked = [o for o in users if o.swept and o.key == "method"]
        parts = _parts(preset["parts"], asked)
        users = [o for o in users if o not in asked]
    shared = parse(preset["overrides"])
    whole = [_with_users([*shared, *part], users, name) for part in parts]
    return _read_somewhere(whole)


def hours(name: str, parts: Iterable[Iterable[Override]]) -> float | None:
    """How long a preset trains on this machine's CPU, by the seconds on record in its file.

    The file's `core_seconds` has, for each method and environment, the seconds that a core of the
    machine named there takes for a million env steps of one seed. Lanes share as many cores as
    divide them evenly. Compilation is left out: seconds a program.

    Args:
      name: of the preset.
      parts: its overrides with the user's, from `overrides`.

    Returns:
      None where a time is not on record.
    """
    on_record = _read(name).get("core_seconds", {})
    seconds = 0.0
    for one in (value for part in parts for value in sweep.expand(part)):
        method, env = one.label.get("method"), one.label.get("env")
        if (per_million := on_record.get(method, {}).get(env)) is None:
            return None
        n = one.config.seeds
        seconds += per_million * n * one.config.total_steps / 1e6 / largest_divisor(n, cores())
    return seconds / 3600


def _read(name: str) -> dict[str, Any]:
    check_name(name, names(), "reproduce")
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def _with_users(own: list[Override], users: list[Override], name: str) -> list[Override]:
    """A part's own overrides with the user's in place of those of the same key."""
    swept = {o.key for o in own if o.swept}
    for o in users:
        if not o.swept and o.key in swept:
            raise UserError(
                f"{o.text} cannot replace the sweep of {name}; write sweep.{o.key}=[..]"
            )
    return replaced(own, users)


def _read_somewhere(parts: list[list[Override]]) -> list[list[Override]]:
    """The same parts, once it is sure that every key of the user's is read in one of them.

    In those that do not read it, it counts as the preset's.

    Raises:
      UserError: no part reads a key.
    """
    idle = [[config.idle(one.config) for one in sweep.expand(_as_presets(p))] for p in parts]
    check_read(parts[0], [keys for part in idle for keys in part])
    return [
        [o._replace(typed=o.typed and not all(o.key in keys for keys in unread)) for o in part]
        for part, unread in zip(parts, idle, strict=True)
    ]


def _as_presets(part: list[Override]) -> list[Override]:
    return [o._replace(typed=False) for o in part]


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
