"""Losses of one segment: TD (one value, or one per agent), QTRAN, weighted QMIX.

A loss returns one number per slot, 0 where the mask is False; the learner averages over the valid
slots of the batch. Parameters are `{"utility", "mixer"}`, and `"central"` where a method asks
for a second set of utilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.explore import greedy, masked
from jaxvff.nets import Utility
from jaxvff.targets import Bootstrap, BootstrapRule, Return
from jaxvff.types import Array, Hyper, JointStep, Metrics, Params, Segment


class Model(NamedTuple):
    """The pure functions that a loss calls: networks and target rules, no parameters."""

    utility: Utility
    mixer: nn.Module
    bootstrap: BootstrapRule
    returns: Return
    n_step: int


Loss = Callable[[Model, Params, Params, Segment, Hyper], tuple[Array, Metrics]]


class Values(NamedTuple):
    """Utilities of all slots of a segment."""

    q: Array  # [T, A, U]
    hidden: Array  # [T, A, H]


def utilities(model: Model, params: Any, segment: Segment) -> Values:
    """Unroll the utility networks over a segment."""
    return Values(*model.utility.unroll(params, segment))


def joint_steps(values: Values, action: Array, avail: Array, state: Array) -> JointStep:
    """The mixer's view of the joint actions `action[T, A]`; every field gets a leading [T]."""
    return JointStep(
        q_taken=jnp.take_along_axis(values.q, action[..., None], axis=-1)[..., 0],
        q_max=jnp.max(masked(values.q, avail), axis=-1),
        action=jax.nn.one_hot(action, values.q.shape[-1], dtype=values.q.dtype),
        hidden=values.hidden,
        state=state,
    )


def mix(
    model: Model, params: Any, values: Values, action: Array, segment: Segment, method: Any = None
) -> Array:
    """The mixer over all slots, with `action[T, A]` in place of the segment's: `[T]`."""
    steps = joint_steps(values, action, segment.avail, segment.state)
    return jax.vmap(lambda step: _apply(model, params, step, method))(steps)


def _apply(model: Model, params: Any, x: Any, method: Any = None) -> Array:
    return cast(Array, model.mixer.apply(params, x, method=method))


def returns(model: Model, value: Array, segment: Segment, hyper: Hyper) -> Array:
    """Targets `[T]` that bootstrap on `value[T]`; no gradient flows through them."""
    discount = hyper.gamma * (1.0 - segment.terminated)
    x = Bootstrap(segment.reward, discount, value, segment.mask)
    return jax.lax.stop_gradient(model.returns(x, hyper.td_lambda, model.n_step))


def td(
    model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper
) -> tuple[Array, Metrics]:
    """Squared TD error of the joint value (eq. 26), halved as in PyMARL2.

    Args:
      model: networks and target rule.
      params: online parameters.
      target_params: parameters of the target network.
      segment: one segment.
      hyper: traced hyper-parameters.

    Returns:
      `(loss[T], metrics of [T])`, 0 where the mask is False.
    """
    online = utilities(model, params["utility"], segment)
    target = utilities(model, target_params["utility"], segment)
    q_tot = mix(model, params["mixer"], online, segment.action, segment)
    best = model.bootstrap(online.q, target.q, segment)
    value = mix(model, target_params["mixer"], target, best, segment)
    y = returns(model, value, segment, hyper)
    error = valid(segment, q_tot - y)
    return 0.5 * error**2, metrics(segment, error, q_tot, y)


def independent_td(
    model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper
) -> tuple[Array, Metrics]:
    """Every agent's own squared TD error with the team reward, averaged over agents."""
    online = utilities(model, params["utility"], segment)
    target = utilities(model, target_params["utility"], segment)
    q = mix(model, params["mixer"], online, segment.action, segment)  # [T, A]
    best = model.bootstrap(online.q, target.q, segment)
    value = mix(model, target_params["mixer"], target, best, segment)
    y = jax.vmap(lambda v: returns(model, v, segment, hyper), 1, 1)(value)
    error = jnp.where(segment.mask[:, None], q - y, 0.0)
    mean_error = jnp.mean(jnp.abs(error), axis=-1)
    return 0.5 * jnp.mean(error**2, axis=-1), metrics(
        segment, mean_error, jnp.mean(q, axis=-1), jnp.mean(y, axis=-1)
    )


def qtran(
    opt_weight: float = 1.0, nopt_weight: float = 0.1
) -> Callable[[Model, Params, Params, Segment, Hyper], tuple[Array, Metrics]]:
    """QTRAN-base: L_td + opt_weight · L_opt + nopt_weight · L_nopt.

    Source: Son et al. (2019), eq. 4-7; the weights are PyMARL2's.
    """

    def loss(
        model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper
    ) -> tuple[Array, Metrics]:
        online = utilities(model, params["utility"], segment)
        target = utilities(model, target_params["utility"], segment)
        mixer = params["mixer"]
        q_jt = mix(model, mixer, online, segment.action, segment)
        v = jax.vmap(lambda s: _apply(model, mixer, s, "state_value"))(segment.state)
        next_best = model.bootstrap(online.q, target.q, segment)
        value = mix(model, target_params["mixer"], target, next_best, segment)
        y = returns(model, value, segment, hyper)

        best = greedy(online.q, segment.avail)
        q_jt_best = mix(model, mixer, online, best, segment)
        steps = joint_steps(online, segment.action, segment.avail, segment.state)
        sg = jax.lax.stop_gradient
        td_error = q_jt - y
        opt = jnp.sum(steps.q_max, axis=-1) - sg(q_jt_best) + v
        nopt = jnp.minimum(jnp.sum(steps.q_taken, axis=-1) - sg(q_jt) + v, 0.0)
        td_error, opt, nopt = (valid(segment, x) for x in (td_error, opt, nopt))
        total = td_error**2 + opt_weight * opt**2 + nopt_weight * nopt**2
        return total, metrics(segment, td_error, q_jt, y)

    return loss


def wqmix(optimistic: bool, alpha: float = 0.1) -> Loss:
    """Weighted QMIX: the central Q̂* learns by TD, Q_tot learns its targets with weights.

    The weight is 1 where Q_tot is below the target (OW-QMIX, `optimistic`), or where the action is
    greedy or its target beats Q̂* of the greedy action (CW-QMIX); elsewhere it is alpha.

    Source: Rashid et al. (2020), eq. 7 and 8; the halves as in PyMARL2.
    """

    def loss(
        model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper
    ) -> tuple[Array, Metrics]:
        online = utilities(model, params["utility"], segment)
        target = utilities(model, target_params["utility"], segment)
        central = utilities(model, params["central"], segment)
        central_target = utilities(model, target_params["central"], segment)

        def judge(values: Values, action: Array, params: Params) -> Array:
            return mix(model, params["mixer"], values, action, segment, method="central")

        best = greedy(online.q, segment.avail)
        next_best = model.bootstrap(online.q, target.q, segment)
        y = returns(model, judge(central_target, next_best, target_params), segment, hyper)
        q_tot = mix(model, params["mixer"], online, segment.action, segment)
        error = valid(segment, q_tot - y)
        central_error = valid(segment, judge(central, segment.action, params) - y)
        if optimistic:
            full = error < 0
        else:
            is_best = jnp.all(segment.action == best, axis=-1)
            full = is_best | (y > judge(central_target, best, target_params))
        weight = jnp.where(full, 1.0, alpha)
        total = weight * error**2 + 0.5 * central_error**2
        return total, metrics(segment, error, q_tot, y)

    return loss


def valid(segment: Segment, x: Array) -> Array:
    """`x[T]`, and 0 where the mask is False."""
    return jnp.where(segment.mask, x, 0.0)


def metrics(segment: Segment, error: Array, q_tot: Array, target: Array) -> Metrics:
    """What every loss reports of its slots: `[T]` each."""
    return {
        "td_error_abs": jnp.abs(error),
        "q_tot": valid(segment, q_tot),
        "target": valid(segment, target),
    }
