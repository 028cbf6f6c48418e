"""QTRAN-base: an unrestricted joint value and a state value, tied to the utilities by a loss."""

from __future__ import annotations

import itertools

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.networks.dense import dense


class Qtran(nn.Module):
    """Q_jt(s, a) from the agents' features and actions, and V(s). Source: Son et al. (2019), §4."""

    spec: EnvSpec
    hidden_dim: int  # H, of the utility networks
    embed_dim: int = option(64, "units of Q_jt and V", low=1, high=MAX_WIDTH)

    def setup(self) -> None:
        s, encoding = self.spec.state_size, self.hidden_dim + self.spec.n_actions
        self.encode = _mlp([encoding, encoding, encoding])
        self.q = _mlp([s + encoding, self.embed_dim, self.embed_dim, 1])
        self.v = _mlp([s, self.embed_dim, self.embed_dim, 1])

    def __call__(self, step: JointStep) -> Array:
        """One step -> the joint value Q_jt `[]`."""
        if self.is_initializing():
            self.state_value(step.state)
        pairs = jnp.concatenate([step.features, step.action], axis=-1)
        encoding = jnp.sum(self.encode(pairs), axis=0)
        return self.q(jnp.concatenate([step.state, encoding]))[0]

    def state_value(self, state: Array) -> Array:
        """V(s) `[]`, which makes up for partial observability in the sum of utilities."""
        return self.v(state)[0]


def _mlp(sizes: list[int]) -> nn.Sequential:
    layers: list = []
    for fan_in, features in itertools.pairwise(sizes):
        layers += [dense(features, fan_in), nn.relu]
    return nn.Sequential(layers[:-1])
