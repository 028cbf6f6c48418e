"""MAVEN's loss: TD of QMIX, a latent that can be told from behaviour, and what latents return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.actions import masked
from jaxvff.core.options import option
from jaxvff.core.types import Array
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput
from jaxvff.losses.targets import Bootstrap, td_lambda
from jaxvff.losses.terms import UtilityValues
from jaxvff.mixers.maven import Maven
from jaxvff.networks.contexts import LatentPolicy


@dataclass(frozen=True)
class MavenLoss(Loss):
    """TD, less the mutual information of latent and behaviour, and the error of the bandit.

      L_t = ½ (Q_tot(s_t, a_t; z) - y_t)² - mi_weight · log q(z | σ_t, s_t)
            + ½ (R(s_t, z) - G_t)², the last one where an episode begins.

    σ_t are the softmaxes of the agents' utilities: the gradient of log q moves the utilities apart
    (and trains q), so that latents differ in what agents do. Its expectation, plus the entropy of
    the latents, is the lower bound of the mutual information that the paper maximises. G_t
    is the discounted return of the episode, with the joint value of the target network where a
    segment cuts it.

    Source: Mahajan et al. (2019), §4; learners/noise_q_learner.py of their code (commit
    be975c5) with its defaults mi_intrinsic=False, hard_qs=False and rnn_discrim=False; ½ as in
    every TD loss here, so that its mi_loss=1 is mi_weight=0.5. Left out: log q as
    an intrinsic reward, a GRU that reads the whole trajectory, the policy gradient of the latents
    (networks.contexts.LatentPolicy says why).
    """

    mi_weight: float = option(
        0.5, "weight of the mutual information of latent and behaviour", low=0, high=1e6
    )

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        y, returns = jnp.moveaxis(_targets(x, online), -1, 0)
        q_tot = terms.mix(model, x.params["mixer"], online, action=segment.action, segment=segment)
        error = terms.valid(segment, q_tot - y)

        # How badly the latent is told from what the agents are inclined to do.
        z = cast(Array, segment.context)
        behaviour = jax.nn.softmax(masked(online.q, segment.avail), axis=-1)
        logits = jax.vmap(lambda b, s: _guess(x, b, s))(behaviour, segment.state)
        surprise = -jnp.sum(z * jax.nn.log_softmax(logits), axis=-1)
        surprise = terms.valid(segment, surprise)

        # What the latent returns.
        expected = jax.vmap(lambda s: _returns(x, s))(segment.state)
        expected = jnp.sum(z * expected, axis=-1)
        surplus = jnp.where(segment.mask & segment.is_first, expected - returns, 0.0)

        total = 0.5 * error**2 + self.mi_weight * surprise + 0.5 * surplus**2
        metrics = terms.metrics(segment, error, q_tot, y) | {"latent_surprise": surprise}
        return LossOutput(total, metrics)

    def targets(self, x: LossInput) -> Array:
        """TD targets, and the returns of the bandit: `[T, 2]`."""
        return _targets(x, terms.utilities(x.model, x.params["utility"], x.segment))


def _targets(x: LossInput, online: UtilityValues) -> Array:
    """The targets of Q_tot, and returns: `[T, 2]`; shared, where that is so."""
    if x.targets is not None:
        return x.targets
    value, segment = terms.bootstrapped(x, online), x.segment
    discount = x.traced.gamma * (1.0 - segment.terminated)
    returns = td_lambda(Bootstrap(segment.reward, discount, value, segment.mask), 1.0)
    return jnp.stack([terms.returns(x, value), jax.lax.stop_gradient(returns)], axis=-1)


def _guess(x: LossInput, behaviour: Array, state: Array) -> Array:
    """Logits `[C]` of the discriminator."""
    return terms.apply_mixer(x.model, x.params["mixer"], behaviour, state, head=Maven.guess)


def _returns(x: LossInput, state: Array) -> Array:
    """What the bandit expects of each latent, `[C]`."""
    policy, params = cast(nn.Module, x.model.context), x.params["context"]
    return cast(Array, policy.apply(params, state, method=LatentPolicy.returns))
