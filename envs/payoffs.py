"""Payoff tensors of matrix games: the published ones, and those that users give or keep in a file.

Light to import. Nothing of a file is believed before it is checked: its size, its nesting, what an
.npy file says of itself.
"""

from __future__ import annotations

import json
import math
import numbers
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np
import yaml

from jaxvff.core.errors import UserError
from jaxvff.core.options import FLOAT_MAX, shown

GAMES: dict[str, list[list[float]]] = {
    # Table 1 of the paper, after Son et al. (2019).
    "a": [[12, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "b": [[12, 0, 10], [0, 0, 10], [10, 10, 10]],
    # Their negatives: an unconstrained mixer that solves a game fails on these (docs/theory.md).
    "minus_a": [[-12, 12, 12], [12, 0, 0], [12, 0, 0]],
    "minus_b": [[-12, 0, -10], [0, 0, -10], [-10, -10, -10]],
    # Claus & Boutilier (1998): climbing as printed there, penalty with k = -100.
    "climbing": [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
    "penalty": [[10, 0, -100], [0, 2, 0], [-100, 0, 10]],
}
MAX_PAYOFFS = 100_000  # every joint action is evaluated at every report
MAX_AGENTS = 16  # 2 ** 17 joint actions are too many
MAX_FILE_BYTES = 16_000_000  # of 100,000 payoffs in the longest form that makes sense

_LISTS = "give nested lists of equal length, an axis per agent, such as [[5,0],[0,1]]"


def check_payoff(payoff: object, source: str) -> np.ndarray:
    """The payoff as a float32 tensor `[U] * A`.

    Args:
      payoff: nested lists or an array.
      source: where it came from, for the message.

    Raises:
      UserError: it is no finite tensor with axes of equal length, or has too many entries.
    """
    table = payoff if isinstance(payoff, np.ndarray) else _tensor(payoff, source)
    shape = table.shape
    if table.ndim < 2 or len(set(shape)) != 1 or shape[0] < 2:
        raise UserError(
            f"{source}: the payoff has shape {shape}; expected one axis per agent (two or more) of "
            "the same length (two or more actions); pad unequal action sets"
        )
    _check_size(shape, source)
    if table.dtype.kind not in "iuf":
        raise UserError(
            f"{source}: the payoffs are of type {table.dtype}; save real numbers, such as float32"
        )
    lost = ~(np.abs(table.astype(float)) <= FLOAT_MAX)  # True for NaN
    if lost.any():
        joint = np.argwhere(lost)[0]
        raise UserError(
            f"{source}: payoff{_index(joint)} is {shown(table[tuple(joint)].item())}; every payoff "
            f"must be finite, within ±{FLOAT_MAX:.3g}"
        )
    return table.astype(np.float32)


def random_payoff(n_agents: int, n_actions: int, seed: int) -> np.ndarray:
    """Payoffs `[U] * A` from U(-10, 10), float32."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-10, 10, (n_actions,) * n_agents).astype(np.float32)


def read(path: Path, key: str) -> np.ndarray:
    """The payoff tensor `[U] * A`, float32, that a file holds.

    Args:
      path: of a .npy, .yaml, .yml or .json file.
      key: that names it, for the message.

    Raises:
      UserError: it cannot be read, or holds no payoff tensor.
    """
    said = f"{key}={str(path)!r}"
    reader = _READERS.get(path.suffix.lower())
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if path.is_dir() else "no plain file"
            raise UserError(f"{said} is {what}; give a .npy, .yaml or .json file")
        if reader is None:
            raise UserError(f"{said} is of no known kind; give a .npy, .yaml or .json file")
        if status.st_size > MAX_FILE_BYTES:
            raise UserError(
                f"{said} has {status.st_size} bytes; {MAX_PAYOFFS} payoffs, the most that are "
                f"taken, need less than {MAX_FILE_BYTES}"
            )
        if status.st_size == 0:
            raise UserError(f"{said} is empty; {_LISTS}")
        return check_payoff(reader(path, said), str(path))
    except FileNotFoundError as error:
        raise UserError(f"{said} does not exist; give a .npy, .yaml or .json file") from error
    except (OSError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{said} cannot be read: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is no text in UTF-8; save it as UTF-8"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}; give a file that you can read"
    return f"{(str(error).splitlines() or [type(error).__name__])[0]}; {_LISTS}"


def _read_npy(path: Path, said: str) -> np.ndarray:
    """An array, once its header is known to tell of one that can be taken."""
    with path.open("rb") as file:
        start = file.read(6)
        if start[:4] == b"PK\x03\x04":
            raise UserError(f"{said} is an .npz archive; save the one array with numpy.save")
        if start != b"\x93NUMPY":
            raise UserError(f"{said} is no .npy file; write it with numpy.save")
        file.seek(0)
        version = np.lib.format.read_magic(file)
        header: Callable[..., Any] = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.hasobject or dtype.kind not in "iuf":
        raise UserError(f"{said} holds entries of type {dtype}; save real numbers, such as float32")
    _check_size(shape, said)
    return np.load(path, allow_pickle=False)


def _read_json(path: Path, said: str) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise UserError(f"{said} cannot be read: {where}: {error.msg}; {_LISTS}") from error
    except RecursionError as error:
        raise UserError(f"{said} is nested too deeply; {_LISTS}") from error


def _read_yaml(path: Path, said: str) -> object:
    text = path.read_text(encoding="utf-8-sig")
    if text.count(",") + text.count("- ") > 2 * MAX_PAYOFFS:  # PyYAML would take minutes
        raise UserError(f"{said} has too many entries; at most {MAX_PAYOFFS} payoffs")
    try:
        return yaml.load(text, Loader=_Numbers)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{said} cannot be read: {where}{error.problem}; {_LISTS}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{said} cannot be read: {_reason(error)}") from error
    except RecursionError as error:
        raise UserError(f"{said} is nested too deeply; {_LISTS}") from error


class _Numbers(yaml.SafeLoader):
    """Numbers as JSON and YAML 1.2 have them: 1e3 is a number; 010 (YAML 1.1: 8) is none."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # none of YAML 1.1's


for _tag, _pattern, _first in (
    ("null", r"null|~|", "n~"),
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
):
    _Numbers.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), [*_first]
    )

_READERS: dict[str, Callable[[Path, str], object]] = {
    ".npy": _read_npy,
    ".json": _read_json,
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
}


def _check_size(shape: tuple[int, ...], source: str) -> None:
    if math.prod(shape) > MAX_PAYOFFS or len(shape) > MAX_AGENTS:
        raise UserError(
            f"{source}: a payoff of shape {shown(shape)} has too many entries; at most "
            f"{MAX_PAYOFFS} payoffs of {MAX_AGENTS} agents"
        )


def _tensor(payoff: object, source: str) -> np.ndarray:
    """Nested lists as an array, float64.

    Raises:
      UserError: no lists, lists that are ragged or too deep, or an entry that is no number.
    """
    shape: list[int] = []
    first = payoff
    while isinstance(first, (list, tuple)):
        shape.append(len(first))
        if len(shape) > MAX_AGENTS:  # also where a list contains itself
            raise UserError(f"{source}: the payoff is nested more than {MAX_AGENTS} deep; {_LISTS}")
        if not first:
            break
        first = first[0]
    if not shape:
        what = "empty" if payoff is None else f"{_kind(payoff)}, {shown(payoff)}"
        raise UserError(f"{source}: the payoff is {what}; {_LISTS}")
    _check_size(tuple(shape), source)

    table = np.zeros(shape)
    for joint in np.ndindex(*shape[:-1]):
        row: Any = payoff
        for depth, i in enumerate(joint):
            row = row[i]
            if not isinstance(row, (list, tuple)) or len(row) != shape[depth + 1]:
                _ragged(row, joint[: depth + 1], shape[depth + 1], source)
        for i, entry in enumerate(row):
            table[(*joint, i)] = _number(entry, (*joint, i), source)
    return table


def _ragged(row: object, index: tuple[int, ...], length: int, source: str) -> NoReturn:
    has = f"has {len(row)} entries" if isinstance(row, (list, tuple)) else f"is {shown(row)}"
    raise UserError(
        f"{source}: rows are ragged: payoff{_index(index)} {has}, and the first row has {length}; "
        f"{_LISTS}"
    )


def _number(entry: Any, index: tuple[int, ...], source: str) -> float:
    """A finite entry as a float."""
    if isinstance(entry, (list, tuple)):
        raise UserError(
            f"{source}: rows are ragged: payoff{_index(index)} is a list of {len(entry)}, and the "
            f"first entry is a number; {_LISTS}"
        )
    if isinstance(entry, bool) or not isinstance(entry, numbers.Real):
        raise UserError(
            f"{source}: payoff{_index(index)} is {_kind(entry)}, {shown(entry)}; every payoff must "
            "be a number, such as 1 or -0.5"
        )
    value = cast(float, entry)  # or an int of any size
    if not -FLOAT_MAX <= value <= FLOAT_MAX:  # before float(), which 10**400 overflows
        raise UserError(
            f"{source}: payoff{_index(index)} is {shown(entry)}; every payoff must be finite, "
            f"within ±{FLOAT_MAX:.3g}"
        )
    return float(value)


def _kind(value: object) -> str:
    """What a value is that is no number, in words."""
    kinds = {bool: "a boolean", str: "a text", dict: "a mapping", type(None): "nothing"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def _index(index: Any) -> str:
    """[0, 2], as one writes it in NumPy."""
    return f"{[int(i) for i in index]}"
