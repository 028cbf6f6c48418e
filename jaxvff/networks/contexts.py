"""Contexts: what a team draws at the start of an episode, and knows in all of it.

A context is `[C]` floats. The agents and the mixer see it in every step, and a segment keeps it.
"""

from __future__ import annotations

from typing import Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec
from jaxvff.networks.dense import dense


class Context(Protocol):
    """A flax module that draws a context; its parameters are "context" among a learner's."""

    @property
    def size(self) -> int:
        """C."""

    def __call__(self, state: Array, key: Array, *, greedy: bool) -> Array:
        """The context `[C]` of an episode.

        Args:
          state: the first one of the episode, `[S]`.
          key: PRNG key.
          greedy: whether it is what is best to play with, whatever the key; otherwise it is what
            is to be learned from.
        """


class LatentPolicy(nn.Module):
    """MAVEN's latent: one of `latents` modes, one-hot, by a softmax of the returns they bring.

      π(z | s_0) = (1 - floor) softmax(R(s_0, z) / temperature) + floor / latents

    R is a network that learns the return of each latent. Without the floor this is the policy with
    the largest E[R] + temperature · entropy: the hierarchical policy of the paper with an entropy
    bonus, for returns as they are known. It is the bandit of the authors' code. A regression may
    learn from replay, which the policy gradient of the paper may not. A greedy latent is the one
    with the largest R.

    Source: Mahajan et al. (2019), §4; modules/bandits/returns_bandit.py of their code (commit
    be975c5), with its floor of 0.1. Differs from it: returns are in the unit of
    `return_scale`, and the temperature takes the place of its factor on the output; 64
    units instead of 256; at evaluation it draws latents uniformly.
    """

    spec: EnvSpec
    latents: int = option(16, "modes that a team may draw for an episode", low=2, high=MAX_WIDTH)
    latent_dim: int = option(
        64, "units of the network that knows what a mode returns", low=1, high=MAX_WIDTH
    )
    latent_temperature: float = option(
        0.3,
        "of the softmax over the returns of the modes",
        unit="learned returns, of about return_scale",
        low=1e-3,
        high=1e6,
    )
    latent_floor: float = option(
        0.1, "share of the episodes whose mode is drawn uniformly", low=0, high=1
    )

    def setup(self) -> None:
        d = self.latent_dim
        self.net = nn.Sequential(
            [
                dense(d, self.spec.state_size),
                nn.relu,
                dense(d, d),
                nn.relu,
                dense(self.latents, d),
            ]
        )

    @property
    def size(self) -> int:
        """C."""
        return self.latents

    def __call__(self, state: Array, key: Array, *, greedy: bool) -> Array:
        """A latent, one-hot `[latents]`."""
        returns = self.returns(state)
        if greedy:
            return jax.nn.one_hot(jnp.argmax(returns), self.latents)
        probs = jax.nn.softmax(returns / self.latent_temperature)
        probs = (1 - self.latent_floor) * probs + self.latent_floor / self.latents
        return jax.nn.one_hot(jax.random.categorical(key, jnp.log(probs)), self.latents)

    def returns(self, state: Array) -> Array:
        """R: the return that each latent brings from a first state `[S]` on: `[latents]`."""
        return self.net(state)
