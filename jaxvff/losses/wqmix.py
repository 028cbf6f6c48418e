"""Weighted QMIX's loss: a central value judges which errors of Q_tot count in full."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.options import option
from jaxvff.losses import central, terms
from jaxvff.losses.contract import LossInput, LossOutput


@dataclass(frozen=True, kw_only=True)
class WqmixLoss(central.CentralLoss):
    """The central Q̂* learns by TD, Q_tot learns the same targets with weights.

      L = w (Q_tot - y)² + ½ (Q̂* - y)²

    w is 1 where Q_tot is below the target (OW-QMIX, `optimistic`), or where the action is greedy
    or its target beats Q̂* of the greedy action (CW-QMIX); elsewhere it is alpha.

    Source: Rashid et al. (2020), eq. 7 and 8; the half as in PyMARL2.
    """

    optimistic: bool
    alpha: float = option(0.1, "weight of the errors that count less", low=0, above=True)

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        judging = central.utilities(x, x.params)
        judging_target = central.utilities(x, x.target_params)
        y = central.td_targets(x, online)
        q_tot = terms.mix(model, x.params["mixer"], online, action=segment.action, segment=segment)
        error = terms.valid(segment, q_tot - y)
        central_error = central.value(x, x.params, judging, segment.action) - y
        central_error = terms.valid(segment, central_error)
        if self.optimistic:
            full = error < 0
        else:
            best = greedy(online.q, segment.avail)
            is_best = jnp.all(segment.action == best, axis=-1)
            full = is_best | (y > central.value(x, x.target_params, judging_target, best))
        weight = jnp.where(full, 1.0, self.alpha)
        total = weight * error**2 + 0.5 * central_error**2
        return LossOutput(total, terms.metrics(segment, error, q_tot, y))
