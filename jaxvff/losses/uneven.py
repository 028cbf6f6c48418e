"""UneVEn's loss: the successor features of the policies of several tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, Params
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput
from jaxvff.networks.contexts import split_tasks
from jaxvff.networks.heads import successor_features


@dataclass(frozen=True)
class UnevenLoss(Loss):
    """The TD errors of successor features, of the policies of all tasks that a segment holds.

      L_t = ½ mean_j |ψ_tot(a_t; w_j) - y_j|², ψ_tot(a; w) = Σ_i ψ_i(a_i; w)
      y_j = φ_t + γ ψ̄_tot(u_j; w_j), u_j,i = argmax_u ψ_i(u; w_j) · w_j in the next slot

    φ are the positive and the negative part of the reward. With `returns` other than `one_step` the
    targets sum the features of several steps of whoever acted, for all tasks alike.

    Source: Gupta et al. (2021), §4, multi-agent universal successor features with VDN's sum. Their
    code is not public. Left out: mixers other than the sum.
    """

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        segment = x.segment
        psi = _successors(x, x.params)  # [T, A, K, U, d]
        y = _targets(x, psi)  # [T, K, d]
        taken = _of_actions(psi, segment.action[..., None])
        error = jnp.where(segment.mask[:, None, None], taken - y, 0.0)
        total = 0.5 * jnp.mean(jnp.sum(error**2, axis=-1), axis=-1)
        # What is reported is of the target task, the first one.
        weights = _tasks(x)[:, 0]
        values = (jnp.sum(part[:, 0] * weights, axis=-1) for part in (error, taken, y))
        return LossOutput(total, terms.metrics(segment, *values))

    def targets(self, x: LossInput) -> Array:
        """Targets `[T, K, 2]`."""
        return _targets(x, _successors(x, x.params))


def _tasks(x: LossInput) -> Array:
    """The weights of the tasks, `[T, K, 2]`."""
    return split_tasks(cast(Array, x.segment.context))[0]


def _successors(x: LossInput, params: Params) -> Array:
    """ψ_i(u; w_j) in all slots: `[T, A, K, U, 2]`."""
    features = terms.utilities(x.model, params["utility"], x.segment).features
    return successor_features(features, _tasks(x).shape[1])


def _of_actions(psi: Array, action: Array) -> Array:
    """ψ_tot `[T, K, 2]` of joint actions.

    Args:
      psi: `[T, A, K, U, 2]`.
      action: `[T, A, K]` int, one for each task; or `[T, A, 1]`, the same for all.
    """
    taken = jnp.take_along_axis(psi, action[..., None, None], axis=3)[..., 0, :]
    return jnp.sum(taken, axis=1)


def _targets(x: LossInput, psi: Array) -> Array:
    """What the successor features of all tasks learn, `[T, K, 2]`; shared, where that is so."""
    if x.targets is not None:
        return x.targets
    segment, tasks = x.segment, _tasks(x)
    behind = _successors(x, x.target_params)

    def greedy(online: Array, target: Array, weights: Array) -> Array:
        """The next joint actions `[T, A]` of the policy of one task."""
        q, q_behind = (jnp.einsum("taud,td->tau", part, weights) for part in (online, target))
        return x.model.bootstrap(q, q_behind, segment)

    action = jax.vmap(greedy, (2, 2, 1), 2)(psi, behind, tasks)
    value = _of_actions(behind, action)
    phi = jnp.stack([jnp.maximum(segment.reward, 0), jnp.minimum(segment.reward, 0)])

    def summed(reward: Array, value: Array) -> Array:
        return terms.returns(x._replace(segment=segment._replace(reward=reward)), value)

    of_tasks = jax.vmap(summed, (None, 1), 1)  # reward [T], value [T, K] -> [T, K]
    return jax.vmap(of_tasks, (0, 2), 2)(phi, value)
