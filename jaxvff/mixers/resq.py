"""ResQ: a monotone main function and a residual one that only lowers what is not greedy."""

from __future__ import annotations

import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, JointStep
from jaxvff.mixers.wqmix import CentralFF, Wqmix


class Resq(Wqmix):
    """QMIX as the main function Q_tot, a residual function Q_r <= 0, and a central Q̂*.

      Q_jt(s, a) = Q_tot(s, a) + w_r(s, a) Q_r(s, a)

    w_r is 0 at the greedy joint action and 1 elsewhere (losses/resq.py). So Q_jt is largest where
    Q_tot is, whatever Q_r <= 0 is, and agents that are greedy by their utilities are greedy by
    Q_jt. Q_r has utilities of its own, "residual", and the architecture of Q̂*.

    Source: Shen et al. (2022), and its authors' code (xmu-rl-3dv/ResQ, commit b4c5adf).
    """

    central_dim: int = option(
        128, "units of the central and of the residual network", low=1, high=MAX_WIDTH
    )

    def setup(self) -> None:
        super().setup()
        self.residual_ff = CentralFF(self.spec, self.central_dim)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the main function Q_tot `[]`, which acts."""
        if self.is_initializing():
            self.residual(step)
        return super().__call__(step)

    def residual(self, step: JointStep) -> Array:
        """One step, with the residual utilities as q_taken -> Q_r `[]`, never above 0."""
        return -jnp.abs(self.residual_ff(step))
