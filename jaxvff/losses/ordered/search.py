"""Coordinate ascent on a learned joint value: which joint action is best, by what is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.actions import any_available, greedy, masked
from jaxvff.core.types import Array
from jaxvff.mixers.searchable import SearchableValue


class Budget(NamedTuple):
    """How much one search may compute."""

    restarts: int = 2  # random joint actions to start from, beside those that are given
    sweeps: int = 1  # turns of each agent in an ascent


def ascend(value: SearchableValue, avail: Array, start: Array, sweeps: int) -> Array:
    """Coordinate ascent: agent after agent changes to its best action, the others' kept.

    The value never falls, and an agent keeps its action in a tie. After a sweep without a change
    no single agent can improve the joint action: a Nash equilibrium of the team's game.

    Args:
      value: the joint value of one state.
      avail: `[A, U]` bool.
      start: `[A]` int, available.
      sweeps: how often each agent has its turn.

    Returns:
      The joint action `[A]`.
    """
    action, total = start, value.total(start)
    for agent in range(len(avail)):  # a sweep, unrolled: a few numbers each
        action, total = _improve(value, avail, action, total, agent)
    return action if sweeps == 1 else ascend(value, avail, action, sweeps - 1)


def _improve(
    value: SearchableValue, avail: Array, action: Array, total: Array, agent: int
) -> tuple[Array, Array]:
    """One agent's turn: the joint action `[A]` after it, and its sum `[E + 2]`."""
    parts, now = value.parts[agent], action[agent]
    options = total - parts[now] + parts  # [U, E + 2]
    values = masked(value.value(options), avail[agent])
    best = jnp.argmax(values).astype(action.dtype)
    best = jnp.where(values[best] > values[now], best, now)
    return action.at[agent].set(best), total - parts[now] + parts[best]


def best_joint_action(
    value: SearchableValue,
    q: Array,
    avail: Array,
    *,
    starts: Array,
    tolerance: Array,
    key: Array,
    budget: Budget,
) -> Array:
    """The best of several ascents, and of the greedy joint action as it is.

    Among joint actions whose values differ by `tolerance` at most, the utilities choose. Otherwise
    agents that learn from different samples would be sent to different optima, and meet at none.

    Args:
      value: the joint value of one state.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      starts: `[n, A]` int, available joint actions to start from.
      tolerance: `[]`, a difference of joint values that decides nothing.
      key: PRNG key.
      budget: random restarts and sweeps.

    Returns:
      The joint action `[A]`. It costs (n + restarts) · sweeps · A · U evaluations of the value.
    """
    random = any_available(key, avail, budget.restarts)
    starts = jnp.concatenate([starts, random.astype(starts.dtype)])
    ends = jax.vmap(lambda start: ascend(value, avail, start, budget.sweeps))(starts)
    ends = jnp.concatenate([greedy(q, avail)[None].astype(ends.dtype), ends])
    values = jax.vmap(lambda action: value.value(value.total(action)))(ends)
    liked = jnp.sum(jnp.take_along_axis(q[None], ends[..., None], axis=-1), axis=(-2, -1))
    good = values >= jnp.max(values) - tolerance
    return ends[jnp.argmax(jnp.where(good, liked, -jnp.inf))]
