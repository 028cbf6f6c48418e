"""Coordinate ascent on a learned joint value: which joint action is best, by what is known."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.explore import any_available, greedy, masked
from jaxvff.types import Array


class Table(NamedTuple):
    """The joint value of one state, in a form in which one agent's change of action is cheap.

    Places are float32 like all else, exact below 2**24.

    Q(a) = elu(x) · out + y + listed[z] · weight + offset,  (x, y, z) = bias + Σ_i parts[i, a_i]
    """

    parts: Array  # [A, U, E + 2]: to E hidden units, to the joint value, to the place in a list
    bias: Array  # [E + 2]
    out: Array  # [E]
    offset: Array  # []
    listed: Array | None  # [L, D], what is known of the joint action at each place; None: no list
    weight: Array | None  # [D]

    def at(self, slot: Array) -> Table:
        """One of several states' tables, stacked along PER_STATE."""
        rest = self._replace(listed=None)
        return jax.tree.map(lambda x: x[slot], rest)._replace(listed=self.listed)

    def total(self, action: Array) -> Array:
        """All that matters of the joint action `[A]`: `[E + 2]`."""
        taken = jnp.take_along_axis(self.parts, action[:, None, None], axis=1)[:, 0]
        return self.bias + jnp.sum(taken, axis=0)

    def value(self, total: Array) -> Array:
        """The joint value `[...]` of `total[..., E + 2]`."""
        value = _elu(total[..., :-2]) @ self.out + total[..., -2] + self.offset
        if self.listed is None or self.weight is None:
            return value
        return value + self.listed[total[..., -1].astype(int)] @ self.weight

    def responses(self, action: Array) -> Array:
        """The joint values of every change of one agent's action in `action[A]`: `[A, U]`."""
        mine = jnp.take_along_axis(self.parts, action[:, None, None], axis=1)
        return self.value(self.total(action) - mine + self.parts)


# Axes under which a vmap stacks tables of several states: the list is the same in all of them.
PER_STATE = Table(0, 0, 0, 0, None, 0)  # type: ignore[arg-type]


def _elu(x: Array) -> Array:
    """ELU to 1e-7: a search is mostly this, and exp costs a CPU a third of what expm1 does."""
    return jnp.maximum(x, 0) + (jnp.exp(jnp.minimum(x, 0)) - 1)


def ascend(table: Table, avail: Array, start: Array, sweeps: int) -> Array:
    """Coordinate ascent: agent after agent changes to its best action, the others' kept.

    The value never falls, and an agent keeps its action in a tie. After a sweep without a change
    no single agent can improve the joint action: a Nash equilibrium of the team's game.

    Args:
      table: the joint value.
      avail: `[A, U]` bool.
      start: `[A]` int, available.
      sweeps: how often each agent has its turn.

    Returns:
      The joint action `[A]`.
    """
    action, total = start, table.total(start)
    for agent in range(len(avail)):  # a sweep, unrolled: a few numbers each
        action, total = _turn(table, avail, action, total, agent)
    return action if sweeps == 1 else ascend(table, avail, action, sweeps - 1)


def _turn(
    table: Table, avail: Array, action: Array, total: Array, agent: int
) -> tuple[Array, Array]:
    mine, now = table.parts[agent], action[agent]
    options = total - mine[now] + mine  # [U, E + 2]
    values = masked(table.value(options), avail[agent])
    best = jnp.argmax(values).astype(action.dtype)
    best = jnp.where(values[best] > values[now], best, now)
    return action.at[agent].set(best), total - mine[now] + mine[best]


def best_joint_action(
    table: Table,
    q: Array,
    avail: Array,
    starts: Array,
    tolerance: Array,
    key: Array,
    *,
    restarts: int,
    sweeps: int,
) -> Array:
    """The best of several ascents, and of the greedy joint action as it is.

    Among joint actions whose values differ by `tolerance` at most, the utilities choose: else
    agents that learn from different samples would be sent to different optima, and meet at none.

    Args:
      table: the joint value.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      starts: `[n, A]` int, available joint actions to start from.
      tolerance: `[]` of the joint value.
      key: PRNG key.
      restarts: random joint actions to start from as well.
      sweeps: of each ascent.

    Returns:
      The joint action `[A]`. It costs (n + restarts) · sweeps · A · U values of Q.
    """
    random = any_available(key, avail, restarts)
    starts = jnp.concatenate([starts, random.astype(starts.dtype)])
    ends = jax.vmap(lambda start: ascend(table, avail, start, sweeps))(starts)
    ends = jnp.concatenate([greedy(q, avail)[None].astype(ends.dtype), ends])
    values = jax.vmap(lambda action: table.value(table.total(action)))(ends)
    liked = jnp.sum(jnp.take_along_axis(q[None], ends[..., None], axis=-1), axis=(-2, -1))
    good = values >= jnp.max(values) - tolerance
    return ends[jnp.argmax(jnp.where(good, liked, -jnp.inf))]
