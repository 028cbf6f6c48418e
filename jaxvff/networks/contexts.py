"""Contexts: what a team draws at the start of an episode, and knows in all of it.

A context is `[C]` floats. The agents and the mixer see it in every step, and a segment keeps it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec
from jaxvff.networks.dense import dense

REWARDS = 2  # what UneVEn takes a reward apart into: its positive and its negative part
TARGET = (1.0, 1.0)  # the weights of the task that is asked for: both parts count as they are


class Context(Protocol):
    """A flax module that draws a context; its parameters are "context" among a learner's."""

    # A greedy one is the same whatever the state, so that an agent can know it beforehand.
    greedy_is_fixed: ClassVar[bool]

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

    greedy_is_fixed: ClassVar[bool] = False
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


class RelatedTasks(nn.Module):
    """UneVEn's tasks: the target, `tasks` related ones, and which of them the team acts for.

    The rewards of a task are w · φ. φ has two entries, the positive and the negative part of the
    environment's reward, and the target task is w = (1, 1). A related task forgives: its w is
    (1, p) with p from a normal distribution around 1, cut off below 0. So where p is small,
    agents learn to risk a penalty for what coordination earns.

    What the team acts for is drawn for an episode: `uniform`, one of all tasks; `target`, the
    target task; `greedy`, the best of all of them in each step. A greedy context (at evaluation)
    has the target task alone, and so the team plays the policy of the target task.

    Source: Gupta et al. (2021), §4, its action-selection schemes and its tasks around the target.
    Differs from it: an environment tells rewards, not features, so that what a step earns and
    what it costs are one number where both happen at once; the weight of what is earned does not
    vary, since only the ratio of both changes a policy; the task is drawn for an episode.
    """

    greedy_is_fixed: ClassVar[bool] = True
    spec: EnvSpec
    tasks: int = option(5, "related tasks that are drawn for an episode", low=1, high=1000)
    task_spread: float = option(
        1.0, "standard deviation of the weight of penalties in related tasks", low=0, high=1000
    )
    act_for: str = option(
        "uniform",
        "what is acted for while experience is collected: uniform: a task, drawn for the episode; "
        "target: the target task; greedy: of all tasks the one that promises most",
        names=("uniform", "target", "greedy"),
    )

    @property
    def size(self) -> int:
        """C."""
        return (self.tasks + 1) * (REWARDS + 1)

    def __call__(self, state: Array, key: Array, *, greedy: bool) -> Array:
        """The tasks `[K, 2]`, the target first, then for each whether it is acted for."""
        n_tasks, target = self.tasks + 1, jnp.array(TARGET)
        chosen = jnp.array(0)
        tasks = jnp.tile(target, (n_tasks, 1))
        if not greedy:
            task_key, chosen_key = jax.random.split(key)
            forgives = 1 + self.task_spread * jax.random.normal(task_key, (self.tasks,))
            tasks = tasks.at[1:, 1].set(jnp.maximum(forgives, 0))
            if self.act_for == "uniform":
                chosen = jax.random.randint(chosen_key, (), 0, n_tasks)
        acts_for = jax.nn.one_hot(chosen, n_tasks)
        if self.act_for == "greedy" and not greedy:
            acts_for = jnp.ones(n_tasks)
        return jnp.concatenate([tasks.ravel(), acts_for])


def split_tasks(context: Array) -> tuple[Array, Array]:
    """What RelatedTasks drew.

    Args:
      context: `[..., C]`.

    Returns:
      The weights of K tasks `[..., K, 2]`, the target first, and whether each of them is acted for
      `[..., K]`, 0 or 1.
    """
    n_tasks = context.shape[-1] // (REWARDS + 1)
    tasks = context[..., : n_tasks * REWARDS].reshape(*context.shape[:-1], n_tasks, REWARDS)
    return tasks, context[..., n_tasks * REWARDS :]
