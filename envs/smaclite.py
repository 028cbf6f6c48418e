"""SMAClite: SMAC's battles without StarCraft II (Michalski et al., 2023), played on the host."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs.hosted import WorkerOptions, host_env


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """Which map, and how long a battle is."""

    map: str = option("2s3z", "a name of SMAClite's registry")
    time_limit: int = option(
        120, "longest episode; SMAClite has no limit of its own", unit="env steps", low=1
    )


def make(options: Options) -> HostEnv:
    """A battle of SMAClite.

    Raises:
      UserError: an unknown map, or smaclite is not there; it says how to install it.
    """
    arguments = {"map": options.map, "time_limit": options.time_limit}
    return host_env("smaclite", arguments, options.crew())


KIND = EnvKind(Options, make)
