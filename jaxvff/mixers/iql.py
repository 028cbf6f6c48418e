"""IQL: no mixing; every agent learns its own value."""

from __future__ import annotations

import flax.linen as nn

from jaxvff.core.types import Array, EnvSpec, JointStep


class Iql(nn.Module):
    """The utilities themselves, one learner per agent. Source: Tan (1993)."""

    spec: EnvSpec

    def __call__(self, step: JointStep) -> Array:
        """One step -> the agents' own values `[A]`; there is no joint value."""
        return step.q_taken
