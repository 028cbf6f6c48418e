"""The squared TD error of a joint value: VDN, QMIX, NM-QMIX, Qatten, QPLEX, QFIX."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.types import Array
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput


@dataclass(frozen=True)
class Td(Loss):
    """L_t = ½ (Q_tot(s_t, a_t) - y_t)², with y from the target network.

    Source: eq. 26 of the paper; the half as in PyMARL2.
    """

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        q_tot = terms.mix(model, x.params["mixer"], online, action=segment.action, segment=segment)
        y = terms.td_targets(x, online)
        error = terms.valid(segment, q_tot - y)
        return LossOutput(0.5 * error**2, terms.metrics(segment, error, q_tot, y))

    def targets(self, x: LossInput) -> Array:
        """TD targets `[T]`."""
        return terms.td_targets(x, terms.utilities(x.model, x.params["utility"], x.segment))
