"""QPLEX: a duplex dueling mixer, monotone in the advantages only."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.networks.dense import hypernetwork


class Qplex(nn.Module):
    """Q_tot = Σ_i Q'_i + Σ_i (λ_i(s, a) - 1) (Q'_i - max_b Q'_i(b)),  Q'_i = |w_i(s)| Q_i + v_i(s).

    λ_i > 0 is a sum of attention kernels, so Q_tot is largest exactly where every Q_i is. The
    advantages are not differentiated, as in the authors' code.

    Source: Wang et al. (2021), eq. 8-12.
    """

    spec: EnvSpec
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    attention_dim: int = option(64, "units of the attention networks", low=1, high=MAX_WIDTH)
    n_kernels: int = option(4, "attention kernels", low=1, high=256)

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
        joint, kernels = s + a * self.spec.n_actions, range(self.n_kernels)
        self.weight = hypernetwork(s, self.hypernet_dim, a)
        self.bias = hypernetwork(s, self.hypernet_dim, a)
        self.key = [hypernetwork(s, self.attention_dim, 1) for _ in kernels]
        self.agents = [hypernetwork(s, self.attention_dim, a) for _ in kernels]
        self.actions = [hypernetwork(joint, self.attention_dim, a) for _ in kernels]

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        weight = jnp.abs(self.weight(step.state)) + 1e-10  # > 0: IGM needs strict monotonicity
        q = weight * step.q_taken + self.bias(step.state)
        advantage = jax.lax.stop_gradient(weight * (step.q_taken - step.q_max))
        return jnp.sum(q) + advantage @ (self._attention(step) - 1.0)

    def _attention(self, step: JointStep) -> Array:
        joint = jnp.concatenate([step.state, step.action.ravel()])
        kernels = [
            (jnp.abs(key(step.state)) + 1e-10)
            * nn.sigmoid(agents(step.state))
            * nn.sigmoid(actions(joint))
            for key, agents, actions in zip(self.key, self.agents, self.actions, strict=True)
        ]
        return jnp.sum(jnp.stack(kernels), axis=0)
