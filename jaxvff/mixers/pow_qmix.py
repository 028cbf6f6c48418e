"""POW-QMIX: weighted QMIX whose weights come from a recogniser of promising joint actions."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, JointStep
from jaxvff.mixers.wqmix import Wqmix
from jaxvff.networks.dense import dense


class PowQmix(Wqmix):
    """QMIX that acts, a central Q̂*, and a recogniser Q_r of potentially optimal joint actions.

      Q_r(s, a) = Σ_i λ_i(s, a) (Q_i - max_b Q_i(b)) + V(s),  λ_i = Σ_e |W_1[i, e]| |w_2[e]| >= 0

    W_1 and w_2 are made from the state and the joint action, so Q_r need not be monotone in the
    utilities; still it is largest where every Q_i is. The utilities are not differentiated: Q_r
    learns about them and does not shape them.

    Source: Huang et al. (2024), arXiv:2405.08036, and its authors' code
    (tiev-tongji/potentially-optimal-joint-actions-recognition-marl, commit 10a56e9).
    """

    central_dim: int = option(64, "units of the central network", low=1, high=MAX_WIDTH)
    recogniser_dim: int = option(
        128, "units of the networks that make the recogniser's weights and V", low=1, high=MAX_WIDTH
    )
    recogniser_embed_dim: int = option(
        64, "units between the recogniser's two layers of weights", low=1, high=MAX_WIDTH
    )

    def setup(self) -> None:
        super().setup()
        s, a, e = self.spec.state_size, self.spec.n_agents, self.recogniser_embed_dim
        joint = s + a * self.spec.n_actions
        self.recogniser_w1 = self._three_layers(joint, a * e)
        self.recogniser_w2 = self._three_layers(joint, e)
        self.recogniser_v = self._three_layers(s, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the monotone Q_tot `[]`, which acts."""
        if self.is_initializing():
            self.advantage(step)
            self.state_value(step.state)
        return super().__call__(step)

    def advantage(self, step: JointStep) -> Array:
        """One step -> Q_r less Q_r of the greedy joint action `[]`, never above 0."""
        joint = jnp.concatenate([step.state, step.action.ravel()])
        w1 = jnp.abs(self.recogniser_w1(joint)).reshape(self.spec.n_agents, -1)
        w2 = jnp.abs(self.recogniser_w2(joint))
        return jax.lax.stop_gradient(step.q_taken - step.q_max) @ w1 @ w2

    def state_value(self, state: Array) -> Array:
        """V(s) `[]`, which is Q_r of the greedy joint action."""
        return self.recogniser_v(state)[0]

    @nn.nowrap
    def _three_layers(self, fan_in: int, features: int) -> nn.Sequential:
        d = self.recogniser_dim
        hidden: list = [dense(d, fan_in), nn.relu, dense(d, d), nn.relu]
        return nn.Sequential([*hidden, dense(features, d)])
