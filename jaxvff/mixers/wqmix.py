"""Weighted QMIX: a QMIX whose errors are weighted by an unrestricted central value."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.mixers.qmix import Qmix, hypernet
from jaxvff.nets import linear
from jaxvff.types import Array, EnvSpec, JointStep


class CentralFF(nn.Module):
    """Q̂*(s, a): a feed-forward network of the state and central utilities, plus V(s)."""

    spec: EnvSpec
    central_dim: int = 256

    def setup(self) -> None:
        s, d = self.spec.state_size, self.central_dim
        hidden: list = [linear(d, s + self.spec.n_agents), nn.relu, linear(d, d), nn.relu]
        self.net = nn.Sequential([*hidden, linear(d, d), nn.relu, linear(1, d)])
        self.v = hypernet(s, d, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step, with the central utilities as q_taken -> Q̂* `[]`."""
        x = jnp.concatenate([step.state, step.q_taken])
        return self.net(x)[0] + self.v(step.state)[0]


class Wqmix(nn.Module):
    """QMIX beside a central Q̂*. Source: Rashid et al. (2020), §4."""

    spec: EnvSpec
    embed_dim: int = 32
    hypernet_dim: int = 64
    central_dim: int = 256

    def setup(self) -> None:
        self.qmix = Qmix(self.spec, self.embed_dim, self.hypernet_dim)
        self.central_ff = CentralFF(self.spec, self.central_dim)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the monotone Q_tot `[]`, which acts."""
        if self.is_initializing():
            self.central(step)
        return self.qmix(step)

    def central(self, step: JointStep) -> Array:
        """One step, with the central utilities as q_taken -> Q̂* `[]`, which judges."""
        return self.central_ff(step)
