"""Environments by name. A new one is one file here and one row in ENVS.

This package imports nothing of jaxvff but its types. A row loads its module when it is called, so
that a missing game costs nobody else anything.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from jaxvff.types import Env, HostEnv


def _in(module: str, name: str = "make") -> Callable[[], Callable[..., Env | HostEnv]]:
    return lambda: getattr(importlib.import_module(f"jaxvff.envs.{module}"), name)


# kind -> a function that imports the module and returns its make(**options)
ENVS: dict[str, Callable[[], Callable[..., Env | HostEnv]]] = {
    "matrix": _in("matrix"),
    "contextual": _in("contextual"),
    "matrix_steps": _in("matrix_steps"),
    "predator_prey": _in("predator_prey"),
    "smax": _in("smax"),
    "jaxmarl": _in("jaxmarl"),
    "grf": _in("hosted", "grf"),
    "smac": _in("hosted", "smac"),
    "smacv2": _in("hosted", "smacv2"),
    "smaclite": _in("hosted", "smaclite"),
    "custom": _in("hosted", "custom"),
}
