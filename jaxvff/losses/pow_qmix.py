"""POW-QMIX's loss: Q_tot learns the joint actions that a recogniser takes for optimal."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxvff.core.options import option
from jaxvff.losses import central, terms
from jaxvff.losses.contract import LossInput, LossOutput
from jaxvff.mixers.pow_qmix import PowQmix


@dataclass(frozen=True)
class PowQmixLoss(central.CentralLoss):
    """Q̂*, the recogniser Q_r and, with weights, Q_tot learn the same targets.

      L = ½ w (Q_tot - y)² + ½ (Q_r - y)² + ½ (Q̂* - y)²

    w is 1 where Q_r(s, a) >= Q_r(s, â) - C, â being the greedy joint action and C the `tolerance`;
    elsewhere it is alpha. If Q_r is right, an action that beats â is among those with weight 1.

    Source: Huang et al. (2024), arXiv:2405.08036, and its authors' code
    (tiev-tongji/potentially-optimal-joint-actions-recognition-marl, commit 10a56e9). Differs from
    that code: an update takes one gradient step of Q_r, not ten, and errors are weighted from the
    first update on, not after 100,000 env steps.
    """

    alpha: float = option(0.0, "weight of the errors that count less", low=0)
    tolerance: float = option(
        0.1,
        "how far below Q_r of the greedy joint action a joint action may be optimal",
        unit="units of values",
        low=0,
    )

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        y = central.td_targets(x, online)
        taken = partial(terms.mix, action=segment.action, segment=segment)

        # What the recogniser makes of the joint actions taken.
        advantage = taken(model, x.params["mixer"], online, head=PowQmix.advantage)
        v_of = partial(terms.apply_mixer, model, x.params["mixer"], head=PowQmix.state_value)
        q_r = advantage + jax.vmap(v_of)(segment.state)
        weight = jnp.where(advantage >= -self.tolerance, 1.0, self.alpha)

        q_tot = taken(model, x.params["mixer"], online)
        q_star = central.value(x, x.params, central.utilities(x, x.params), segment.action)
        error, recogniser_error, central_error = (
            terms.valid(segment, q - y) for q in (q_tot, q_r, q_star)
        )
        total = 0.5 * (weight * error**2 + recogniser_error**2 + central_error**2)
        return LossOutput(total, terms.metrics(segment, error, q_tot, y))
