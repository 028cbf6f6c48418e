"""What agents see and do, by name: what a file says of it, held against an environment."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from jaxvff.core.types import Env, HostEnv


def difference(told: Mapping[str, Any], env: Env | HostEnv) -> str | None:
    """The first part of an observation, or action, that a file names otherwise, in words.

    Args:
      told: "observation" `[[name, size], ...]` and "actions" `[name, ...]`, as policy.json and the
        schema of recorded episodes have them.
      env: that they are for.

    Returns:
      None where all names are the same, or one side has none.
    """
    here = {"part": _parts(env.obs_parts), "action": list(env.action_names)}
    there = {"part": _parts(told.get("observation")), "action": told.get("actions")}
    for what, mine in here.items():
        theirs = there[what]
        if not mine or not theirs or not isinstance(theirs, Sequence):
            continue
        for i, (a, b) in enumerate(itertools.zip_longest(theirs, mine, fillvalue="missing")):
            if a != b:
                where = f"part {i + 1} of an observation" if what == "part" else f"action {i}"
                return f"{where} is {a!r} there and {b!r} here"
    return None


def _parts(parts: object) -> list[str]:
    """Each part with its size; nothing of what is no list of pairs."""
    if not isinstance(parts, Sequence) or not all(
        isinstance(part, Sequence) and len(part) == 2 for part in parts
    ):
        return []
    return [f"{name}: {size}" for name, size in parts]
