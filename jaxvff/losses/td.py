"""The squared TD error of a joint value: VDN, QMIX, NM-QMIX, Qatten, QPLEX."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.losses import terms
from jaxvff.losses.contract import LossInput, LossOutput


@dataclass(frozen=True)
class Td:
    """L_t = ½ (Q_tot(s_t, a_t) - y_t)², with y from the target network.

    Source: eq. 26 of the paper; the half as in PyMARL2.
    """

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        target = terms.utilities(model, x.target_params["utility"], segment)
        q_tot = terms.mix(model, x.params["mixer"], online, action=segment.action, segment=segment)
        best = model.bootstrap(online.q, target.q, segment)
        value = terms.mix(model, x.target_params["mixer"], target, action=best, segment=segment)
        y = terms.returns(x, value)
        error = terms.valid(segment, q_tot - y)
        return LossOutput(0.5 * error**2, terms.metrics(segment, error, q_tot, y))
