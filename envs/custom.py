"""A multi-agent environment of the user's, by its import path, played on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from typing import Any

from jaxvff.core.errors import UserError
from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs.host.custom import APIS
from jaxvff.envs.hosted import WorkerOptions, host_env


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """What makes the environment, and which API it has."""

    entry: str = option(MISSING, "package.module:function, which makes the environment", code=True)
    time_limit: int = option(
        MISSING, "longest episode; a longer one is truncated", unit="env steps", low=1
    )
    api: str = option(
        "pettingzoo",
        "PettingZoo's parallel API, or gymnasium with tuples of spaces, an entry an agent",
        names=APIS,
    )
    kwargs: Mapping[str, Any] | None = option(None, "keyword arguments of the function")

    def __post_init__(self) -> None:
        super().__post_init__()
        module, colon, name = self.entry.partition(":")
        if not (module and colon and name):
            raise UserError(
                f"env.entry={self.entry!r} has no module and function; write"
                " package.module:function, such as my_package.my_module:make"
            )
        if not (self.kwargs is None or isinstance(self.kwargs, Mapping)):
            raise UserError(f"env.kwargs={self.kwargs!r} must be a mapping, such as {{size: 5}}")
        if not all(isinstance(key, str) for key in self.kwargs or ()):
            raise UserError(f"env.kwargs={self.kwargs!r} must have names as keys, not numbers")


def make(options: Options) -> HostEnv:
    """The environment that `entry` makes.

    Raises:
      UserError: nothing can be imported from `entry`, or no team can play what it makes.
    """
    arguments = {
        "entry": options.entry,
        "time_limit": options.time_limit,
        "api": options.api,
        "kwargs": options.kwargs or {},
    }
    return host_env("custom", arguments, options.crew())


KIND = EnvKind(Options, make)
