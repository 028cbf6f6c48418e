"""The unit that values are learned in: returns of any size become returns of one size."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, Segment
from jaxvff.losses.targets import Bootstrap, td_lambda


class ReturnScale(NamedTuple):
    """How large the returns of a lane have been."""

    mean: Array  # [] mean |return| over all slots whose return is not 0, env units
    n_slots: Array  # [] float, how many these are


def fresh() -> ReturnScale:
    """Nothing has been seen."""
    return ReturnScale(jnp.zeros(()), jnp.zeros(()))


def update(scale: ReturnScale, segments: Segment, gamma: Array) -> ReturnScale:
    """Count the returns of an iteration.

    The return of a slot is r_t + γ r_{t+1} + ..., as far as its segment shows its episode. Slots
    after the last reward of an episode have none, and do not count: so returns are not small just
    because rewards are rare.

    Args:
      scale: as it was.
      segments: every field with a leading [N].
      gamma: `[]`, discount.
    """

    def returns(segment: Segment) -> Array:
        nothing = jnp.zeros_like(segment.reward)
        discount = gamma * (1.0 - segment.terminated)
        return td_lambda(Bootstrap(segment.reward, discount, nothing, segment.mask), 1.0)

    sizes = jnp.abs(jax.vmap(returns)(segments))
    new = jnp.sum(sizes > 0, dtype=jnp.float32)
    n_slots = scale.n_slots + new
    # Means, since a sum of large returns would overflow.
    here = jnp.sum(sizes / jnp.maximum(new, 1))
    return ReturnScale(
        scale.mean + (here - scale.mean) * new / jnp.maximum(n_slots, 1),
        n_slots,
    )


def unit(scale: ReturnScale, size: float) -> Array:
    """What rewards are divided by, and values multiplied with to be in env units: `[]`, above 0.

    Args:
      scale: what has been seen.
      size: what the mean |return| is in this unit; 0: the unit is 1, whatever has been seen.

    Source: Schaul et al. (2021), "Return-based scaling", and the reward normalisation that PPO's
    implementations share. Differs from both: the mean of absolute values takes the place of a
    standard deviation, since neither a constant return nor a rare one is to be blown up.
    """
    if size == 0:
        return jnp.ones(())
    return jnp.where(scale.mean > 0, scale.mean / size, 1.0)
