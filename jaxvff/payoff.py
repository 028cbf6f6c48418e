"""What a method learned of a one-step game: its payoff table, beside the true one."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import binomtest

from jaxvff.losses import Model, Values, joint_steps
from jaxvff.types import Array, Env, Metrics

FIT_TOLERANCE = 0.1  # env units, the largest error of a fitted table


class Table(NamedTuple):
    """A learned one-step game."""

    q_tot: Array  # [U] * A, joint value of every joint action; NaN for a method without one
    utilities: Array  # [A, U]


class Rate(NamedTuple):
    """A share of seeds with its 95 % Wilson interval."""

    successes: int
    n: int
    rate: float
    low: float
    high: float


def learned(model: Model, params: Any, env: Env, env_params: Any) -> Table:
    """The learned table of a one-step game.

    The joint value is the mixer's output: Q_jt for QTRAN, the monotone Q_tot for weighted QMIX.
    IQL has none.
    """
    spec = env.spec
    now = env.observe(env.reset(jax.random.key(0), env_params), env_params)
    x = model.utility.inputs(now.obs, jnp.zeros(spec.n_agents, int), jnp.array(True))
    _, q, hidden = model.utility.step(params["utility"], model.utility.initial_carry(), x)
    joint = np.array(list(itertools.product(range(spec.n_actions), repeat=spec.n_agents)))

    def value(action: Array) -> Array:
        step = joint_steps(Values(q, hidden), action, now.avail, now.state)
        return model.mixer.apply(params["mixer"], step)  # type: ignore[return-value]

    q_tot = jax.vmap(value)(jnp.asarray(joint))
    if q_tot.ndim > 1:
        q_tot = jnp.full(len(joint), jnp.nan)
    return Table(q_tot.reshape((spec.n_actions,) * spec.n_agents), q)


def score(table: Table, payoff: Array) -> Metrics:
    """How good a learned table is.

    A greedy action has to be the only one with the largest utility, and finite: argmax would call
    a tie or a NaN action 0, which is the best one of many a game.

    Args:
      table: the learned table.
      payoff: the true one, `[U] * A`.

    Returns:
      Scalars max_error (NaN if any value is), regret (the largest payoff less the one earned, NaN
      where no joint action is decided), and the bools fit (every payoff within
      FIT_TOLERANCE), optimal (the joint greedy action earns the largest payoff) and both.
    """
    best = jnp.max(table.utilities, axis=-1, keepdims=True)
    unique = jnp.sum(table.utilities == best, axis=-1) == 1
    decided = jnp.all(unique) & jnp.all(jnp.isfinite(table.utilities))
    earned = payoff[tuple(jnp.argmax(table.utilities, axis=-1))]
    optimal = decided & (earned == jnp.max(payoff))
    regret = jnp.where(decided, jnp.max(payoff) - earned, jnp.nan)
    error = jnp.abs(table.q_tot - payoff)
    # Not left to max: over thousands of entries XLA's forgets NaN on a CPU (jax 0.10.2).
    max_error = jnp.where(jnp.any(jnp.isnan(error)), jnp.nan, jnp.max(error))
    fit = max_error < FIT_TOLERANCE
    rates = {"fit": fit, "optimal": optimal, "both": fit & optimal}
    return {"max_error": max_error, "regret": regret, **rates}


def wilson(successes: int, n: int) -> Rate:
    """A rate and its 95 % Wilson score interval."""
    interval = binomtest(int(successes), int(n)).proportion_ci(0.95, method="wilson")
    return Rate(int(successes), int(n), successes / n, float(interval.low), float(interval.high))


def median_seed(max_error: np.ndarray) -> int:
    """The index of the (lower) median seed by max_error; non-finite errors rank last."""
    order = np.argsort(np.where(np.isfinite(max_error), max_error, np.inf), kind="stable")
    return int(order[(len(order) - 1) // 2])
