"""Whole episodes packed into segments, back to back."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import jax
import numpy as np

from jaxvff.core.segments import blank_segment
from jaxvff.core.types import EnvSpec, Segment, Tree
from jaxvff.envs.host.shared import Arrays


class Batch(NamedTuple):
    """The segments of one iteration, leaves `[N, T, ...]`, and sums over their episodes."""

    segments: Segment
    sums: Tree  # {name: [] float} with the names of `sum_names`


def sum_names(results: tuple[str, ...]) -> tuple[str, ...]:
    """What is summed over the episodes of a batch: their number, return and results."""
    return ("episodes", "return", *results)


class Packer:
    """Fills N segments of T slots with the episodes of one lane.

    An episode goes into the first segment that has room for it. When it fits into none, the N
    segments become a batch, and the next N begin with that episode. So no episode is cut, and
    little is padding.
    """

    def __init__(
        self,
        spec: EnvSpec,
        results: tuple[str, ...],
        *,
        n_segments: int,
        n_slots: int,
        context_size: int = 0,
    ) -> None:
        """Begin with empty segments.

        Args:
          spec: the sizes of the environment.
          results: names of the rates that an episode ends with.
          n_segments: N.
          n_slots: T, at least episode_limit + 1: the slots of the longest episode.
          context_size: C, what the method draws for an episode; 0: nothing.
        """
        self.batches: deque[Batch] = deque()  # full ones, the oldest first
        self._results, self._n_slots = results, n_slots
        self._shapes = jax.eval_shape(lambda: blank_segment(spec, n_slots, context_size))
        self._n_segments = n_segments
        self._begin_batch()

    def add(self, staged: Arrays, game: int, context: np.ndarray | None = None) -> None:
        """Copy the whole episode that a game has staged.

        Args:
          staged: of the pool.
          game: whose episode has ended.
          context: `[C]`, what was drawn for it; None: nothing.
        """
        n_slots = int(staged.slot[game]) + 1
        segment, start = self._room_for(n_slots)
        stop = start + n_slots

        # The slots, of which the last one shows the final observation and has no transition.
        batch = self._segments
        for name in ("obs", "state", "avail", "action", "reward"):
            getattr(batch, name)[segment, start:stop] = getattr(staged, name)[game, :n_slots]
        if context is not None:
            batch.context[segment, start:stop] = context
        batch.is_first[segment, start] = True
        batch.mask[segment, start : stop - 1] = True
        batch.terminated[segment, stop - 2] = staged.terminated[game]
        self._used[segment] += n_slots

        # The sums.
        self._sums["episodes"] += 1
        self._sums["return"] += float(staged.reward[game, :n_slots].sum())
        for name, value in zip(self._results, staged.results[game], strict=True):
            self._sums[name] += float(value)

    def _room_for(self, n_slots: int) -> tuple[int, int]:
        """The segment, and its slot, where an episode of so many slots goes."""
        fits = np.flatnonzero(self._used + n_slots <= self._n_slots)
        if not fits.size:
            self.batches.append(Batch(self._segments, self._sums))
            self._begin_batch()
            return 0, 0
        return int(fits[0]), int(self._used[fits[0]])

    def _begin_batch(self) -> None:
        """Make new arrays: JAX may still read those of the last batch."""
        n = self._n_segments
        # A Segment of NumPy arrays, which unlike JAX's can be written to.
        self._segments: Tree = jax.tree.map(
            lambda x: np.zeros((n, *x.shape), x.dtype), self._shapes
        )
        self._used = np.zeros(n, int)  # slots, by segment
        self._sums = dict.fromkeys(sum_names(self._results), 0.0)
