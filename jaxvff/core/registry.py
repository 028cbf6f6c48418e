"""Tables of interchangeable parts, whose rows are imported when they are asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

Part = TypeVar("Part")


def load(reference: str) -> Any:
    """What `package.module:name` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts by name. A row is a reference `package.module:name`.

    To list the names imports nothing: a misspelt one is answered before JAX is there, and a game
    that is not installed costs nobody else anything.
    """

    def __init__(self, rows: Mapping[str, str]) -> None:
        """`rows`: name -> reference."""
        self._rows = dict(rows)

    def __getitem__(self, name: str) -> Part:
        return cast(Part, load(self._rows[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, name: object) -> bool:  # Mapping's own would import the part
        return name in self._rows
