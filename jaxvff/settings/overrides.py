"""What a user types, `key=value` and `sweep.key=[...]`, parsed once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from jaxvff.core.errors import UserError

GROUPS = ("env", "method")  # keys whose value names a group of settings (jaxvff.configs)


class Override(NamedTuple):
    """One `key=value`, or one `sweep.key=[value, ...]`."""

    key: str  # without "sweep."
    value: object  # of a sweep: the list of values
    text: str  # as it was typed
    swept: bool = False


def parse(given: Iterable[str | Override]) -> list[Override]:
    """Read overrides in Hydra's grammar; those that are parsed already stay as they are.

    Raises:
      UserError: a text that is no key=value, or one that has several values.
    """
    return [_parsed(each) if isinstance(each, str) else each for each in given]


def split(given: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Take a command's own keys, whose values are plain texts, off what was typed.

    Args:
      given: `key=value` texts.
      keys: of the command, such as "resume".

    Returns:
      `(the rest, {key: value})`.
    """
    own = [text for text in given if text.split("=", 1)[0] in keys]
    return [text for text in given if text not in own], dict(o.split("=", 1) for o in own)


def sweeps(overrides: Sequence[Override]) -> dict[str, list]:
    """The values of each key that is swept, in order.

    Raises:
      UserError: a key that is set as well.
    """
    swept = {o.key: o.value for o in overrides if o.swept}
    fixed = {o.key for o in overrides if not o.swept}
    if twice := fixed & swept.keys():
        raise UserError(f"{min(twice)} is set and swept; keep {min(twice)}= or sweep.{min(twice)}=")
    return swept  # type: ignore[return-value]  # _parsed has checked that they are lists


def _parsed(text: str) -> Override:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    swept = text.startswith("sweep.")
    remedy = "write sweep.lr=[1e-3,1e-4]" if swept else "write key=value, a list as [1,2]"
    try:
        override = OverridesParser.create().parse_override(text.removeprefix("sweep."))
        key, value = override.key_or_group, override.value()
    except (HydraException, ValueError) as error:
        shown = text if swept else repr(text)
        raise UserError(f"{shown} cannot be read; {remedy}") from error
    if not key.strip(".") or key.endswith("."):
        raise UserError(f"{text!r} has no key; write key=value")
    if swept:
        _check_sweep(key, value, text)
    elif override.is_sweep_override():
        raise UserError(f"{text!r} has several values; write sweep.{key}=[...]")
    elif key in GROUPS and not isinstance(value, str):
        raise UserError(f"{text!r} takes one name; to train several: sweep.{key}=[...]")
    return Override(key, value, text, swept)


def _check_sweep(key: str, value: object, text: str) -> None:
    if not isinstance(value, list) or not value:
        raise UserError(f"{text} needs a list of values, such as sweep.lr=[1e-3,1e-4]")
    if key in GROUPS and (bad := [v for v in value if not isinstance(v, str)]):
        raise UserError(f"sweep.{key}: {bad[0]!r} is no name; write sweep.{key}=[one,two]")
