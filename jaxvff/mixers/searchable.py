"""Joint values that can be searched: one agent's change of action is cheap to evaluate."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, JointStep


class SearchableValue(NamedTuple):
    """The joint value of one state, as a function of a sum over agents.

      Q(a) = elu(x) · out + y + list_rows[z] · list_weight + offset,
      (x, y, z) = bias + Σ_i parts[i, a_i]

    When one agent changes its action, only its part of the sum changes: that costs a difference of
    two vectors instead of a pass through a network.
    """

    # [A, U, E + 2]: what an action adds to the E hidden units, to Q, and to the index z of the
    # joint action in the list. The index is float32 like the rest, exact below 2**24.
    parts: Array
    bias: Array  # [E + 2]
    out: Array  # [E]
    offset: Array  # []
    list_rows: Array | None  # [L, D], a row for every joint action; None: no list
    list_weight: Array | None  # [D]

    def at(self, slot: Array) -> SearchableValue:
        """The value of one of several states, stacked along PER_STATE."""
        rest = self._replace(list_rows=None)
        return jax.tree.map(lambda x: x[slot], rest)._replace(list_rows=self.list_rows)

    def total(self, action: Array) -> Array:
        """The sum (x, y, z) of a joint action `[A]`: `[E + 2]`."""
        taken = jnp.take_along_axis(self.parts, action[:, None, None], axis=1)[:, 0]
        return self.bias + jnp.sum(taken, axis=0)

    def value(self, total: Array) -> Array:
        """The joint value `[...]` of sums `total[..., E + 2]`."""
        value = _elu(total[..., :-2]) @ self.out + total[..., -2] + self.offset
        if self.list_rows is None or self.list_weight is None:
            return value
        return value + self.list_rows[total[..., -1].astype(int)] @ self.list_weight

    def responses(self, action: Array) -> Array:
        """The joint value of every change of a single agent's action in `action[A]`: `[A, U]`."""
        taken = jnp.take_along_axis(self.parts, action[:, None, None], axis=1)
        return self.value(self.total(action) - taken + self.parts)


# The axes along which a vmap stacks the values of several states: the list is the same in all.
PER_STATE = SearchableValue(0, 0, 0, 0, None, 0)  # type: ignore[arg-type]


class SearchableMixer(Protocol):
    """A mixer with a joint value that can be searched. Pass these methods to flax's `apply`."""

    def joint_value(self, step: JointStep) -> Array:
        """One step -> the joint value `[]` that is searched."""

    def searchable(self, features: Array, state: Array) -> SearchableValue:
        """`features[A, H]`, `state[S]` -> the same joint value for all joint actions."""


def _elu(x: Array) -> Array:
    """ELU to 1e-7: a search is mostly this, and exp costs a CPU a third of what expm1 does."""
    return jnp.maximum(x, 0) + (jnp.exp(jnp.minimum(x, 0)) - 1)
