"""Greedy evaluation: whole episodes, and what a learner makes of a state."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from jaxvff.core import actions
from jaxvff.core.types import Array, Draw, Env, EnvParams, Judge, Judged, Metrics, Params, View
from jaxvff.losses.contract import Model
from jaxvff.losses.terms import UtilityValues, apply_mixer, joint_steps
from jaxvff.networks.utility import Utility
from jaxvff.playing import rollout
from jaxvff.playing.rollout import Player


def drawing(model: Model, params: Params, *, greedy: bool) -> Draw | None:
    """What a team draws at the start of an episode; None of a method that draws nothing.

    Args:
      model: networks.
      params: of a learner that is acting: {"context", ...}.
      greedy: whether it draws what is best to play with, or what is to be learned from.
    """
    context = model.context
    if context is None:
        return None

    def draw(state: Array, key: Array) -> Array:
        return context.apply(params["context"], state, key, greedy=greedy)  # type: ignore[return-value]

    return draw


def greedy_player(
    env: Env,
    utility: Utility,
    params: Params,
    env_params: EnvParams,
    draw: Draw | None = None,
) -> Player:
    """Agents that take their best available action.

    Args:
      env: where they play.
      utility: their networks.
      params: of the utility networks.
      env_params: what a sweep varies of the environment.
      draw: from `drawing`.
    """

    def act(key: Array, q: Array, avail: Array) -> Array:
        return actions.greedy(q, avail)

    return Player(env, utility, act, params, env_params, draw=draw)


def greedy_episodes(player: Player, key: Array, n_episodes: int) -> Metrics:
    """Means over `n_episodes` whole episodes, each from its own start.

    One episode per environment: whichever episodes end first in a fixed number of steps would be
    the short ones.

    Args:
      player: from greedy_player.
      key: PRNG key.
      n_episodes: played side by side.

    Returns:
      Scalars test_return, test_length, and a test_<name> for each result of the environment.
    """
    plays = jax.vmap(lambda k: rollout.episode(player, k))(jax.random.split(key, n_episodes))
    ends = {"return": plays.return_, "length": plays.length, **plays.results}
    return {f"test_{name}": jnp.mean(x, dtype=jnp.float32) for name, x in ends.items()}


def judge(model: Model, params: Params, unit: Array) -> Judge:
    """What a learner makes of the first state of an episode: see core.types.Judge.

    The joint value is the mixer's output: Q_jt for QTRAN, the monotone Q_tot for weighted QMIX,
    POW-QMIX and ResQ. IQL has none: NaN.

    Args:
      model: networks.
      params: of a learner that is acting.
      unit: `[]`, what its values are multiplied with to be in env units.
    """
    return partial(_judged, model, params, unit)


def _judged(model: Model, params: Params, unit: Array, view: View, joint: Array) -> Judged:
    first = jnp.zeros(model.utility.spec.n_agents, int)
    x = model.utility.inputs(view.obs, first, jnp.array(True))
    carry, draw = model.utility.initial_carry(), drawing(model, params, greedy=True)
    context = draw and draw(view.state, jax.random.key(0))  # a greedy draw takes no chances
    _, q, features = model.utility.step(params["utility"], carry, x, context)
    values = UtilityValues(q, features)

    def value(action: Array) -> Array:
        step = joint_steps(values, action, view.avail, view.state, context)
        return apply_mixer(model, params["mixer"], step)

    q_tot = jax.vmap(value)(jnp.asarray(joint))
    if q_tot.ndim > 1:
        q_tot = jnp.full(len(joint), jnp.nan)
    return Judged(unit * q_tot, unit * q)
