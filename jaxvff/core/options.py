"""Options of a component: a frozen dataclass whose fields know their unit, range and meaning.

Everything that is said of an option anywhere (checks, the help, the reference page, which options
are traced) is made from its field.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import types
import typing
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxvff.core.errors import UserError, check_name, closest

METADATA = "option"  # where a field's metadata has its About
# Compiled programs compute in int32 and float32. What goes beyond is refused, and so is what
# float32 would take for 0.
INT_MAX = 2**31 - 1
FLOAT_MAX, FLOAT_MIN = 3.4028234e38, 1.1754944e-38
MAX_WIDTH = 65_536  # units of a layer; wider ones fit in no memory


@dataclass(frozen=True)
class AllBut:
    """All values but one, see About.needs."""

    value: object

    def __contains__(self, value: object) -> bool:
        return value != self.value


class About(NamedTuple):
    """What a field knows of its option."""

    help: str  # what it does, in a phrase
    unit: str = ""  # "env steps"; empty for a number without one
    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # `low` itself is not allowed
    names: Collection[str] = ()  # the values of a choice; empty: any
    traced: bool = False  # a sweep varies it without recompiling
    # Other options of the same dataclass, and their values with which this one is read at all
    needs: Mapping[str, Container[object]] = MappingProxyType({})
    file: bool = False  # its value is the path of a file that the run reads
    code: bool = False  # its value names code that is run

    @property
    def interval(self) -> str:
        """[0, 1], or (0, ∞); empty where every value goes."""
        if self.low == -math.inf and self.high == math.inf:
            return ""
        left = "(-∞" if self.low == -math.inf else f"{'(' if self.above else '['}{self.low:.10g}"
        right = "∞)" if self.high == math.inf else f"{self.high:.10g}]"
        return f"{left}, {right}"

    def holds(self, value: float) -> bool:
        """Whether a number lies in the range, and is not lost in float32."""
        at_least = value > self.low if self.above else value >= self.low  # False for NaN
        return at_least and value <= self.high and (value == 0 or abs(value) >= FLOAT_MIN)

    def within(self, kind: object) -> About:
        """The same, for a type whose numbers end where int32 or float32 does."""
        kinds = _alternatives(kind)
        if float in kinds:
            return self._replace(low=max(self.low, -FLOAT_MAX), high=min(self.high, FLOAT_MAX))
        if int in kinds and self.high == math.inf:
            return self._replace(low=max(self.low, -INT_MAX), high=INT_MAX)
        return self


def option(default: Any, help: str, **about: Any) -> Any:
    """A dataclass field that is an option.

    For instance `epsilon: float = option(0.1, "share of random actions", low=0, high=1)`.

    Args:
      default: its value where nobody sets it.
      help: what it does, in a phrase.
      **about: the fields of About.
    """
    known = About(help, **about)
    metadata = {METADATA: known}
    if isinstance(default, (list, dict)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


class Option(NamedTuple):
    """One option of a dataclass."""

    name: str
    kind: object  # its type, as it is annotated
    default: Any
    about: About


@functools.cache
def options_of(kind: type) -> tuple[Option, ...]:
    """The options of a dataclass (or flax module), in order; its other fields are left out."""
    return tuple(
        Option(f.name, _kind(kind, f.name), _default(f), f.metadata[METADATA])
        for f in dataclasses.fields(kind)
        if METADATA in f.metadata
    )


def _kind(owner: type, name: str) -> object:
    """The type that a field is annotated with, in the class of `owner`'s that declares it."""
    for base in owner.__mro__:
        if (kind := vars(base).get("__annotations__", {}).get(name)) is not None:
            # typing.get_type_hints would resolve flax's own fields as well, and cannot.
            return eval(kind, vars(sys.modules[base.__module__])) if isinstance(kind, str) else kind
    return object


def _default(f: dataclasses.Field) -> Any:
    if f.default_factory is not dataclasses.MISSING:
        return f.default_factory()
    return f.default


def check(options: object, prefix: str = "") -> None:
    """Hold the values of a dataclass of options against their types, ranges and names.

    Args:
      options: the dataclass.
      prefix: of the keys that users set, such as "env.".

    Raises:
      UserError: the first one that does not fit.
    """
    for each in options_of(type(options)):  # type: ignore[arg-type]  # types are hashable
        check_value(each, getattr(options, each.name), prefix)


def check_value(option: Option, value: object, prefix: str = "") -> None:
    """Raise a UserError unless `value` is of the option's type, in its range, one of its names."""
    key, about = f"{prefix}{option.name}", option.about
    if about.names and value is not None:  # before the type: the names say more than "a text"
        check_name(value, about.names, key)
    if not _is_of(value, option.kind):
        example = _example(option, value)
        example = text_of(example) if isinstance(example, bool) else example
        is_bracketed = isinstance(value, (list, dict)) and str in _alternatives(option.kind)
        raise UserError(
            f"{key}={shown(value)} must be {_described(option.kind)}"
            f"{f' in {about.interval}' if about.interval else ''}"
            f"{'' if example is None else f', such as {example}'}"
            f"{_QUOTE_TWICE.format(key=key) if is_bracketed else ''}"
        )
    within = about.within(option.kind)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and not within.holds(value):
        missed = within if about.holds(value) or not about.interval else about
        raise UserError(
            f"{key}={shown(value)} is out of range; expected a value in {missed.interval}, such as "
            f"{_example(option)}"
        )


def from_text(option: Option, value: object, text: str | None, prefix: str = "") -> object:
    """What a value that was typed on the command line means for an option, checked.

    An option that takes a text takes it as it was typed: 007 and 1e3 are names there. Where it may
    be left out, null, None, false and "" leave it out. A whole number is a number, too.

    Args:
      option: that it is for.
      value: as it reads without knowing the option, such as 7 for 007.
      text: as it was typed; None: in a list, where only the value is known.
      prefix: of the keys that users set, such as "env.".

    Raises:
      UserError: it is of another type, or out of range.
    """
    kinds = _alternatives(option.kind)
    if type(None) in kinds and isinstance(value, str) and value.lower() in ("none", ""):
        value = None
    elif str in kinds and isinstance(value, (bool, int, float)):
        value = _as_text(option, value, text, prefix)
    check_value(option, value, prefix)
    return float(value) if kinds == (float,) else value  # type: ignore[arg-type]  # it is a number


def _as_text(option: Option, value: object, text: str | None, prefix: str) -> object:
    """`from_text` of a number or a boolean, for an option that takes a text."""
    kinds, key = _alternatives(option.kind), f"{prefix}{option.name}"
    if isinstance(value, bool) and type(None) in kinds:
        if value:
            raise UserError(f"{key}=true is no name; write {key}=<name>, or {key}=null for none")
        return None
    if text is None or {int, float} & set(kinds):
        return value
    return text


def idle(kind: type, values: Mapping[str, object], prefix: str = "") -> dict[str, str]:
    """The options of a dataclass that nothing reads.

    Args:
      kind: the dataclass.
      values: of its options; those that are not set have their defaults.
      prefix: of the keys that users set, such as "env.".

    Returns:
      key -> why nothing reads it, and what does.
    """
    known = options_of(kind)
    settings = {o.name: o.default for o in known} | dict(values)
    out = {}
    for o in known:
        unmet = [k for k, wanted in o.about.needs.items() if settings[k] not in wanted]
        if unmet:
            now = f"{prefix}{unmet[0]}={text_of(settings[unmet[0]]):.60}"
            out[f"{prefix}{o.name}"] = f"with {now}; it needs {_needed(o.about, unmet[0], prefix)}"
    return out


def _needed(about: About, key: str, prefix: str = "") -> str:
    """The values of another option with which an option is read, in words."""
    wanted = about.needs[key]
    if isinstance(wanted, AllBut):
        return f"another {prefix}{key} than {text_of(wanted.value)}"
    return " or ".join(f"{prefix}{key}={text_of(v)}" for v in typing.cast(tuple, wanted))


def shown(value: object, longest: int = 60) -> str:
    """A value in a message: as it is written in Python, cut where it is long."""
    if isinstance(value, int) and abs(value) >= 10**longest:
        return f"{'-' * (value < 0)}a number of more than {longest} digits"
    if isinstance(value, bool) or value is None:
        return text_of(value)
    text = repr(value)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."


def _example(option: Option, value: object = None) -> object:
    """A value that fits, near `value` if it can be; None for a text of which no value is known."""
    about = option.about
    takes_numbers = {int, float} & set(_alternatives(option.kind))
    whole = isinstance(value, float) and value.is_integer() and takes_numbers == {int}
    if whole and about.within(option.kind).holds(value):  # type: ignore[arg-type]
        return int(value)  # type: ignore[call-overload]
    if option.default not in (None, dataclasses.MISSING):
        return option.default
    if about.names:
        return next(iter(about.names), None)
    return max(about.low, 1) if takes_numbers else None


_QUOTE_TWICE = "; quote a text with brackets twice: '{key}=\"...\"'"
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    dict: "a mapping {key: value}",
    list: "a list [value, value]",
}


def _alternatives(kind: object) -> tuple[object, ...]:
    """The types of a union, or the one; `dict[str, Any]` and `Mapping[str, Any]` count as dict."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    plain = (typing.get_origin(k) or k for k in kinds)
    return tuple(dict if k is Mapping else k for k in plain)


def _is_of(value: object, kind: object) -> bool:
    """Whether a value is of a type; any is, of types that are not plain ones."""
    kinds = _alternatives(kind)
    if not all(k in _WORDS or k is type(None) for k in kinds):
        return True
    if isinstance(value, bool):
        return bool in kinds
    return any(
        isinstance(value, (int, float) if k is float else typing.cast(type, k)) for k in kinds
    )


def _described(kind: object) -> str:
    return " or ".join(_WORDS[typing.cast(type, k)] for k in _alternatives(kind) if k in _WORDS)


def make(kind: type, values: dict[str, Any], prefix: str, whose: str) -> Any:
    """A dataclass of options from a user's values; it checks itself.

    Args:
      kind: the dataclass; its `__post_init__` calls `check`.
      values: by name.
      prefix: of the keys that users set.
      whose: what takes the options, for the message.

    Raises:
      UserError: a name that is no option, or what the checks raise.
    """
    check_keys(values, (o.name for o in options_of(kind)), prefix, whose)
    missing = [o.name for o in options_of(kind) if o.default is dataclasses.MISSING]
    if lacking := [name for name in missing if name not in values]:
        raise UserError(f"{prefix}{lacking[0]} is not set; set it: {whose} cannot do without it")
    return kind(**values)


def check_keys(given: Iterable[str], known: Iterable[str], prefix: str, whose: str) -> None:
    """Raise a UserError for the first of `given` that is not in `known`."""
    known = list(known)
    for key in given:
        if key not in known:
            raise UserError(f"{prefix}{key} is no option of {whose}{closest(key, known)}")


def traced_names(kind: type) -> tuple[str, ...]:
    """The options of a dataclass that a sweep varies without recompiling."""
    return tuple(o.name for o in options_of(kind) if o.about.traced)


def described(kind: type) -> Iterator[tuple[str, str, str, str]]:
    """`(name, default, unit and range, help)` of each option, as texts for people."""
    for o in options_of(kind):
        about = o.about
        values = ", ".join(about.names) or ("true, false" if o.kind is bool else about.interval)
        span = " in ".join(filter(None, [about.unit, values]))
        only = [_needed(about, key) for key in about.needs]
        help = "; only with ".join([about.help, " and ".join(only)] if only else [about.help])
        yield o.name, text_of(o.default), span + ", traced" * about.traced, help


def text_of(value: object) -> str:
    """A default as a user would write it: `null`, `true`, `0.001`."""
    if value is dataclasses.MISSING:
        return "required"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.10g}" if isinstance(value, float) else str(value)
