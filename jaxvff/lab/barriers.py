"""Question "barriers": the least loss at which an agent can tie two actions.

With it the negation test: an optimum of y is none of -y, so that a method without a preference of
its own cannot find both.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from jaxvff.core.types import Array
from jaxvff.lab import sampled_training
from jaxvff.lab.objective import Policy
from jaxvff.lab.study import Row, Study
from jaxvff.lab.tabular_model import TabularModel

N_STARTS = 8  # of the minimisation at each tie


def answer(study: Study) -> Row:
    """Barriers by the formula and by minimisation, those around each joint action, and training."""
    payoff, options = study.payoff, study.options
    around = [to_reach(payoff, chosen) for chosen in study.model.joint_actions()]
    leave, reach = zip(*around, strict=True)
    return {
        "bounds": bounds(payoff),
        "measured": measured(study.model, payoff, n_starts=N_STARTS, seed=options.seed),
        "to_leave": np.reshape(leave, payoff.shape),
        "to_reach": np.reshape(reach, payoff.shape),
        "negation": {"y": _trained(study, payoff), "-y": _trained(study, -payoff)},
        "lanes": options.lanes,
    }


def bounds(payoff: np.ndarray) -> np.ndarray:
    """Least loss under the uniform policy where q_i(a) = q_i(b).

      B_i(a, b) = Σ_rest (y(a, rest) - y(b, rest))² / (2 U^A)

    rest are the other agents' actions. Q_tot cannot tell a from b there, so the best table is the
    mean of the two rows. Proof and what it means for a trajectory: docs/theory.md, Barriers.

    Args:
      payoff: y, `[U] * A`, env units.

    Returns:
      `[A, U, U]`, env units squared.
    """
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    out = np.zeros((n_agents, n_actions, n_actions))
    for agent in range(n_agents):
        rows = np.moveaxis(payoff, agent, 0).reshape(n_actions, -1)
        out[agent] = ((rows[:, None] - rows[None]) ** 2).sum(-1) / (2 * payoff.size)
    return out


def to_reach(payoff: np.ndarray, chosen: np.ndarray) -> tuple[float, float]:
    """Barriers around a greedy joint action `[A]` under the uniform policy, env units squared.

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


def measured(model: TabularModel, payoff: np.ndarray, *, n_starts: int, seed: int) -> np.ndarray:
    """The same as `bounds`, by minimising the loss at each tie from random starts.

    Levenberg-Marquardt finds local minima: the smallest of `n_starts` bounds the true least loss
    from above, `bounds` from below.

    Args:
      model: the factorised value, in float64.
      payoff: `[U] * A`, env units.
      n_starts: random starts of each tie.
      seed: of the starts.

    Returns:
      `[A, U, U]`, env units squared.
    """
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    pairs = list(itertools.combinations(range(n_actions), 2))
    ties = np.array([(i, a, b) for i in range(n_agents) for a, b in pairs])
    keys = jax.random.split(jax.random.key(seed), n_starts)
    grid = (jnp.repeat(jnp.asarray(ties), n_starts, axis=0), jnp.tile(keys, len(ties)))
    y = jnp.asarray(payoff.ravel())
    run = jax.jit(lambda grid: jax.lax.map(lambda each: _least_loss(model, y, *each), grid))
    losses = np.asarray(run(grid)).reshape(len(ties), -1)
    out = np.zeros((n_agents, n_actions, n_actions))
    for (i, a, b), row in zip(ties, losses, strict=True):
        out[i, a, b] = out[i, b, a] = np.nanmin(row)
    return out


def _least_loss(model: TabularModel, y: Array, tie: Array, key: Array) -> Array:
    """A local minimum of the mean squared error where two actions tie, `[]`.

    Args:
      model: the factorised value.
      y: payoffs `[M]`.
      tie: (agent, action, action) `[3]` int.
      key: of the random start.
    """
    solution: optimistix.Solution = optimistix.least_squares(
        lambda x, _: model.q_tot(_tied(model, x, tie)) - y,
        optimistix.LevenbergMarquardt(rtol=1e-10, atol=1e-10),
        model.init(key),
        max_steps=300,
        throw=False,
    )
    return jnp.mean((model.q_tot(_tied(model, solution.value, tie)) - y) ** 2)


def _tied(model: TabularModel, x: Array, tie: Array) -> Array:
    """`x[D]` with the first action's utility in place of the second's; `tie` as above."""
    q = model.utilities(x)
    q = q.at[tie[0], tie[2]].set(q[tie[0], tie[1]])
    return jnp.concatenate([q.ravel(), x[q.size :]])


def _trained(study: Study, payoff: np.ndarray) -> Row:
    """Rates of sampled training from random starts; y and -y draw the same starts and keys."""
    options, n = study.options, study.options.lanes
    x_key, key = jax.random.split(jax.random.key(options.seed + 2))
    starts = sampled_training.Start(
        x=jax.vmap(study.model.init)(jax.random.split(x_key, n)),
        key=jax.random.split(key, n),
        lr=jnp.full(n, 10 * options.lr),
        payoff=jnp.broadcast_to(payoff, (n, *payoff.shape)),
    )
    policy = Policy.of("epsilon_greedy", options.epsilon)
    outcome = sampled_training.run(
        study.model, policy, starts, optimizer=options.optimizer, updates=options.updates
    )
    return sampled_training.end_rates(outcome, payoff)
