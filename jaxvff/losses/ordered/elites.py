"""Elites: the best joint action known to every slot in replay, where a search starts again."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, EnvSpec, Segment, Tree
from jaxvff.losses.contract import Evaluated, SegmentMemory
from jaxvff.losses.options import SearchOptions

RECENT = 64  # segments whose latest search results are kept for others to start from
# Of the recent results so many are looked at, and the best one is a start. In a state that many
# samples show, the best joint action that any of them found takes over within a few updates.
OTHERS = 4


class Elites(NamedTuple):
    """The best joint actions known, in a ring as long as the replay's."""

    action: Array  # [capacity, T, A]
    recent: Array  # [RECENT, T, A], what searches found in the update before
    n_added: Array  # [] int, segments
    drift: Array  # [] running mean of |Q - Q of the target network|

    def add(self, action: Array) -> tuple[Elites, Array]:
        """Begin with the actions that were taken, `[N, T, A]`; also the rows, `[N]` int."""
        row = (self.n_added + jnp.arange(len(action))) % len(self.action)
        ring = self.action.at[row].set(action.astype(self.action.dtype))
        return self._replace(action=ring, n_added=self.n_added + len(action)), row

    def improve(self, row: Array, action: Array, searched: Array, drift: Array) -> Elites:
        """Keep what searches found.

        Args:
          row: `[M]` int, where it belongs; a row beyond the ring is dropped.
          action: `[M, T, A]` int.
          searched: `[n]` int, which of the M were searched, at least one: they become recent.
          drift: `[]`, of this update.
        """
        action = action.astype(self.action.dtype)
        return self._replace(
            action=self.action.at[row].set(action, mode="drop"),
            recent=action[searched[jnp.arange(RECENT) % len(searched)]],
            drift=0.99 * self.drift + 0.01 * drift,
        )


class Recalled(NamedTuple):
    """What the search of one segment starts from."""

    elite: Array  # [T, A] int, the best joint action known to each slot
    others: Array  # [OTHERS, T, A] int, what was found in other segments, in the update before
    drift: Array  # [] see Elites
    key: Array | None  # None: this segment is not searched


class Found(NamedTuple):
    """What the loss of one segment found out."""

    action: Array  # [T, A] int, the best joint actions known now
    drift: Array  # [T], |Q - Q of the target network|, 0 where the mask is False
    searched: Array  # [] bool


def no_elites(spec: EnvSpec, capacity: int, n_slots: int, key: Array) -> Elites:
    """Elites of an empty replay; random ones are recent, so that no action's number is special."""
    shape = (n_slots, spec.n_agents)
    recent = jax.random.randint(key, (RECENT, *shape), 0, spec.n_actions)
    return Elites(
        action=jnp.zeros((capacity, *shape), spec.action_dtype),
        recent=recent.astype(spec.action_dtype),
        n_added=jnp.array(0, jnp.int32),
        drift=jnp.array(0.0),
    )


def recall(elites: Elites, row: Array, key: Array) -> Recalled:
    """What the searches of M segments start from; leaves `[M, ...]`."""
    others_key, key = jax.random.split(key)
    others = jax.random.randint(others_key, (len(row), OTHERS), 0, RECENT)
    return Recalled(
        elite=elites.action[row].astype(jnp.int32),
        others=elites.recent[others].astype(jnp.int32),
        drift=jnp.broadcast_to(elites.drift, row.shape),
        key=jax.random.split(key, len(row)),
    )


def memory(options: SearchOptions) -> SegmentMemory:
    """Elites as a SegmentMemory; a share of every batch is searched, the rest keeps its elites."""

    def init(key: Array, spec: EnvSpec, capacity: int, n_slots: int) -> Elites:
        return no_elites(spec, capacity, n_slots, key)

    def add(elites: Elites, segments: Segment) -> tuple[Elites, Array]:
        return elites.add(segments.action)

    def over_batch(f: Callable[[Tree, Tree], Tree], inputs: Tree, recalled: Recalled) -> Tree:
        return _partly_searched(f, inputs, recalled, options.search_fraction)

    def update(elites: Elites, batch: Evaluated) -> Elites:
        found: Found = batch.found
        n_sampled, beyond = len(batch.row), len(elites.action)
        sampled = jnp.where((batch.copies > 0) & found.searched, batch.example, n_sampled)
        row = batch.row.at[sampled].get(mode="fill", fill_value=beyond)
        n_searched = _n_searched(options.search_fraction, len(batch.copies))
        (searched,) = jnp.nonzero(found.searched, size=n_searched)
        return elites.improve(row, found.action, searched, batch.mean(found.drift))

    return SegmentMemory(init, add, recall, over_batch, update)


def _n_searched(fraction: float, n: int) -> int:
    return math.ceil(fraction * n)


def _partly_searched(
    f: Callable[[Tree, Tree], Tree], inputs: Tree, recalled: Recalled, fraction: float
) -> Tree:
    """`f` of every segment of a batch, with a search in a `fraction` of them."""
    n = len(recalled.drift)
    n_searched = _n_searched(fraction, n)
    if n_searched == n:
        return jax.vmap(f)(inputs, recalled)
    # Other segments in each update: a batch may have an order (joint actions, priorities).
    shift = jax.random.randint(cast(Array, recalled.key)[0], (), 0, n)
    rolled = jax.tree.map(lambda x: jnp.roll(x, shift, axis=0), (inputs, recalled))
    first = jax.tree.map(lambda x: x[:n_searched], rolled)
    rest, unsearched = jax.tree.map(lambda x: x[n_searched:], rolled)
    parts = jax.vmap(f)(*first), jax.vmap(f)(rest, unsearched._replace(key=None))
    return jax.tree.map(lambda *x: jnp.roll(jnp.concatenate(x), -shift, axis=0), *parts)
