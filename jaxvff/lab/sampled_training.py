"""The stochastic algorithm: sampled joint actions, a replay, an optimizer."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvff.core.scores import fits
from jaxvff.core.types import Array, Tree
from jaxvff.lab.objective import (
    Policy,
    greedy_actions,
    greedy_margins,
    joint_probs,
    moving_part,
)
from jaxvff.lab.tabular_model import TabularModel
from jaxvff.lab.zero_loss import is_optimal
from jaxvff.learning.options import OPTIMIZERS
from jaxvff.reports.statistics import wilson
from jaxvff.training import sharding

DIVERGED = 1e6  # largest squared error of a table, as a multiple of the payoffs' largest square
BATCH, CAPACITY = 32, 500  # joint actions sampled for an update, and in replay
NEVER = np.iinfo(np.int32).max


class Start(NamedTuple):
    """Where a lane starts, and what it draws from."""

    x: Array  # [D]
    key: Array
    lr: Array  # []
    payoff: Array  # [U] * A, env units


class Outcome(NamedTuple):
    """What became of a lane; steps are updates, NEVER where it did not happen."""

    left: Array  # [] the first change of the greedy joint action
    diverged: Array  # [] something was not finite, or the error beyond DIVERGED
    chosen: Array  # [A] the last greedy joint action
    decided: Array  # [] bool: finite, every greedy action the only one with the largest utility
    max_error: Array  # [] of the last table, env units


class _State(NamedTuple):
    """A lane between two updates."""

    x: Array  # [D]
    optimizer: Tree
    replay: Array  # [CAPACITY] indices of joint actions
    left: Array  # [] as in Outcome
    diverged: Array  # [] as in Outcome


def run(
    model: TabularModel,
    policy: Policy,
    starts: Start,
    *,
    optimizer: str,
    updates: int,
    per_device: int = 128,
) -> Outcome:
    """Train every lane, one new joint action an update.

    The replay starts full of what the policy does at the start, so that the first updates see the
    same data as all others. As in jaxvff.learning, a batch is drawn with replacement, and the
    gradient is that of its mean squared error. A lane that diverges stops there.

    Args:
      model: the factorised value.
      policy: of the behaviour; the same for all lanes.
      starts: leaves with a leading [K].
      optimizer: a name in OPTIMIZERS; gradients are not clipped.
      updates: of each lane.
      per_device: lanes vmapped at once.

    Returns:
      Leaves with a leading [K].
    """
    n_lanes = len(starts.lr)
    program = _program(model, n_lanes, optimizer, updates, per_device)
    return jax.device_get(program(sharding.spread(starts, sharding.lane_mesh(n_lanes)), policy))


@functools.lru_cache(maxsize=4)
def _program(
    model: TabularModel, n_lanes: int, optimizer: str, updates: int, per_device: int
) -> Callable[[Start, Policy], Outcome]:
    """`_lane` for all lanes; learning rates and payoffs are traced, so curves share a program."""
    lane = functools.partial(_lane, model, optimizer=optimizer, updates=updates)
    mesh = sharding.lane_mesh(n_lanes)
    return jax.jit(sharding.over_lanes(lane, mesh, n_lanes, per_device))


def _lane(
    model: TabularModel, start: Start, policy: Policy, *, optimizer: str, updates: int
) -> Outcome:
    """Train one lane."""
    y = start.payoff.ravel()
    transform = OPTIMIZERS[optimizer]()
    first_chosen = greedy_actions(model, start.x)
    limit = DIVERGED * jnp.max(y**2)
    fill_key, key = jax.random.split(start.key)

    def update(state: _State, t: Array) -> tuple[_State, None]:
        # Act, sample, and follow the gradient.
        act_key, sample_key = jax.random.split(jax.random.fold_in(key, t))
        replay = state.replay.at[t % CAPACITY].set(_act(model, policy, act_key, state.x, ()))
        batch = replay[jax.random.randint(sample_key, (BATCH,), 0, CAPACITY)]
        gradient = _batch_gradient(model, y, batch, state.x)
        step, optimizer_state = transform.update(gradient, state.optimizer, state.x)
        x = optax.apply_updates(state.x, -start.lr * step)
        # Whether it diverged, and whether it left.
        bad = ~(jnp.max((y - model.q_tot(x)) ** 2) < limit)  # True for NaN, too
        alive = (state.diverged == NEVER) & ~bad
        moved = jnp.any(greedy_actions(model, x) != first_chosen)
        return _State(
            x=jnp.where(alive, x, state.x),
            optimizer=_where(alive, optimizer_state, state.optimizer),
            replay=jnp.where(alive, replay, state.replay),
            left=jnp.where(alive & moved & (state.left == NEVER), t, state.left),
            diverged=jnp.where(bad & (state.diverged == NEVER), t, state.diverged),
        ), None

    never = jnp.array(NEVER, jnp.int32)
    state = _State(
        x=start.x,
        optimizer=transform.init(start.x),
        replay=_act(model, policy, fill_key, start.x, (CAPACITY,)),
        left=never,
        diverged=never,
    )
    last, _ = jax.lax.scan(update, state, jnp.arange(updates, dtype=jnp.int32))
    chosen = greedy_actions(model, last.x)
    margins = greedy_margins(model.utilities(last.x), chosen)
    return Outcome(
        left=last.left,
        diverged=last.diverged,
        chosen=chosen,
        decided=jnp.all(margins > 0) & (last.diverged == NEVER),
        max_error=jnp.max(jnp.abs(model.q_tot(last.x) - y)),
    )


def _act(
    model: TabularModel, policy: Policy, key: Array, x: Array, shape: tuple[int, ...]
) -> Array:
    """Indices of joint actions that the policy draws at `x[D]`, in the order of [M]."""
    mu = joint_probs(model, policy, model.utilities(x), greedy_actions(model, x))
    return jax.random.categorical(key, jnp.log(mu), shape=shape)


def _batch_gradient(model: TabularModel, y: Array, batch: Array, x: Array) -> Array:
    """The gradient `[D]` of the mean squared error of a batch.

    Args:
      model: the factorised value.
      y: payoffs `[M]`.
      batch: indices of joint actions `[BATCH]`.
      x: `[D]`.
    """
    count = jnp.sum(batch[:, None] == jnp.arange(y.size), axis=0)  # [M] how often each was drawn
    gradient = jax.grad(lambda x: count @ (y - model.q_tot(x)) ** 2 / BATCH)(x)
    return moving_part(model, gradient)


def _where(condition: Array, new: Tree, old: Tree) -> Tree:
    """The one tree or the other, by a scalar condition."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def end_rates(outcome: Outcome, payoff: np.ndarray) -> dict[str, dict[str, float]]:
    """Shares of lanes that ended greedy-optimal, fitted, and both, with Wilson intervals.

    Args:
      outcome: leaves with a leading [K].
      payoff: `[U] * A`.
    """
    optimal = np.asarray(outcome.decided) & is_optimal(payoff, np.asarray(outcome.chosen))
    fit = fits(np.asarray(outcome.max_error), payoff)
    ends = {"optimal": optimal, "fit": fit, "both": optimal & fit}
    return {k: wilson(int(v.sum()), len(v))._asdict() for k, v in ends.items()}
