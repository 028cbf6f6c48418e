"""The ordering loss: utilities that have their maxima at the joint action that a search found."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxvff.core.actions import masked
from jaxvff.core.types import Array

# A worst change of action is this many margins further down than a change that costs nothing.
SPREAD = 3.0
AGREED_WEIGHT = 0.1  # weight of a slot whose greedy joint action is the one that was found
# Maximum slot weight: weight = (Q_found - Q_greedy) / drift, clipped to [1, MAX_WEIGHT].
MAX_WEIGHT = 100.0


def target_utilities(responses: Array, best: Array, avail: Array, mask: Array) -> Array:
    """What the utilities should be, less that of each agent's best action, in margins.

      0 for the best action, -(1 + SPREAD · loss) for another one

    `loss` in [0, 1] is what the team loses if this agent alone takes that action, divided by the
    largest such loss in the segment. It is the segment's and not the slot's: agents that cannot
    tell states apart should follow those where more is lost.

    Args:
      responses: `[T, A, U]`, the joint value after each change of a single agent's action.
      best: `[T, A]` int, the best joint action known.
      avail: `[T, A, U]` bool.
      mask: `[T]` bool, slots that count.

    Returns:
      `[T, A, U]`.
    """
    taken = jnp.take_along_axis(responses, best[..., None], axis=-1)
    loss = jnp.where(avail & mask[:, None, None], jnp.maximum(taken - responses, 0), 0)
    loss = loss / (jnp.max(loss) + 1e-6)
    is_best = jax.nn.one_hot(best, responses.shape[-1], dtype=bool)
    return jnp.where(is_best, 0.0, -(1 + SPREAD * loss))


def slot_weight(gain: Array, drift: Array) -> Array:
    """Weight of a slot where the search found something better than the greedy joint action.

      weight = gain / drift, clipped to [1, MAX_WEIGHT]

    Without it the few slots in which a predator can catch its prey are outvoted by the many in
    which nothing that is done matters.

    Args:
      gain: `[]`, Q of the joint action found less Q of the greedy one.
      drift: `[]`, the mean distance of Q from its target network, the smallest difference that Q
        resolves; 0 before anything was learned.
    """
    return jnp.clip(gain / (drift + 1e-6), 1.0, MAX_WEIGHT)


def order_loss(q: Array, target: Array, best: Array, avail: Array) -> Array:
    """½ Σ (q(a) - q(best) - target)² over agents and actions.

    Args:
      q: utilities `[T, A, U]`.
      target: `[T, A, U]`, what the differences should be; NaN adds nothing to the loss.
      best: `[T, A]` int, the best joint action known.
      avail: `[T, A, U]` bool; other actions add nothing.

    Returns:
      `[T]`.
    """
    gap = q - jnp.take_along_axis(q, best[..., None], axis=-1)
    # Before the difference is taken: 0 · NaN is NaN in a gradient.
    target = jnp.where(jnp.isnan(target) | ~avail, jax.lax.stop_gradient(gap), target)
    return 0.5 * jnp.sum((gap - target) ** 2, axis=(-2, -1))


def lead(q: Array, best: Array, avail: Array) -> Array:
    """By how much the utility of each agent's best action exceeds the largest of its others.

    Args:
      q: utilities `[T, A, U]`.
      best: `[T, A]` int.
      avail: `[T, A, U]` bool.

    Returns:
      `[T, A]`.
    """
    is_best = jax.nn.one_hot(best, q.shape[-1], dtype=bool)
    others = jnp.max(masked(q, avail & ~is_best), axis=-1)
    return jnp.sum(jnp.where(is_best, q, 0), axis=-1) - others
