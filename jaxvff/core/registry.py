"""Tables of interchangeable parts, whose rows are imported when they are asked for.

Those that other packages may add to are OpenRegistry's.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from typing import Any, Generic, TypeVar, cast

from jaxvff.core.errors import UserError

Part = TypeVar("Part")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def is_reference(name: object) -> bool:
    """Whether it is written as `package.module:name` is."""
    return isinstance(name, str) and _REFERENCE.fullmatch(name) is not None


def load(reference: str) -> Any:
    """What `package.module:name` refers to."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class Registry(Mapping[str, Part], Generic[Part]):
    """Parts by name. A row is a reference `package.module:name`, or the part itself.

    To list the names imports nothing: a misspelt one is answered before JAX is there, and a game
    that is not installed costs nobody else anything.
    """

    def __init__(self, rows: Mapping[str, str | Part]) -> None:
        """`rows`: name -> reference or part."""
        self.own = dict(rows)

    def __getitem__(self, name: str) -> Part:
        row = self.own[name]
        return cast(Part, load(row)) if isinstance(row, str) else row

    def own_parts(self) -> dict[str, Part]:
        """The rows of this package, imported."""
        return {name: self[name] for name in self.own}

    def __iter__(self) -> Iterator[str]:
        return iter(self.own)

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __bool__(self) -> bool:  # without a look at what is installed
        return True

    def __contains__(self, name: object) -> bool:  # Mapping's own would import the part
        return name in self.own


class OpenRegistry(Registry[Part]):
    """A table that other packages add to.

    It has the rows of installed packages (entry points of its group) as well, and takes
    `package.module:name` in place of a name.
    """

    def __init__(
        self,
        rows: Mapping[str, str | Part],
        group: str,
        adapted: str | None = None,
    ) -> None:
        """A table.

        Args:
          rows: of this package.
          group: of entry points; a name that is taken stays what it is.
          adapted: reference to a function (reference, what it refers to) -> the part, for what
            comes from elsewhere, which raises a UserError where that is none.
        """
        super().__init__(rows)
        self._group, self._adapted = group, adapted

    def __getitem__(self, name: str) -> Part:
        """The part of that name.

        Raises:
          UserError: somebody else's cannot be imported, or is no such part.
        """
        if name in self.own:
            return super().__getitem__(name)
        reference = name if is_reference(name) else self._installed()[name]
        try:
            found = load(reference)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"{reference} cannot be imported: {error}; install its package into this "
                "environment, or put its folder on PYTHONPATH"
            ) from error
        return cast(Part, found if self._adapted is None else load(self._adapted)(reference, found))

    def __iter__(self) -> Iterator[str]:
        yield from self.own
        yield from (name for name in self._installed() if name not in self.own)

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        return name in self.own or is_reference(name) or name in self._installed()

    def _installed(self) -> dict[str, str]:
        return _entry_points(self._group)


@functools.cache
def _entry_points(group: str) -> dict[str, str]:
    """Name -> reference, of the packages that are installed."""
    return {each.name: each.value for each in importlib.metadata.entry_points(group=group)}
