"""Spaces of gymnasium, and of gym before it, told by the names of their classes.

A worker has one or the other, or copies of their classes: neither is imported here. What is in a
space becomes a row of numbers as in `gymnasium.spaces.flatten`: parts in the space's own order,
a choice as one-hot. Values are taken as they are: an image of 0 to 255 is not scaled.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np

from .game import Refused

KNOWN = ("Box", "Discrete", "MultiBinary", "MultiDiscrete", "Dict", "Tuple")


class Flattener(NamedTuple):
    """How the values of a space become numbers."""

    size: int  # how many numbers
    # (value, whose it is, for messages) -> [size]; raises Refused if the space cannot hold it
    flat: Callable[[Any, str], np.ndarray]


def kind(space: Any) -> str:
    """One of KNOWN, the class of a space or a base of it; empty: none of them."""
    return next((c.__name__ for c in type(space).__mro__ if c.__name__ in KNOWN), "")


def flattener(space: Any, whose: str, leave_out: Collection[Any] = ()) -> Flattener:
    """How the values of an observation space become numbers.

    Args:
      space: of any KNOWN kind; a Dict or Tuple may hold others of them.
      whose: it is, for messages: "agent 'left'".
      leave_out: keys of a Dict that are no part of the observation.

    Raises:
      Refused: a space that holds no fixed number of numbers.
    """
    name = kind(space)
    if name == "Box":
        size = int(np.prod(space.shape))
        return Flattener(size, functools.partial(_exactly, size))
    if name == "MultiBinary":
        size = int(np.prod(space.n))
        return Flattener(size, functools.partial(_exactly, size))
    if name in ("Discrete", "MultiDiscrete"):
        counts = np.ravel(space.n if name == "Discrete" else space.nvec)
        lowest = np.broadcast_to(np.ravel(getattr(space, "start", 0)), counts.shape)
        return Flattener(int(counts.sum()), functools.partial(_one_hot, counts, lowest))
    if name in ("Dict", "Tuple"):
        inside = space.spaces.items() if name == "Dict" else enumerate(space.spaces)
        parts = {key: flattener(s, whose) for key, s in inside if key not in leave_out}
        size = sum(part.size for part in parts.values())
        return Flattener(size, functools.partial(_joined, parts))
    raise Refused(
        f"{whose} observes {short(space)}, which is no fixed number of numbers; its observation"
        f" space must be made of {', '.join(KNOWN)}: leave the rest out, or encode it"
    )


def numbers(value: Any, what: str) -> np.ndarray:
    """A value as a flat array of its own type: `[n]`, integers, floats or booleans.

    Args:
      value: a scalar, an array or nested lists.
      what: it is, for the message.

    Raises:
      Refused: it holds something else.
    """
    try:
        array = np.ravel(np.asarray(value))
    except ValueError:  # lists of different lengths
        array = np.empty(0, object)
    if array.dtype.kind not in "biuf":
        raise Refused(f"{what} is {short(value)}; expected numbers")
    return array


def _exactly(size: int, value: Any, whose: str) -> np.ndarray:
    """So many numbers."""
    flat = numbers(value, f"the observation of {whose}")
    if flat.size != size:
        raise Refused(
            f"{whose} observes {flat.size} numbers (shape {list(np.shape(value))}), but its"
            f" observation space has {size}; make them agree"
        )
    return flat


def _one_hot(counts: np.ndarray, lowest: np.ndarray, value: Any, whose: str) -> np.ndarray:
    """A one for each choice: entry i is one of lowest[i] ... lowest[i] + counts[i] - 1."""
    chosen = _exactly(counts.size, value, whose) - lowest
    if not np.all((chosen >= 0) & (chosen < counts) & (chosen == np.floor(chosen))):
        raise Refused(
            f"{whose} observes {short(value)}; its observation space has whole numbers from"
            f" {lowest.tolist()} to {(lowest + counts - 1).tolist()}; make them agree"
        )
    row = np.zeros(int(counts.sum()), np.float32)
    row[np.cumsum(counts) - counts + chosen.astype(int)] = 1
    return row


def _joined(parts: dict[Any, Flattener], value: Any, whose: str) -> np.ndarray:
    """The parts of a Dict or Tuple one after the other."""
    try:
        rows = [part.flat(value[key], whose) for key, part in parts.items()]
    except (KeyError, IndexError, TypeError) as error:
        raise Refused(
            f"{whose} observes {short(value)}; its observation space has the parts"
            f" {list(parts)}; make them agree"
        ) from error
    return np.concatenate([np.zeros(0), *rows])


def short(value: Any) -> str:
    """A value for a message, in a line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 100 else f"{text[:100]}..."
