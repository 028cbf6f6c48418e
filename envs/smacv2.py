"""SMACv2: random teams and start positions, through oxwhirl's `smacv2`, played on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs.host.smacv2 import RACES
from jaxvff.envs.hosted import WorkerOptions, host_env


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """Which units, how many, and what else StarCraft2Env takes."""

    race: str = option("terran", "the mix of units, from SMACv2's own configurations", names=RACES)
    n_units: int = option(5, "units of the agents", low=1)
    n_enemies: int = option(5, "units of the enemy", low=1)
    options: Mapping[str, Any] | None = option(None, "arguments of SMACv2's StarCraft2Env")


def make(options: Options) -> HostEnv:
    """A battle of SMACv2.

    Raises:
      UserError: a bad option, or smacv2 is not there; it says how to install it.
    """
    mix = {"race": options.race, "n_units": options.n_units, "n_enemies": options.n_enemies}
    return host_env("smacv2", {**mix, **(options.options or {})}, options.crew())


KIND = EnvKind(Options, make)
