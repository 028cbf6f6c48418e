"""Environments by name. A new one is one file here and one row in ENVS.

This package imports nothing of jaxvff but its types. A row loads its module when it is called, so
that a missing game costs nobody else anything.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxvff.types import Env


def _matrix() -> Callable[..., Env]:
    from jaxvff.envs import matrix

    return matrix.make


def _smax() -> Callable[..., Env]:
    from jaxvff.envs import smax

    return smax.make


def _jaxmarl() -> Callable[..., Env]:
    from jaxvff.envs import jaxmarl

    return jaxmarl.make


# kind -> a function that imports the module and returns its make(**options)
ENVS: dict[str, Callable[[], Callable[..., Env]]] = {
    "matrix": _matrix,
    "smax": _smax,
    "jaxmarl": _jaxmarl,
}
