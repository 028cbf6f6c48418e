"""From overrides to the config of every sweep value; light to import."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxvff.core.errors import UserError
from jaxvff.settings import config
from jaxvff.settings.config import OUTPUTS, Config
from jaxvff.settings.overrides import GROUPS, Override, check_read, parse, sweeps


class Labelled(NamedTuple):
    """The config of one sweep value."""

    label: dict[str, Any]  # the swept keys with their values; empty where nothing is swept
    config: Config


def expand(overrides: Iterable[str | Override]) -> list[Labelled]:
    """The config of every value that `overrides` ask for, `sweep.<key>=[...]` among them.

    Raises:
      UserError: an unknown key or name, a wrong type, or a value out of range.
    """
    return list(_expanded(_Given(parse(overrides))))


def configs(parts: Iterable[Iterable[str | Override]]) -> list[Config]:
    """The configs of all sweep values of all parts of a run.

    Raises:
      UserError: as `expand`.
    """
    return [value.config for part in parts for value in expand(part)]


class _Given(list[Override]):
    """Overrides that are equal where their texts are: the key of a cache."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(o.text for o in self))


@functools.lru_cache(maxsize=16)  # the command line asks before JAX is imported, then again
def _expanded(given: _Given) -> tuple[Labelled, ...]:
    swept = sweeps(given)
    for name in ("seeds", "deterministic", *OUTPUTS):
        if name in swept:
            raise UserError(f"sweep.{name} is no sweep; {name}= takes one value")
    named = config.names(given)
    out = []
    for values in itertools.product(*swept.values()):
        label = dict(zip(swept, values, strict=True))
        names = named | {k: v for k, v in label.items() if k in GROUPS}
        settings = config.compose(names)
        config.put_all(settings, given)
        for name, value in label.items():
            if name not in names:
                config.put(settings, name, value)
        out.append(Labelled(label, Config(**settings)))
    check_read(given, [config.idle(one.config) for one in out])
    return tuple(out)
