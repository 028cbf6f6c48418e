"""Does greedy play of a trained lane maximise its joint value? What is found in its states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.actions import any_available, greedy
from jaxvff.core.errors import UserError
from jaxvff.core.types import Array, Env, EnvParams, EnvSpec, HostEnv, Params, Segment
from jaxvff.losses import igm, terms
from jaxvff.losses.contract import Model
from jaxvff.losses.igm import Order
from jaxvff.losses.terms import UtilityValues
from jaxvff.methods.table import METHODS, JointValue
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.rollout import Act, Player
from jaxvff.settings.diagnosis import DiagnosisOptions
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program, compiler

ACTS: dict[str, Act] = {
    "greedy": lambda key, q, avail: greedy(q, avail),
    "random": lambda key, q, avail: any_available(key, avail, 1)[0],
}
AT_ONCE = 2**16  # joint values that are in memory at a time


class States(NamedTuple):
    """What was found in the states of one lane, leaves `[games, T, ...]`; values in env units."""

    counts: Array  # bool, a state in which an agent has a choice; final observations have none
    time: Array  # int, env steps since the start of the episode
    has_choice: Array  # [A] bool, more than one action is available
    order: Order
    rising: Array  # [A] bool, ∂Q_tot/∂Q_i > 0 at the greedy joint action; False without of_acting


class Found(NamedTuple):
    """The states of one lane, under one policy and one joint value of its method."""

    lane: int  # in [0, K)
    policy: str  # a name in ACTS
    value: JointValue
    states: States  # NumPy arrays
    share: float  # of all that is found of the lane


def check(method: str, env: Env | HostEnv) -> None:
    """Refuse what cannot be diagnosed, before anything compiles.

    Args:
      method: a name in METHODS.
      env: that it was trained in.

    Raises:
      UserError: the method has no joint value, or games run on the host.
    """
    if not METHODS[method].joint_values:
        having = ", ".join(name for name, each in METHODS.own_parts().items() if each.joint_values)
        raise UserError(
            f"{method} has no joint value that its greedy joint action could maximise: its agents "
            f"learn alone; diagnose a run of {having}"
        )
    if isinstance(env, HostEnv):
        raise UserError(
            f"diagnose plays on the device, and the games of {env.game} run in worker processes; "
            "diagnose a run on a game of the device, such as smax in place of smac"
        )


def is_enumerated(spec: EnvSpec, asked: DiagnosisOptions) -> bool:
    """Whether all joint actions are looked at in every state."""
    return spec.n_actions**spec.n_agents <= asked.max_enumerated


def diagnose(
    program: Program, carry: Carry, lane: Lane, asked: DiagnosisOptions
) -> Iterator[Found]:
    """Look at the states of all lanes, one lane after the other.

    Args:
      program: of a method and an environment that `check` lets pass.
      carry: of all lanes.
      lane: of all lanes.
      asked: which states, and how they are searched.
    """
    values = METHODS[program.config.method["name"]].joint_values
    learner = program.learner
    acting = jax.jit(jax.vmap(learner.acting))(carry.state.learner)
    units = np.asarray(jax.jit(jax.vmap(learner.unit))(carry.state.learner))
    seeds = np.asarray(lane.seed)
    # Apart from the plays, so that what takes long to compile is compiled once for all policies.
    options = compiler("evaluate")
    look = jax.jit(partial(_look, learner.model, values, asked), compiler_options=options)
    plays = {
        name: jax.jit(partial(_play, program, asked, ACTS[name]), compiler_options=options)
        for name in asked.policies
    }
    for k in range(len(seeds)):
        own: Callable = lambda tree, k=k: jax.tree.map(lambda x: x[k], tree)  # noqa: E731
        play_key, look_key = jax.random.split(
            jax.random.fold_in(jax.random.key(asked.seed), seeds[k])
        )
        for policy, play in plays.items():
            segments = play(own(acting), own(lane.env_params), play_key)
            found = jax.device_get(look(own(acting), segments, look_key, units[k]))
            for value, states in zip(values, found, strict=True):
                yield Found(k, policy, value, states, 1 / (len(plays) * len(values)))


def _play(
    program: Program,
    asked: DiagnosisOptions,
    act: Act,
    params: Params,
    env_params: EnvParams,
    key: Array,
) -> Segment:
    """Segments `[games, T]` of one lane, each from a reset."""
    env = program.env
    assert isinstance(env, Env)  # `check` has refused the others
    model = program.learner.model
    # A context is the one to play with, also in random play: what is asked is how its team orders.
    draw = evaluate.drawing(model, params, greedy=True)
    player = Player(env, model.utility, act, params["utility"], env_params, draw=draw)
    play = partial(rollout.on_device, player, n_slots=env.spec.episode_limit + 1)
    return jax.vmap(play)(jax.random.split(key, asked.games))[0]


def _look(
    model: Model,
    values: Sequence[JointValue],
    asked: DiagnosisOptions,
    params: Params,
    segments: Segment,
    key: Array,
    unit: Array,
) -> list[States]:
    """The States of segments `[games, T]` under each joint value."""
    search = partial(_of_value, model, params, segments, asked=asked, key=key, unit=unit)
    return [search(value) for value in values]


def _of_value(
    model: Model,
    params: Params,
    segments: Segment,
    value: JointValue,
    *,
    asked: DiagnosisOptions,
    key: Array,
    unit: Array,
) -> States:
    """The states of segments `[games, T]` under one joint value."""
    unroll: Callable = lambda name: jax.vmap(  # noqa: E731
        lambda segment: terms.utilities(model, params[name], segment)
    )(segments)
    acting, taken = unroll("utility"), unroll(value.utilities)
    n_games, n_slots = segments.mask.shape
    keys = jax.random.split(key, n_games * n_slots).reshape(n_games, n_slots)
    each = (acting, taken, segments, keys)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), each)
    spec = model.utility.spec
    n_at_once = spec.n_actions * (asked.restarts + 1)
    if is_enumerated(spec, asked):
        n_at_once = spec.n_actions**spec.n_agents
    in_slot = partial(_in_slot, model, params, value, asked)
    found = jax.lax.map(lambda x: in_slot(*x), flat, batch_size=max(1, AT_ONCE // n_at_once))
    order, rising = jax.tree.map(lambda x: x.reshape(n_games, n_slots, *x.shape[1:]), found)
    has_choice = jnp.sum(segments.avail, axis=-1) > 1
    return States(
        counts=segments.mask & has_choice.any(-1),
        time=jax.vmap(_time)(segments.is_first),
        has_choice=has_choice,
        order=order._replace(regret=unit * order.regret, spread=unit * order.spread),
        rising=rising,
    )


def _in_slot(
    model: Model,
    params: Params,
    value: JointValue,
    asked: DiagnosisOptions,
    acting: UtilityValues,
    taken: UtilityValues,
    view: Segment,
    key: Array,
) -> tuple[Order, Array]:
    """What is found in one state; the fields of `view` are without the [T]."""
    avail = view.avail
    seen: dict[str, Any] = {"avail": avail, "state": view.state, "context": view.context}
    worth = igm.joint_value(model, params, taken, head=value.head, **seen)
    if is_enumerated(model.utility.spec, asked):
        extremes = igm.enumerated(worth, avail)
    else:
        extremes = igm.climbed(
            worth, acting.q, avail, key=key, restarts=asked.restarts, sweeps=asked.sweeps
        )
    order = igm.order(worth, acting.q, avail, extremes)
    if not value.of_acting:
        return order, jnp.zeros(len(avail), bool)
    chosen = greedy(acting.q, avail)
    slope = igm.slopes(model, params, acting, action=chosen, **seen)
    return order, slope > 0


def _time(is_first: Array) -> Array:
    """Env steps since the start of the episode `[T]`, of `is_first[T]`."""
    slots = jnp.arange(len(is_first))
    return slots - jax.lax.cummax(jnp.where(is_first, slots, 0))
