"""ResQ's loss: a residual function takes the error of every joint action but the greedy one."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.types import Array
from jaxvff.losses import central, terms
from jaxvff.losses.contract import LossInput, LossOutput
from jaxvff.mixers.resq import Resq


@dataclass(frozen=True)
class ResqLoss(central.CentralLoss):
    """Q_jt and the central Q̂* learn the same targets, which bootstrap on Q̂*.

      L = (Q_jt - y)² + (Q̂* - y)²,  Q_jt = Q_tot + w_r Q_r

    w_r is 0 where the joint action is greedy and 1 elsewhere; no gradient flows through it. Q_r is
    never positive (mixers/resq.py), so a payoff above Q_tot can be learned by Q_tot alone.

    Source: Shen et al. (2022), and its authors' code (xmu-rl-3dv/ResQ, commit b4c5adf). Differs
    from that code: there the error has the residual network's output as it is, and -|.| stands in
    a penalty that it makes 0, so that nothing holds Q_r <= 0. Here -|.| is in the error, as the
    paper has it, and as have the authors of POWQMIX in their copy of ResQ.
    """

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        y = central.td_targets(x, online)

        # Q_jt: the main function, and the residual one where the joint action is not greedy.
        q_tot = terms.mix(model, x.params["mixer"], online, action=segment.action, segment=segment)
        q_r = residual(x)
        is_best = jnp.all(segment.action == greedy(online.q, segment.avail), axis=-1)
        q_jt = q_tot + jnp.where(is_best, 0.0, q_r)

        q_star = central.value(x, x.params, central.utilities(x, x.params), segment.action)
        error = terms.valid(segment, q_jt - y)
        central_error = terms.valid(segment, q_star - y)
        return LossOutput(error**2 + central_error**2, terms.metrics(segment, error, q_jt, y))


def residual(x: LossInput) -> Array:
    """Q_r `[T]` of the joint actions taken."""
    return terms.mix(
        x.model,
        x.params["mixer"],
        central.utilities(x, x.params, "residual"),
        action=x.segment.action,
        segment=x.segment,
        head=Resq.residual,
    )
