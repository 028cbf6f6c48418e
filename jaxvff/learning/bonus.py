"""Exploration bonuses, added to the rewards of sampled segments: none, or RND.

The table is BONUSES in learning/options.py.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxvff.core.types import Array, Params, Segment, Tree
from jaxvff.learning.options import BonusOptions
from jaxvff.networks.dense import dense

CLIP = 5.0  # standard deviations of a normalised state (Burda et al., 2019, §2.4)


class Bonus(NamedTuple):
    """A bonus as pure functions; segments come in batches `[B]`, with all fields `[B, T, ...]`."""

    init: Callable[[Array, int], Tree]  # (key, state size) -> bonus state
    reward: Callable[[Tree, Segment], Array]  # -> [B, T], 0 where the mask is False
    update: Callable[[Tree, Segment, Array], Tree]  # one gradient step; (state, batch, lr)


class Moments(NamedTuple):
    """Running mean and variance of all that was seen."""

    mean: Array
    var: Array
    n: Array


class Rnd(NamedTuple):
    """The state of random network distillation."""

    params: Params  # of the predictor
    frozen: Params  # of the target, random and never trained
    opt_state: Tree
    states: Moments  # [S], of the inputs
    errors: Moments  # [], of the prediction error


class Features(nn.Module):
    """What target and predictor compute of a state."""

    dim: int

    @nn.compact
    def __call__(self, state: Array) -> Array:
        """`state[..., S]` -> `[..., dim]`."""
        x = nn.relu(dense(self.dim, state.shape[-1])(state))
        x = nn.relu(dense(self.dim, self.dim)(x))
        return dense(self.dim, self.dim)(x)


def none(options: BonusOptions) -> None:
    """No bonus, and no cost."""


def rnd(options: BonusOptions) -> Bonus:
    """Random network distillation: how badly a predictor knows the state a step leads to.

      r_int(t) = |f(s_{t+1}) - f*(s_{t+1})|² / std,

    with inputs normalised by their running mean and variance, and the error by its running standard
    deviation, so that β means the same in every game and under every reward scale.

    Args:
      options: `rnd_dim` is the width of both networks.

    Source: Burda et al. (2019); eq. 31 of the paper. Differs from Burda: the error is normalised by
    its own deviation, not by that of its discounted sum, which replayed segments do not have.
    """
    networks = _Distillation(Features(options.rnd_dim), optax.scale_by_adam())
    return Bonus(networks.init, networks.reward, networks.update)


class _Distillation(NamedTuple):
    """The static parts of RND; its methods are pure functions of an Rnd."""

    net: Features
    optimizer: optax.GradientTransformation

    def init(self, key: Array, size: int) -> Rnd:
        """Two random networks for states of `size` numbers; nothing is known of these."""
        predictor, target = jax.random.split(key)
        params = self.net.init(predictor, jnp.zeros(size))
        return Rnd(
            params=params,
            frozen=self.net.init(target, jnp.zeros(size)),
            opt_state=self.optimizer.init(params),
            states=Moments(jnp.zeros(size), jnp.ones(size), jnp.zeros(())),
            errors=Moments(jnp.zeros(()), jnp.ones(()), jnp.zeros(())),
        )

    def reward(self, bonus: Rnd, batch: Segment) -> Array:
        """The error at the state that each slot leads to, in standard deviations: `[B, T]`."""
        novelty = self._error(bonus.params, bonus, batch) / jnp.sqrt(bonus.errors.var + 1e-8)
        reached = jnp.concatenate([novelty[:, 1:], novelty[:, :1]], axis=1)
        return jax.lax.stop_gradient(jnp.where(batch.mask, reached, 0.0))

    def update(self, bonus: Rnd, batch: Segment, lr: Array) -> Rnd:
        """One gradient step of the predictor; moments of the states that transitions lead to."""
        before = jnp.concatenate([jnp.zeros_like(batch.mask[:, :1]), batch.mask[:, :-1]], axis=1)
        reached = before.astype(jnp.float32)  # [B, T]
        bonus = bonus._replace(states=_updated(bonus.states, batch.state, reached))
        loss = partial(self._loss, bonus=bonus, batch=batch, reached=reached)
        grads, errors = jax.grad(loss, has_aux=True)(bonus.params)
        steps, opt_state = self.optimizer.update(grads, bonus.opt_state)
        return bonus._replace(
            params=jax.tree.map(lambda p, u: p - lr * u, bonus.params, steps),
            opt_state=opt_state,
            errors=_updated(bonus.errors, errors, reached),
        )

    def _loss(
        self, params: Params, *, bonus: Rnd, batch: Segment, reached: Array
    ) -> tuple[Array, Array]:
        """The mean error `[]` over reached states, and all errors `[B, T]`."""
        errors = self._error(params, bonus, batch)
        return jnp.sum(reached * errors) / jnp.maximum(jnp.sum(reached), 1), errors

    def _error(self, params: Params, bonus: Rnd, batch: Segment) -> Array:
        """Mean squared distance of the predictor from the frozen network: `[B, T]`."""
        std = jnp.sqrt(bonus.states.var + 1e-8)
        x = jnp.clip((batch.state - bonus.states.mean) / std, -CLIP, CLIP)
        target = jax.lax.stop_gradient(self.net.apply(bonus.frozen, x))
        return jnp.mean((self.net.apply(params, x) - target) ** 2, axis=-1)  # type: ignore[operator]


def _updated(old: Moments, x: Array, weight: Array) -> Moments:
    """Moments after `x[B, T, ...]` with `weight[B, T]` of 0 or 1 (Chan et al., 1979)."""
    weights = weight.reshape(weight.shape + (1,) * (x.ndim - 2))
    new = jnp.sum(weight)
    mean = jnp.sum(weights * x, axis=(0, 1)) / jnp.maximum(new, 1)
    var = jnp.sum(weights * (x - mean) ** 2, axis=(0, 1)) / jnp.maximum(new, 1)
    total = jnp.maximum(old.n + new, 1)
    delta = mean - old.mean
    squares = old.var * old.n + var * new + delta**2 * old.n * new / total
    return Moments(old.mean + delta * new / total, squares / total, old.n + new)
