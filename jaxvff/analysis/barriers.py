"""What re-ordering two actions costs: the least loss at which an agent can tie them."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from jaxvff.analysis.model import Model
from jaxvff.types import Array


def bounds(payoff: np.ndarray) -> np.ndarray:
    """Least loss under the uniform policy where q_i(a) = q_i(b), `[A, U, U]`, env units squared.

    There Q_tot cannot tell a from b, so the best table is the mean of the two rows:
    Σ (y(a, ·) - y(b, ·))² / 2 over the other agents' actions, over U ** A joint actions. Proof and
    what it means for a trajectory: docs/theory.md, Barriers.
    """
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    out = np.zeros((n_agents, n_actions, n_actions))
    for agent in range(n_agents):
        rows = np.moveaxis(payoff, agent, 0).reshape(n_actions, -1)
        out[agent] = ((rows[:, None] - rows[None]) ** 2).sum(-1) / (2 * payoff.size)
    return out


def to_reach(payoff: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Barriers around a greedy joint action `[A]` under the uniform policy.

    Returns:
      The least loss at which any agent can change its greedy action, and the least that every path
      to a best joint action has to climb: each agent that differs from it must tie its action with
      the best one's on the way. 0 for the second where `chosen` is a best joint action.
    """
    table = bounds(payoff)
    leave = min(
        table[i, chosen[i], b]
        for i in range(payoff.ndim)
        for b in range(payoff.shape[0])
        if b != chosen[i]
    )
    best = np.argwhere(payoff == payoff.max())
    reach = min(max(table[i, chosen[i], u[i]] for i in range(payoff.ndim)) for u in best)
    return float(leave), float(reach)


def measured(model: Model, payoff: np.ndarray, n_starts: int, seed: int) -> np.ndarray:
    """The same as `bounds`, by minimising the loss at each tie from random starts; `[A, U, U]`.

    Levenberg-Marquardt finds local minima: the smallest of `n_starts` bounds the true least loss
    from above, `bounds` from below.
    """
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    pairs = list(itertools.combinations(range(n_actions), 2))
    ties = np.array([(i, a, b) for i in range(n_agents) for a, b in pairs])
    keys = jax.random.split(jax.random.key(seed), n_starts)
    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-10, atol=1e-10)
    y = jnp.asarray(payoff.ravel())

    def tied(x: Array, tie: Array) -> Array:
        q = model.utilities(x)
        q = q.at[tie[0], tie[2]].set(q[tie[0], tie[1]])
        return jnp.concatenate([q.ravel(), x[q.size :]])

    def least(args: tuple[Array, Array]) -> Array:
        tie, key = args
        found: Any = optimistix.least_squares(
            lambda x, _: model.q_tot(tied(x, tie)) - y, solver, model.init(key), max_steps=300,
            throw=False,
        )  # fmt: skip
        return jnp.mean((model.q_tot(tied(found.value, tie)) - y) ** 2)

    grid = (jnp.repeat(jnp.asarray(ties), n_starts, axis=0), jnp.tile(keys, len(ties)))
    losses = np.asarray(jax.jit(lambda g: jax.lax.map(least, g))(grid)).reshape(len(ties), -1)
    out = np.zeros((n_agents, n_actions, n_actions))
    for (i, a, b), row in zip(ties, losses, strict=True):
        out[i, a, b] = out[i, b, a] = np.nanmin(row)
    return out
