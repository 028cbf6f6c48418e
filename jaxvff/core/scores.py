"""How well a learned payoff table agrees with the true one."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from jaxvff.core.types import Array, TableScore

# The largest error of a fitted table, as a share of its largest |payoff|: 0.1 where that is 12, as
# in the paper's games.
FIT_TOLERANCE = 1 / 120


def fits(error: Any, payoff: Any) -> Any:
    """Whether errors, env units, are small beside a table of payoffs; False for NaN.

    Both are arrays of JAX, or both of NumPy, and so is what comes out.
    """
    return error <= FIT_TOLERANCE * abs(payoff).max()


def score_table(q_tot: Array, utilities: Array, payoff: Array) -> TableScore:
    """How good a learned table is.

    A greedy action has to be the only one with the largest utility, and finite: argmax would call
    a tie or a NaN action 0, which is the best one of many a game.

    Args:
      q_tot: `[U] * A`, learned joint values; NaN for a method without one.
      utilities: `[A, U]`.
      payoff: `[U] * A`, the true ones, env units.
    """
    best = jnp.max(utilities, axis=-1, keepdims=True)
    unique = jnp.sum(utilities == best, axis=-1) == 1
    decided = jnp.all(unique) & jnp.all(jnp.isfinite(utilities))
    earned = payoff[tuple(jnp.argmax(utilities, axis=-1))]
    optimal = decided & (earned == jnp.max(payoff))
    error = jnp.abs(q_tot - payoff)
    # Not left to max: over thousands of entries XLA's forgets NaN on a CPU (jax 0.10.2).
    max_error = jnp.where(jnp.any(jnp.isnan(error)), jnp.nan, jnp.max(error))
    fit = fits(max_error, payoff)
    return TableScore(
        max_error=max_error,
        regret=jnp.where(decided, jnp.max(payoff) - earned, jnp.nan),
        fit=fit,
        optimal=optimal,
        both=fit & optimal,
        q_tot=q_tot,
        utilities=utilities,
    )
