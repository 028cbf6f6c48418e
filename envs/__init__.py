"""Environments by name. A new one is one file here and one row in ENVS.

This package imports nothing of jaxvff but its types. A row's factory imports its module when it
is called, so that a missing game costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jaxvff.types import Env


def _matrix(**options: Any) -> Env:
    from jaxvff.envs import matrix

    return matrix.make(**options)


ENVS: dict[str, Callable[..., Env]] = {"matrix": _matrix}
