"""QMIX, and NM-QMIX: the same network with or without its monotonicity constraint."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.networks.dense import dense, hypernetwork, uniform

# Of NmQmix.positive_start: how far the state moves the first mixing weights, as a factor on the
# usual initialisation. Ours; with 1 as with 0.3 no seed of 12 collapsed on SMAX's 3m.
POSITIVE_START_SPREAD = 0.3


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
        self.hyper_w1 = self._mixing_weights(a * self.embed_dim)
        self.hyper_b1 = dense(self.embed_dim, s)
        self.hyper_w2 = self._mixing_weights(self.embed_dim)
        self.hyper_b2 = hypernetwork(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        w1 = self.hyper_w1(step.state).reshape(self.spec.n_agents, self.embed_dim)
        b1, b2 = self.hyper_b1(step.state), self.hyper_b2(step.state)[0]
        return mix(step.q_taken, w1, b1, self.hyper_w2(step.state), b2, self.monotonic)

    @nn.nowrap
    def _mixing_weights(self, features: int) -> nn.Sequential:
        """The hypernetwork that makes `features` mixing weights from the state."""
        return hypernetwork(self.spec.state_size, self.hypernet_dim, features)


class NmQmix(Qmix):
    """NM-QMIX: QMIX's network without the constraint, so ∂Q_tot/∂Q_i may have any sign (eq. 25).

    Where the usual initialisation puts that sign is chance, and so is the order that the utilities
    learn (docs/theory.md, Symmetry). With `positive_start` the biases behind the mixing weights
    start at embed_dim^-½ and their kernels are small. So every weight starts near embed_dim^-½, and
    ∂Q_tot/∂Q_i = Σ_e w1[i, e] ELU'(.) w2[e] near the mean of ELU', which is positive. Training
    is free to change the sign afterwards.
    """

    monotonic: bool = False
    positive_start: bool = option(
        False, "initial mixing weights that let Q_tot rise with every utility; free afterwards"
    )

    @nn.nowrap
    def _mixing_weights(self, features: int) -> nn.Sequential:
        made = super()._mixing_weights(features)
        if not self.positive_start:
            return made
        *layers, _ = made.layers
        last = nn.Dense(
            features,
            kernel_init=uniform(POSITIVE_START_SPREAD * self.hypernet_dim**-0.5),
            bias_init=nn.initializers.constant(self.embed_dim**-0.5),
        )
        return nn.Sequential([*layers, last])


def mix(q: Array, w1: Array, b1: Array, w2: Array, b2: Array, monotonic: bool) -> Array:
    """The mixing layers: `q[A]`, `w1[A, E]`, `b1[E]`, `w2[E]`, `b2[]` -> Q_tot `[]`."""
    if monotonic:
        w1, w2 = jnp.abs(w1), jnp.abs(w2)
    return nn.elu(q @ w1 + b1) @ w2 + b2
