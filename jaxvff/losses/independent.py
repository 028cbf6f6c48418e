"""The squared TD errors of agents that learn on their own: IQL."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput
from jaxvff.losses.terms import UtilityValues


@dataclass(frozen=True)
class IndependentTd(Loss):
    """L_t = ½ mean_i (Q_i(o_t, a_t) - y_i)²: every agent learns from the team's reward."""

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        q = terms.mix(  # [T, A]
            model, x.params["mixer"], online, action=segment.action, segment=segment
        )
        y = _targets(x, online)
        error = jnp.where(segment.mask[:, None], q - y, 0.0)
        return LossOutput(
            0.5 * jnp.mean(error**2, axis=-1),
            terms.metrics(
                segment,
                jnp.mean(jnp.abs(error), axis=-1),
                jnp.mean(q, axis=-1),
                jnp.mean(y, axis=-1),
            ),
        )

    def targets(self, x: LossInput) -> Array:
        """TD targets `[T, A]`, those of every agent."""
        return _targets(x, terms.utilities(x.model, x.params["utility"], x.segment))


def _targets(x: LossInput, online: UtilityValues) -> Array:
    """What each agent would get by its own greedy action: `[T, A]`."""
    if x.targets is not None:
        return x.targets
    value = terms.bootstrapped(x, online)
    return jax.vmap(lambda v: terms.returns(x, v), 1, 1)(value)
