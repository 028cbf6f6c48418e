"""SMAC: StarCraft II against its built-in AI, through oxwhirl's `smac`, played on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs.hosted import WorkerOptions, host_env


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """Which map, and what else StarCraft2Env takes."""

    map: str = option("3s_vs_5z", "a name of SMAC's registry, whose time limit holds")
    options: Mapping[str, Any] | None = option(
        None, 'arguments of SMAC\'s StarCraft2Env, such as {difficulty: "7"}'
    )


def make(options: Options) -> HostEnv:
    """A battle of SMAC.

    Raises:
      UserError: a bad option, or smac is not there; it says how to install it.
    """
    return host_env("smac", {"map_name": options.map, **(options.options or {})}, options.crew())


KIND = EnvKind(Options, make)
