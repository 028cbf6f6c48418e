"""Does the greedy joint action maximise a joint value, and if not, whose order is wrong?

IGM (individual-global-max) says that the agents' best actions, each by its own utility, make up the
best joint action. Methods that are built to have it (VDN, QMIX, QPLEX) have it in every state; for
the others it is a question to a trained network. Functions here are of one state.

Source: Son et al. (2019), eq. 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.actions import any_available, greedy
from jaxvff.core.types import Array, Params
from jaxvff.losses.contract import Model
from jaxvff.losses.terms import UtilityValues, apply_mixer, joint_steps

# Joint values that differ by less than this share of the largest |value| are equal. A float32 holds
# 6e-8 of a number; a mixer adds and multiplies some hundred of them.
ROUNDING = 1e-5

Value = Callable[[Array], Array]  # joint action [A] int -> its joint value []


class Extremes(NamedTuple):
    """The largest and the smallest joint value of one state, of available joint actions."""

    largest: Array  # []
    smallest: Array  # []


class Order(NamedTuple):
    """How one state's joint value follows the utilities; differences in units of the value."""

    is_best: Array  # [] bool, no joint action that was found is worth more than the greedy one
    settled: Array  # [] bool, no agent alone can improve on it: an equilibrium of the team's game
    regret: Array  # [] largest - greedy; 0 where that is rounding
    spread: Array  # [] largest - smallest
    own_best: Array  # [A] bool, the agent's greedy action is its best while the others stay greedy
    # [A] int, pairs of the agent's available actions of which neither the utilities are equal nor,
    # while the others stay greedy, the joint values; and those whose joint values have the other
    # order than the utilities
    pairs: Array
    wrong: Array


def joint_value(
    model: Model,
    params: Params,
    values: UtilityValues,
    *,
    avail: Array,
    state: Array,
    context: Array | None = None,
    head: str | None = None,
) -> Value:
    """The joint value of one state as a function of the joint action.

    Args:
      model: networks.
      params: {"utility", "mixer"}.
      values: what the utility networks make of the state, leaves `[A, ...]`.
      avail: `[A, U]` bool.
      state: `[S]`.
      context: `[C]`; None of a method that draws nothing.
      head: a method of the mixer to use in place of its `__call__`.
    """

    def value(action: Array) -> Array:
        step = joint_steps(values, action, avail, state, context)
        return apply_mixer(model, params["mixer"], step, head=head)

    return value


def slopes(
    model: Model,
    params: Params,
    values: UtilityValues,
    *,
    action: Array,
    avail: Array,
    state: Array,
    context: Array | None = None,
) -> Array:
    """∂Q_tot/∂Q_i `[A]` at the joint action `action[A]`; all else as for `joint_value`.

    QPLEX differentiates its dueling form as it learns from it: without the advantages.
    """
    step = joint_steps(values, action, avail, state, context)
    q_tot = lambda q: apply_mixer(model, params["mixer"], step._replace(q_taken=q))  # noqa: E731
    return jax.grad(q_tot)(step.q_taken)


def joint_actions(n_agents: int, n_actions: int) -> np.ndarray:
    """All joint actions `[U^A, A]`; the last agent's action changes first."""
    return np.array(list(itertools.product(range(n_actions), repeat=n_agents)))


def best_joint(values: Array, avail: Array) -> tuple[Array, Extremes]:
    """The available joint action of largest value, of those that are enumerated.

    Args:
      values: `[U^A]`, in the order of `joint_actions`.
      avail: `[A, U]` bool.

    Returns:
      `(its number in [0, U^A), the extremes)`.
    """
    n_agents, n_actions = avail.shape
    allowed = avail[jnp.arange(n_agents), joint_actions(n_agents, n_actions)].all(-1)
    above, below = jnp.where(allowed, values, -jnp.inf), jnp.where(allowed, values, jnp.inf)
    return jnp.argmax(above), Extremes(jnp.max(above), jnp.min(below))


def enumerated(value: Value, avail: Array) -> Extremes:
    """The extremes over all joint actions `[U^A]`, by looking at each.

    Args:
      value: of one state.
      avail: `[A, U]` bool.
    """
    return best_joint(jax.vmap(value)(jnp.asarray(joint_actions(*avail.shape))), avail)[1]


def climbed(
    value: Value, q: Array, avail: Array, *, key: Array, restarts: int, sweeps: int
) -> Extremes:
    """Bounds of the extremes by coordinate ascent, for more joint actions than can be enumerated.

    Agent after agent changes to its best action while the others keep theirs. `largest` is that of
    ascents from the greedy joint action and from random ones, hence never less than what the greedy
    one is worth, and never more than the true maximum. `smallest` is that of a descent from the
    greedy one, and of where the ascents began.

    Args:
      value: of one state.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      key: PRNG key.
      restarts: random joint actions to start from.
      sweeps: turns of each agent.
    """
    first = greedy(q, avail).astype(jnp.int32)
    starts = jnp.concatenate([first[None], any_available(key, avail, restarts).astype(jnp.int32)])
    tops = jax.vmap(lambda start: value(_ascend(value, avail, start, sweeps)))(starts)
    bottom = value(_ascend(lambda action: -value(action), avail, first, sweeps))
    smallest = jnp.minimum(bottom, jnp.min(jax.vmap(value)(starts)))
    return Extremes(jnp.max(tops), smallest)


def _ascend(value: Value, avail: Array, start: Array, sweeps: int) -> Array:
    """The joint action `[A]` after `sweeps` turns of each agent; in a tie an action stays."""

    def turn(i: Array, action: Array) -> Array:
        agent = i % len(avail)
        worth = jnp.where(avail[agent], _responses_of(value, action, avail, agent), -jnp.inf)
        best = jnp.argmax(worth).astype(action.dtype)
        now = action[agent]
        return action.at[agent].set(jnp.where(worth[best] > worth[now], best, now))

    return jax.lax.fori_loop(0, sweeps * len(avail), turn, start)


def _responses_of(value: Value, action: Array, avail: Array, agent: Array) -> Array:
    """The joint value `[U]` of each action of one agent, while the others keep theirs."""
    options = jnp.arange(avail.shape[-1], dtype=action.dtype)
    return jax.vmap(lambda own: value(action.at[agent].set(own)))(options)


def responses(value: Value, action: Array, avail: Array) -> Array:
    """The joint value `[A, U]` of every change of a single agent's action in `action[A]`."""
    of_agent = lambda agent: _responses_of(value, action, avail, agent)  # noqa: E731
    return jax.vmap(of_agent)(jnp.arange(len(avail)))


def order(value: Value, q: Array, avail: Array, extremes: Extremes) -> Order:
    """Hold the utilities of one state against a joint value.

    Where either is not finite, nothing is best.

    Args:
      value: of the state.
      q: the utilities that act, `[A, U]`.
      avail: `[A, U]` bool.
      extremes: from `enumerated` or `climbed`.
    """
    chosen = greedy(q, avail)
    after = responses(value, chosen, avail)  # [A, U]
    now, best_response = value(chosen), jnp.max(jnp.where(avail, after, -jnp.inf), axis=-1)
    # A single change may be worth more or less than what a search has found.
    worst_response = jnp.min(jnp.where(avail, after, jnp.inf))
    largest = jnp.maximum(extremes.largest, jnp.max(best_response))
    smallest = jnp.minimum(extremes.smallest, jnp.minimum(now, worst_response))
    tolerance = ROUNDING * jnp.maximum(jnp.abs(largest), jnp.abs(smallest))
    known = jnp.all(jnp.isfinite(jnp.where(avail, q, 0)))  # argmax of NaN is 0, which may be best

    # Pairs (u, v) of which the utilities say that u is better: each once.
    said = q[:, :, None] > q[:, None, :]
    gap = after[:, :, None] - after[:, None, :]
    counts = said & (jnp.abs(gap) > tolerance) & avail[:, :, None] & avail[:, None, :]

    regret = largest - now
    own_best = known & (best_response - now <= tolerance)
    return Order(
        is_best=known & (regret <= tolerance),
        settled=jnp.all(own_best),
        regret=jnp.where(regret <= tolerance, 0.0, regret),
        spread=largest - smallest,
        own_best=own_best,
        pairs=jnp.sum(counts, axis=(1, 2)),
        wrong=jnp.sum(counts & (gap < 0), axis=(1, 2)),
    )
