"""The stochastic algorithm itself: sampled actions, replay, an optimiser; who leaves, who stays."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxvff import sharding
from jaxvff.analysis import model as core
from jaxvff.analysis.model import Model, Policy
from jaxvff.learner import OPTIMIZERS
from jaxvff.types import Array

DIVERGED = 1e6  # largest squared error of a table, as a multiple of the payoffs' largest square
BATCH, CAPACITY = 32, 500  # samples of an update, joint actions in replay
NEVER = np.iinfo(np.int32).max


class Start(NamedTuple):
    """Where a lane starts, and what it draws from."""

    x: Any  # [D]
    key: Any
    lr: Any  # []
    payoff: Any  # [U] * A


class Outcome(NamedTuple):
    """What became of a lane; steps are updates, NEVER where it did not happen."""

    left: Array  # [] the first change of the greedy joint action
    diverged: Array  # [] something was not finite, or the error beyond DIVERGED
    chosen: Array  # [A] the last greedy joint action
    decided: Array  # [] bool: finite, every greedy action the only one with the largest utility
    max_error: Array  # [] of the last table, env units


def run(
    model: Model,
    policy: Policy,
    starts: Start,
    *,
    optimizer: str,
    steps: int,
    per_device: int = 128,
) -> Outcome:
    """Train every lane for `steps` updates, one new joint action an update.

    The replay starts full of what the policy does at the start, so that the beginning is no
    special time. As in the core, a batch is drawn with replacement, and the gradient is that of
    its mean squared error. A lane that diverges stops there.

    Args:
      model: the factorised value.
      policy: of the behaviour; the same for all lanes.
      starts: leaves with a leading [K].
      optimizer: a name in learner.OPTIMIZERS, without clipping.
      steps: updates.
      per_device: lanes vmapped at once.
    """
    n = len(starts.lr)
    program = _program(model, n, optimizer, steps, per_device)
    return jax.device_get(program(sharding.place(starts, sharding.lane_mesh(n)), policy))


@functools.lru_cache(maxsize=4)
def _program(model: Model, n: int, optimizer: str, steps: int, per_device: int) -> Any:
    """`_lane` for n lanes; learning rates and payoffs are traced, so curves share a program."""
    one = functools.partial(_lane, model, optimizer=optimizer, steps=steps)
    return jax.jit(sharding.over_lanes(one, sharding.lane_mesh(n), n, per_device))


class _Carry(NamedTuple):
    x: Array
    opt: Any
    replay: Array  # [CAPACITY] indices of joint actions
    left: Array
    diverged: Array


def _lane(model: Model, start: Start, policy: Policy, *, optimizer: str, steps: int) -> Outcome:
    y = start.payoff.ravel()
    transform = OPTIMIZERS[optimizer]()
    first = core.greedy(model, start.x)
    limit = DIVERGED * jnp.max(y**2)
    fill_key, key = jax.random.split(start.key)

    def act(key: Array, x: Array, shape: tuple[int, ...]) -> Array:
        mu = core.joint_probs(model, policy, model.utilities(x), core.greedy(model, x))
        return jax.random.categorical(key, jnp.log(mu), shape=shape)

    def step(carry: _Carry, t: Array) -> tuple[_Carry, None]:
        act_key, sample_key = jax.random.split(jax.random.fold_in(key, t))
        replay = carry.replay.at[t % CAPACITY].set(act(act_key, carry.x, ()))
        batch = replay[jax.random.randint(sample_key, (BATCH,), 0, CAPACITY)]
        count = jnp.sum(batch[:, None] == jnp.arange(y.size), axis=0)
        grad = jax.grad(lambda x: count @ (y - model.q_tot(x)) ** 2 / BATCH)(carry.x)
        grad = core.held_fixed(model, grad)
        updates, opt = transform.update(grad, carry.opt, carry.x)
        x = optax.apply_updates(carry.x, -start.lr * updates)
        bad = ~(jnp.max((y - model.q_tot(x)) ** 2) < limit)  # True for NaN, too
        alive = (carry.diverged == NEVER) & ~bad
        moved = jnp.any(core.greedy(model, x) != first)

        def keep(new: Any, old: Any) -> Any:
            return jnp.where(alive, new, old)

        return _Carry(
            keep(x, carry.x),
            jax.tree.map(keep, opt, carry.opt),
            keep(replay, carry.replay),
            jnp.where(alive & moved & (carry.left == NEVER), t, carry.left),
            jnp.where(bad & (carry.diverged == NEVER), t, carry.diverged),
        ), None

    never = jnp.array(NEVER, jnp.int32)
    carry = _Carry(
        start.x, transform.init(start.x), act(fill_key, start.x, (CAPACITY,)), never, never
    )
    last, _ = jax.lax.scan(step, carry, jnp.arange(steps, dtype=jnp.int32))
    chosen = core.greedy(model, last.x)
    margins = core.margin(model.utilities(last.x), chosen)
    return Outcome(
        last.left, last.diverged, chosen,
        jnp.all(margins > 0) & (last.diverged == NEVER),
        jnp.max(jnp.abs(model.q_tot(last.x) - y)),
    )  # fmt: skip


def incidence(outcome: Outcome, steps: int, n_times: int = 60) -> dict[str, np.ndarray]:
    """Shares of lanes over time: still at their greedy joint action, left it, diverged first.

    Every lane is observed to the end, so these cumulative incidences of two competing risks need
    no estimator for censoring; at every time they add to 1.
    """
    times = np.unique(np.geomspace(1, steps, n_times).astype(int))
    first = np.minimum(outcome.left, outcome.diverged)
    left = (outcome.left <= outcome.diverged) & (outcome.left != NEVER)
    gone = first[:, None] < times  # [K, times]
    return {
        "step": times,
        "stayed": 1 - gone.mean(0),
        "left": (gone & left[:, None]).mean(0),
        "diverged": (gone & ~left[:, None]).mean(0),
    }
