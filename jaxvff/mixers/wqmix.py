"""Weighted QMIX: a QMIX whose errors are weighted by an unrestricted central value."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.mixers.qmix import Qmix
from jaxvff.networks.dense import dense, hypernetwork


class CentralFF(nn.Module):
    """Q̂*(s, a): a feed-forward network of the state and central utilities, plus V(s)."""

    spec: EnvSpec
    central_dim: int = 256

    def setup(self) -> None:
        s, d = self.spec.state_size, self.central_dim
        hidden: list = [dense(d, s + self.spec.n_agents), nn.relu, dense(d, d), nn.relu]
        self.net = nn.Sequential([*hidden, dense(d, d), nn.relu, dense(1, d)])
        self.v = hypernetwork(s, d, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step, with the central utilities as q_taken -> Q̂* `[]`."""
        x = jnp.concatenate([step.state, step.q_taken])
        return self.net(x)[0] + self.v(step.state)[0]


class Wqmix(nn.Module):
    """QMIX beside a central Q̂*. Source: Rashid et al. (2020), §4."""

    spec: EnvSpec
    embed_dim: int = option(32, "units of the mixing layer", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    central_dim: int = option(256, "units of the central network", low=1, high=MAX_WIDTH)

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
