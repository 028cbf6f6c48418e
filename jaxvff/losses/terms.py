"""What losses are made of: utilities of a segment, joint values, targets, masks, metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxvff.core.actions import masked, pick
from jaxvff.core.types import Array, JointStep, Metrics, Params, Segment, Tree
from jaxvff.losses.contract import LossInput, Model
from jaxvff.losses.targets import Bootstrap

IN_REWARD_UNITS = ("td_error_abs", "q_tot", "target")  # of the metrics of every loss


class UtilityValues(NamedTuple):
    """What the utility networks make of all slots of a segment."""

    q: Array  # [T, A, U]
    features: Array  # [T, A, H]


def utilities(model: Model, params: Params, segment: Segment) -> UtilityValues:
    """Unroll one set of utility networks over a segment."""
    return UtilityValues(*model.utility.unroll(params, segment))


def unremembered(segment: Segment) -> Segment:
    """The segment for networks that did not act: what they knew before it is lost, and is zeros."""
    if segment.before is None:
        return segment
    before = segment.before
    return segment._replace(before=before._replace(carry=jnp.zeros_like(before.carry)))


def joint_steps(
    values: UtilityValues,
    action: Array,
    avail: Array,
    state: Array,
    context: Array | None = None,
) -> JointStep:
    """What a mixer sees of joint actions.

    Args:
      values: utilities and features, leaves `[T, ...]`; or of one step, without the [T].
      action: `[T, A]` int.
      avail: `[T, A, U]` bool.
      state: `[T, S]`.
      context: `[T, C]`; None of a method that draws nothing.

    Returns:
      A JointStep whose fields have a leading [T].
    """
    return JointStep(
        q_taken=pick(values.q, action),
        q_max=jnp.max(masked(values.q, avail), axis=-1),
        action=jax.nn.one_hot(action, values.q.shape[-1], dtype=values.q.dtype),
        features=values.features,
        state=state,
        context=context,
    )


def apply_mixer(
    model: Model, params: Params, *args: Tree, head: Callable | str | None = None
) -> Tree:
    """The mixer of one step, or another method of its as `head`, unbound or by name."""
    return model.mixer.apply(params, *args, method=head)


def mix(
    model: Model,
    params: Params,
    values: UtilityValues,
    *,
    action: Array,
    segment: Segment,
    head: Callable | None = None,
) -> Array:
    """Joint values of all slots of a segment.

    Args:
      model: networks.
      params: of the mixer.
      values: utilities of the segment.
      action: `[T, A]` int, joint actions in place of the segment's.
      segment: for its states and available actions.
      head: a method of the mixer to use in place of its `__call__`.

    Returns:
      `[T]`; `[T, A]` of a mixer that keeps agents apart.
    """
    steps = joint_steps(values, action, segment.avail, segment.state, segment.context)
    return jax.vmap(lambda step: cast(Array, apply_mixer(model, params, step, head=head)))(steps)


def returns(x: LossInput, value: Array) -> Array:
    """Targets `[T]` that bootstrap on `value[T]`; no gradient flows through them."""
    segment, traced = x.segment, x.traced
    discount = traced.gamma * (1.0 - segment.terminated)
    bootstrap = Bootstrap(segment.reward, discount, value, segment.mask)
    targets = x.model.returns(bootstrap, traced.td_lambda, x.model.n_step)
    return jax.lax.stop_gradient(targets)


def bootstrapped(x: LossInput, online: UtilityValues) -> Array:
    """The target network's joint value of the action that `model.bootstrap` chooses.

    Args:
      x: what the loss is given.
      online: utilities of its segment, by which `double` chooses.

    Returns:
      `[T]`; `[T, A]` of a mixer that keeps agents apart.
    """
    model, segment = x.model, x.segment
    target = utilities(model, x.target_params["utility"], segment)
    best = model.bootstrap(online.q, target.q, segment)
    return mix(model, x.target_params["mixer"], target, action=best, segment=segment)


def td_targets(x: LossInput, online: UtilityValues) -> Array:
    """Targets that bootstrap on the target network (eq. 27 and 29): see `bootstrapped`.

    Returns:
      `[T]`; the targets that several updates share, where there are such.
    """
    return returns(x, bootstrapped(x, online)) if x.targets is None else x.targets


def valid(segment: Segment, x: Array) -> Array:
    """`x[T]`, and 0 where the mask is False."""
    return jnp.where(segment.mask, x, 0.0)


def metrics(segment: Segment, error: Array, q_tot: Array, target: Array) -> Metrics:
    """What every loss reports of its slots.

    Args:
      segment: for its mask.
      error: TD errors `[T]`, 0 where the mask is False.
      q_tot: joint values `[T]` of the actions taken.
      target: `[T]`, what they learn.

    Returns:
      `[T]` each: td_error_abs, q_tot and target, in reward units.
    """
    values = jnp.abs(error), valid(segment, q_tot), valid(segment, target)
    return dict(zip(IN_REWARD_UNITS, values, strict=True))
