"""A mixer, a loss, and a method of both."""

from __future__ import annotations

from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.losses.contract import LossInput, LossOutput
from jaxvff.losses.td import Td
from jaxvff.methods.table import Method


class ScaledSum(nn.Module):
    """Q_tot = s · Σ_i Q_i + b with numbers s and b."""

    spec: EnvSpec
    first_scale: float = option(1.0, "s at first", low=0, above=True)

    @nn.compact
    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        scale = self.param("scale", nn.initializers.constant(self.first_scale), ())
        offset = self.param("offset", nn.initializers.zeros, ())
        return scale * jnp.sum(step.q_taken) + offset


@dataclass(frozen=True)
class ShareOfTd(Td):
    """A share of Td's loss."""

    share: float = option(0.5, "of the loss", low=0, above=True)

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        out = super().__call__(x)
        return out._replace(per_slot=self.share * out.per_slot)


SCALED_SUM = Method(mixer="vff_extras.methods:ScaledSum", loss="vff_extras.methods:ShareOfTd")
