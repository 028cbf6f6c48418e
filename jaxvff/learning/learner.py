"""What a learner is: pure functions of a state that nobody else looks into."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff.core.types import Array, Codec, EnvParams, Metrics, Params, Segment, Traced, Tree
from jaxvff.losses.contract import Loss, Model, SegmentMemory
from jaxvff.losses.terms import UtilityValues, joint_steps


class Parts(NamedTuple):
    """What learners are made of, beside their options (jaxvff/learning/options.py)."""

    model: Model
    loss: Loss
    memory: SegmentMemory
    codec: Codec  # whose segments come back without garbage in their padding
    n_envs: int  # N, segments that an iteration collects
    n_slots: int  # T, of a segment
    # Slots that a gradient is computed of at once: it is summed over parts of a larger batch. None:
    # of all. Where networks are as small as ours, more than this leaves the caches of a CPU's core.
    slots_at_once: int | None = None


class LearnInput(NamedTuple):
    """What one lane hands to its learner in one iteration."""

    segments: Segment  # every field with a leading [N]
    env_params: EnvParams
    traced: Traced
    # [] int, the iterations before this one. The same for all lanes: it decides branches, and a
    # branch that is batched over lanes computes both of its sides.
    iteration: Array
    env_steps: Array  # [] int, transitions collected so far, these included
    running: Array  # [] bool; False: this lane has stopped, and keeps its parameters
    keys: Array  # [Learner.n_keys] PRNG keys


class LearnOutput(NamedTuple):
    """What a learner makes of it."""

    state: Tree
    metrics: Metrics  # means over the updates, zeros before learning starts; "learned" is 1 or 0
    running: Array  # [] bool; False: it was before, or a loss or gradient was not finite


class Size(NamedTuple):
    """What a part of a learner's state takes."""

    name: str
    n_bytes: int
    note: str  # how it comes about
    key: str  # the option that makes it smaller


class Learner(NamedTuple):
    """The learner of one lane; lanes are vmapped from outside."""

    model: Model
    init: Callable[[Array, Traced], Tree]  # (key, traced options) -> state
    # state -> the parameters to act with: {"utility", "mixer"}, and "context" if the method has one
    acting: Callable[[Tree], Params]
    learn: Callable[[Tree, LearnInput], LearnOutput]
    # Of a state or of its shapes; first the part that grows most with a user's settings.
    sizes: Callable[[Tree], list[Size]]
    n_keys: int  # PRNG keys that an iteration takes
    first_iteration: int  # the first one in which parameters change
    # state -> what values are multiplied with to be in env units, []
    unit: Callable[[Tree], Array] = lambda state: jnp.ones(())
    # (a fresh state, parameters as `acting` gives them) -> the state that begins with them, for
    # init_from=; None: the learner cannot
    with_params: Callable[[Tree, Params], Tree] | None = None


def begin_with(optimizer: optax.GradientTransformation, state: Any, params: Params) -> Any:
    """A learner's fresh state that begins with other parameters.

    Args:
      optimizer: of the learner.
      state: a NamedTuple with `params`, `target_params` and `opt_state`.
      params: as `Learner.acting` gives them.
    """
    target = jax.tree.map(jnp.copy, params)  # what is donated may not be there twice
    return state._replace(params=params, target_params=target, opt_state=optimizer.init(params))


def init_params(model: Model, key: Array) -> Params:
    """Fresh parameters: those of every set of utilities by name, "mixer", and maybe "context"."""
    utility_key, mixer_key, other_key = jax.random.split(key, 3)
    spec = model.utility.spec
    a, u = spec.n_agents, spec.n_actions
    step = joint_steps(
        UtilityValues(jnp.zeros((a, u)), model.utility.initial_carry()),
        jnp.zeros(a, int),
        jnp.ones((a, u), bool),
        jnp.zeros(spec.state_size),
        model.utility.blank_context(),
    )
    acting, *others = model.utility_sets
    params = {
        acting: model.utility.init(utility_key),
        "mixer": model.mixer.init(mixer_key, step),
    }
    if model.context is not None:
        context_key = jax.random.fold_in(key, 1)  # not split: all else draws the same numbers
        params["context"] = model.context.init(context_key, step.state, key, greedy=True)
    # A single further set takes the key as it is.
    keys = jax.random.split(other_key, len(others)) if len(others) > 1 else [other_key]
    return params | {name: model.utility.init(k) for name, k in zip(others, keys, strict=False)}
