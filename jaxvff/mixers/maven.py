"""MAVEN: QMIX that knows the latent, and beside it what guesses the latent of the behaviour."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.mixers.qmix import Qmix
from jaxvff.networks.dense import dense


class Maven(nn.Module):
    """QMIX, whose hypernetworks see the state and the latent z; and the discriminator q(z | σ, s).

    Source: Mahajan et al. (2019), §4 and figure 2; modules/mixers/noise_mix.py and the Discrim
    of learners/noise_q_learner.py in their code (commit be975c5). Differs from it: two layers
    make the mixing weights, as in every QMIX here.
    """

    spec: EnvSpec
    context_size: int  # C, the latents
    embed_dim: int = option(32, "units of the mixing layer", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    discriminator_dim: int = option(32, "units of the discriminator", low=1, high=MAX_WIDTH)
    discriminator_layers: int = option(1, "hidden layers of the discriminator", low=1, high=100)

    def setup(self) -> None:
        s, c = self.spec.state_size, self.context_size
        self.qmix = Qmix(self.spec._replace(state_size=s + c), self.embed_dim, self.hypernet_dim)
        size = self.spec.n_agents * self.spec.n_actions + s
        layers: list[Callable] = []
        for _ in range(self.discriminator_layers):
            layers += [dense(self.discriminator_dim, size), nn.relu]
            size = self.discriminator_dim
        self.discriminator = nn.Sequential([*layers, dense(c, size)])

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        if self.is_initializing():
            self.guess(step.action, step.state)
        seen = jnp.concatenate([step.state, cast(Array, step.context)])
        return self.qmix(step._replace(state=seen))

    def guess(self, behaviour: Array, state: Array) -> Array:
        """What latent a step looks like.

        Args:
          behaviour: σ, the probabilities of the actions of each agent, `[A, U]`.
          state: `[S]`.

        Returns:
          Logits of q(z | σ, s), `[C]`.
        """
        return self.discriminator(jnp.concatenate([behaviour.ravel(), state]))
