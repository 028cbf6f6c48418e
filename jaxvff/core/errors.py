"""Mistakes of the user, and how they are told: the value, the expectation, the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable, Iterable


class UserError(ValueError):
    """A mistake in what the user asked for: says the value, the expectation and the remedy."""


def extra(name: str) -> str:
    """The remedy where the packages of an extra are missing; no index has jaxvff itself."""
    return (
        f"install the extra {name}: uv sync --extra {name} in a checkout, elsewhere "
        f"pip install '<wheel of jaxvff>[{name}]'"
    )


def closest(value: object, names: Iterable[str]) -> str:
    """The remedy for an unknown name: the nearest one, or all of them."""
    names = list(dict.fromkeys(names))
    if not names:
        return "; it takes none"
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose one of {', '.join(names)}"


def check_name(value: object, names: Iterable[str], what: str) -> None:
    """Raise a UserError that names the closest alternative, unless `value` is one of `names`.

    Args:
      value: what the user asked for.
      names: what there is.
      what: the key that the user set, for the message.
    """
    names = names if isinstance(names, Collection) else list(names)
    if not isinstance(value, Hashable) or value not in names:
        shown = repr(value) if len(repr(value)) <= 60 else f"{value!r:.57}..."
        raise UserError(f"{what}={shown} is unknown{closest(value, names)}")
