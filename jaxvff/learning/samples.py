"""What a learner draws from: stored segments, and batches of them."""

from __future__ import annotations

from typing import NamedTuple

from jaxvff.core.types import Array, Tree


class Stored(NamedTuple):
    """A segment as it is kept."""

    packed: Tree  # by the environment's codec
    row: Tree  # of the method's SegmentMemory


class Sample(NamedTuple):
    """A batch of stored segments."""

    stored: Tree  # leaves [B, ...]
    weight: Array | None  # [B] importance weights in (0, 1]; None: all 1
    items: Array | None  # [B] where they are in replay, for priorities; None: nothing to rank
