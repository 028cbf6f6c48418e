"""What a user types, `key=value` and `sweep.key=[...]`, parsed once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import PurePath
from typing import Any, NamedTuple

from jaxvff.core.errors import UserError
from jaxvff.core.options import shown

GROUPS = ("env", "method")  # keys whose value names a group of settings (jaxvff.configs)
_KEY = re.compile(r"[\w$-]+(\.[\w$-]+)*")
_SWEEP = "sweep.lr=[1e-3,1e-4]"

# Hydra starts a process for every value, and its launchers on clusters do the same.
NO_LAUNCHERS = (
    "Hydra's launchers start a job for every value, and jaxvff trains all values side by side; "
    "write sweep.<key>=[...], and for several machines jaxvff plan and jaxvff launch "
    "(docs/scale.md)"
)


class Override(NamedTuple):
    """One `key=value`, or one `sweep.key=[value, ...]`."""

    key: str  # without "sweep."
    value: object  # as it reads without knowing the option; of a sweep: the list of values
    text: str  # as it was typed
    swept: bool = False
    # On this command line: it may not be there twice, and something has to read it. False: from a
    # preset, an earlier sitting of a run, or Python, where later ones replace earlier ones.
    typed: bool = False

    @property
    def name(self) -> str:
        """The key as it was typed."""
        return f"sweep.{self.key}" if self.swept else self.key

    @property
    def value_text(self) -> str:
        """What was typed behind the first =."""
        return self.text.partition("=")[2]


def parse(given: Iterable[str | Override], typed: bool = False) -> list[Override]:
    """Read overrides; those that are parsed already stay as they are.

    Values are in Hydra's grammar: numbers, true, null, [1,2], {a: 1}. What is not, and does not
    begin with a bracket or a quote, is a plain text: größe.yaml.

    Args:
      given: texts or overrides.
      typed: whether the texts come from the command line, see Override.

    Raises:
      UserError: a text that is no key=value, or one that has several values; a key that is typed
        twice.
    """
    overrides = [_parsed(each, typed) if isinstance(each, str) else each for each in given]
    for one, other in combinations([o for o in overrides if o.typed], 2):
        if one.name == other.name:
            raise UserError(f"{one.name}= is given twice, {one.text} and {other.text}; keep one")
        whole, part = sorted((one, other), key=lambda o: len(o.key))
        if part.key.startswith(f"{whole.key}.") and whole.key not in GROUPS:
            raise UserError(f"{part.text} is a part of {whole.text}; keep one")
    return overrides


def from_values(values: Mapping[str, Any]) -> list[Override]:
    """Settings that Python gives, as if they were typed.

    Args:
      values: by key, such as {"lr": 1e-3, "sweep.env": ["matrix/a", "matrix/b"]}.

    Raises:
      UserError: a value of a type that no option has.
    """
    texts = {key: _typed(key, value) for key, value in values.items()}
    for key, text in texts.items():
        # A text that reads as something else than itself, such as a,b, is quoted.
        if isinstance(values[key], str) and not _is_plain(text):
            texts[key] = _quoted(key, text)
    return parse([f"{key}={text}" for key, text in texts.items()], typed=True)


def flag(own: Mapping[str, str], key: str, default: bool = False) -> bool:
    """The value of a command's own key that is true or false.

    Raises:
      UserError: something else.
    """
    text = own.get(key, str(default).lower())
    if text not in ("true", "false"):
        raise UserError(f"{key}={text} must be true or false")
    return text == "true"


def split(given: Sequence[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Take a command's own keys, whose values are plain texts, off what was typed.

    Args:
      given: `key=value` texts.
      keys: of the command, such as "resume".

    Returns:
      `(the rest, {key: value})`.

    Raises:
      UserError: one of the keys has no value, or is there twice.
    """
    own: dict[str, str] = {}
    rest = []
    for text in given:
        key, _, value = text.partition("=")
        if key not in keys:
            rest.append(text)
            continue
        if not value:
            raise UserError(f"{key}= has no value; write {key}=<value> or leave it out")
        if key in own:
            raise UserError(f"{key}= is given twice, {key}={own[key]} and {text}; keep one")
        own[key] = value
    return rest, own


def replaced(own: Iterable[Override], others: Sequence[Override]) -> list[Override]:
    """`own` with `others` in place of those of the same name."""
    names = {o.name for o in others}
    return [*(o for o in own if o.name not in names), *others]


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


def check_read(given: Iterable[Override], idle: Sequence[Mapping[str, str]]) -> None:
    """Refuse what the user typed and nothing reads.

    Args:
      given: overrides; those that are not `typed` may be idle.
      idle: of each sweep value, the keys that nothing reads with the reason (core.options.idle).

    Raises:
      UserError: a key that is idle in all of them.
    """
    for o in given:
        if o.typed and all(o.key in keys for keys in idle):
            raise UserError(f"{o.text} does nothing {idle[0][o.key]}, or leave {o.name} out")


def _typed(key: str, value: Any) -> str:
    """A value as it is typed in Hydra's grammar."""
    if hasattr(value, "tolist"):  # of NumPy or JAX
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(_inside(key, v) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{k}: {_inside(key, v)}" for k, v in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (str, int, float, PurePath)):
        return str(value)
    raise UserError(
        f"{key} is a {type(value).__name__}; settings are texts, numbers, booleans, None, lists "
        "and mappings of these"
    )


def _inside(key: str, value: Any) -> str:
    """A value in a list or a mapping, where texts are quoted."""
    return _quoted(key, value) if isinstance(value, str) else _typed(key, value)


def _quoted(key: str, text: str) -> str:
    for quote in "\"'":
        if quote not in text and not text.endswith("\\"):
            return f"{quote}{text}{quote}"
    raise UserError(
        f"{key}={shown(text)} cannot be written down: it has both kinds of quotes, or a backslash "
        "at its end"
    )


def _is_plain(text: str) -> bool:
    """Whether a text is read as it stands, or as the one number or word that it is."""
    if not text or text != text.strip() or text[0] in "[{('\"" or "${" in text:
        return False
    try:
        return not isinstance(_read(f"key={text}", text, swept=False), (list, dict))
    except UserError:  # several values, say
        return False


def _parsed(text: str, typed: bool) -> Override:
    swept = text.startswith("sweep.") or text.partition("=")[0] == "sweep"
    key, equals, raw = text.removeprefix("sweep" if swept else "").removeprefix(".").partition("=")
    key, raw = key.strip(), raw.strip()
    _check_form(text, key, raw if equals else None, swept)
    value = _read(text, raw, swept)
    if swept:
        _check_sweep(key, value, text)
    elif key in GROUPS and not isinstance(value, str):
        raise UserError(f"{text!r} takes one name; to train several: sweep.{key}=[...]")
    return Override(key, value, text, swept, typed)


def _check_form(text: str, key: str, raw: str | None, swept: bool) -> None:
    """Raise a UserError unless a text is key=value, with a plain key and a value."""
    if not key.strip("."):
        raise UserError(f"{text!r} has no key; write {_SWEEP if swept else 'key=value'}")
    if key[0] in "+~" or "@" in key:
        plain = re.sub(r"@[^=]*", "", key.lstrip("+~"))
        raise UserError(
            f"{text!r} is Hydra's way to add, delete or move a setting, which has no use here; "
            f"write {plain}=<value>"
        )
    if re.match(r"hydra[./](launcher|sweeper|sweep|mode)\b", key):
        raise UserError(f"{text!r}: {NO_LAUNCHERS}")
    if re.match(r"hydra\b", key):
        raise UserError(
            f"{text!r} changes nothing: Hydra only composes the settings here; a run's folder is "
            "run_dir="
        )
    if not _KEY.fullmatch(key):
        raise UserError(f"{text!r} has a key that is none; write key=value, such as lr=1e-3")
    if not raw:
        raise UserError(f"{text!r} has no value; write {key}=<value> or leave {key} out")
    if "${" in raw:
        raise UserError(
            f"{text!r} refers to another value, and references are not resolved; write the value "
            "itself"
        )


def _read(text: str, raw: str, swept: bool) -> object:
    """The value of an override, in Hydra's grammar or as a plain text."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    cut, name = text if len(text) <= 100 else f"{text[:97]}...", text.partition("=")[0]
    remedy = f"write {_SWEEP}" if swept else "write key=value, a list as [1,2]"
    try:
        override = OverridesParser.create().parse_override(f"key={raw}")
        value = override.value()
    except RecursionError as error:
        raise UserError(f"{cut!r} is nested too deeply; {remedy}") from error
    except (HydraException, ValueError) as error:
        if raw[0] in "[{('\"":
            raise UserError(
                f"{cut!r} cannot be read; {remedy}, a text with brackets as '{name}=\"...\"'"
            ) from error
        return raw
    if override.is_sweep_override() and not swept:
        key = text.partition("=")[0]
        raise UserError(
            f"{cut!r} has several values; write sweep.{key}=[...], or quote a text with a comma: "
            f"'{key}=\"a,b\"'"
        )
    return value


def _check_sweep(key: str, value: object, text: str) -> None:
    if not isinstance(value, list) or not value:
        raise UserError(f"{text} needs a list of values, such as {_SWEEP}")
    if key in GROUPS and (bad := [v for v in value if not isinstance(v, str)]):
        raise UserError(f"sweep.{key}: {bad[0]!r} is no name; write sweep.{key}=[one,two]")
    if twice := [v for i, v in enumerate(value) if v in value[:i]]:
        raise UserError(f"{text} has {shown(twice[0])} twice; name each value once")
