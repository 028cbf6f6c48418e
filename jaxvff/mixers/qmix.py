"""QMIX, and NM-QMIX: the same network with or without its monotonicity constraint."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.networks.dense import dense, hypernetwork


class Qmix(nn.Module):
    """Two mixing layers whose weights and biases are made from the state by hypernetworks (eq. 3).

    `monotonic=True` takes the absolute value of the mixing weights, so ∂Q_tot/∂Q_i >= 0: QMIX,
    Rashid et al. (2018). `monotonic=False` leaves them as they are: NM-QMIX, eq. 25 of the paper.
    """

    spec: EnvSpec
    embed_dim: int = option(32, "units of the mixing layer", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    monotonic: bool = True

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
        self.hyper_w1 = hypernetwork(s, self.hypernet_dim, a * self.embed_dim)
        self.hyper_b1 = dense(self.embed_dim, s)
        self.hyper_w2 = hypernetwork(s, self.hypernet_dim, self.embed_dim)
        self.hyper_b2 = hypernetwork(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        w1 = self.hyper_w1(step.state).reshape(self.spec.n_agents, self.embed_dim)
        b1, b2 = self.hyper_b1(step.state), self.hyper_b2(step.state)[0]
        return mix(step.q_taken, w1, b1, self.hyper_w2(step.state), b2, self.monotonic)


def mix(q: Array, w1: Array, b1: Array, w2: Array, b2: Array, monotonic: bool) -> Array:
    """The mixing layers: `q[A]`, `w1[A, E]`, `b1[E]`, `w2[E]`, `b2[]` -> Q_tot `[]`."""
    if monotonic:
        w1, w2 = jnp.abs(w1), jnp.abs(w2)
    return nn.elu(q @ w1 + b1) @ w2 + b2
