"""Whole episodes into segments, back to back."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from jaxvff.envs.host.shared import Arrays
from jaxvff.types import EnvSpec, Segment

# Over the episodes of a batch of segments: `episodes`, and the sums of `return` and each result.
Sums = dict[str, float]


class Packer:
    """Fills N segments of T slots with the episodes of one lane.

    An episode goes into the first segment that has room. When one fits nowhere, the N segments are
    a batch, and the next N begin with that episode; so nothing is cut, and little is padded.
    """

    def __init__(self, spec: EnvSpec, results: tuple[str, ...], n: int, n_slots: int) -> None:
        """Empty segments; `n_slots` holds the longest episode, of episode_limit + 1 slots."""
        self._spec, self._results, self._shape = spec, results, (n, n_slots)
        self.batches: deque[tuple[Segment, Sums]] = deque()
        self._begin()

    def add(self, at: Arrays, e: int) -> None:
        """Copy the whole episode that is staged for game e."""
        n_slots = int(at.slot[e]) + 1
        fits = np.flatnonzero(self._used + n_slots <= self._shape[1])
        if not fits.size:
            self.batches.append((self._segments, self._sums))
            self._begin()
            fits = np.zeros(1, int)
        k, start = fits[0], self._used[fits[0]]
        here, there = slice(start, start + n_slots), slice(0, n_slots)
        to = self._segments
        for field in ("obs", "state", "avail", "action", "reward"):
            getattr(to, field)[k, here] = getattr(at, field)[e, there]
        to.is_first[k, start] = True
        to.mask[k, start : start + n_slots - 1] = True
        to.terminated[k, start + n_slots - 2] = at.terminated[e]
        self._used[k] += n_slots
        self._sums["episodes"] += 1
        self._sums["return"] += float(at.reward[e, there].sum())
        for name, value in zip(self._results, at.results[e], strict=True):
            self._sums[name] += float(value)

    def _begin(self) -> None:
        """New arrays every time: JAX may read the old ones while these are filled."""
        (n, t), a, u = self._shape, self._spec.n_agents, self._spec.n_actions
        self._used = np.zeros(n, int)
        self._sums: Sums = dict.fromkeys(("episodes", "return", *self._results), 0.0)
        fields: dict[str, Any] = {
            "obs": np.zeros((n, t, a, self._spec.obs_size), np.float32),
            "state": np.zeros((n, t, self._spec.state_size), np.float32),
            "avail": np.zeros((n, t, a, u), bool),
            "action": np.zeros((n, t, a), np.int32),
            "reward": np.zeros((n, t), np.float32),
            "terminated": np.zeros((n, t), bool),
            "is_first": np.zeros((n, t), bool),
            "mask": np.zeros((n, t), bool),
        }
        self._segments: Any = Segment(**fields)
