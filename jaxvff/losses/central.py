"""What losses with a central Q̂* share: its values, and the targets that bootstrap on it."""

from __future__ import annotations

from jaxvff.core.types import Array, Params
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput
from jaxvff.losses.terms import UtilityValues
from jaxvff.mixers.wqmix import Wqmix


class CentralLoss(Loss):
    """A loss of a method with a set of utilities "central" and a mixer that is a Wqmix.

    Q̂* is unrestricted, so it can judge; its targets bootstrap on what greedy agents would do.
    """

    def targets(self, x: LossInput) -> Array:
        """TD targets `[T]`, which bootstrap on Q̂*."""
        return td_targets(x, terms.utilities(x.model, x.params["utility"], x.segment))


def td_targets(x: LossInput, online: UtilityValues) -> Array:
    """Targets `[T]` that bootstrap on the target network's Q̂*.

    Args:
      x: what the loss is given.
      online: utilities of its segment, by which `double` chooses.
    """
    if x.targets is not None:
        return x.targets
    model, segment = x.model, x.segment
    target = terms.utilities(model, x.target_params["utility"], segment)
    best = model.bootstrap(online.q, target.q, segment)
    return terms.returns(x, value(x, x.target_params, utilities(x, x.target_params), best))


def utilities(x: LossInput, params: Params, name: str = "central") -> UtilityValues:
    """Utilities of a set of networks that do not act."""
    return terms.utilities(x.model, params[name], terms.unremembered(x.segment))


def value(x: LossInput, params: Params, values: UtilityValues, action: Array) -> Array:
    """Q̂* `[T]` of `action[T, A]`."""
    return terms.mix(
        x.model,
        params["mixer"],
        values,
        action=action,
        segment=x.segment,
        head=Wqmix.central,
    )
