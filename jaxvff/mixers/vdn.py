"""VDN: the joint value is the sum of the utilities."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.types import Array, EnvSpec, JointStep


class Vdn(nn.Module):
    """Q_tot = Σ_i Q_i (eq. 2). Source: Sunehag et al. (2018)."""

    spec: EnvSpec

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        return jnp.sum(step.q_taken)
