"""Greedy evaluation: whole episodes only."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvff import explore, rollout
from jaxvff.nets import Utility
from jaxvff.types import Array, Env, Metrics


def greedy_episodes(
    env: Env, utility: Utility, params: Any, env_params: Any, key: Array, n_envs: int, n_slots: int
) -> Metrics:
    """Mean return and length of the whole episodes that greedy play finishes.

    Args:
      env: the environment.
      utility: the utility networks.
      params: parameters of the utility networks.
      env_params: the environment's traced parameters.
      key: PRNG key.
      n_envs: environments played side by side.
      n_slots: slots per environment; at least episode_limit + 1, to finish one episode each.

    Returns:
      Scalars test_return and test_length (NaN if no episode ended) and test_episodes.
    """

    def act(key: Array, q: Array, avail: Array) -> Array:
        return explore.greedy(q, avail)

    def play(key: Array) -> Any:
        return rollout.on_device(env, utility, act, params, env_params, key, n_slots)[1]

    episodes = jax.vmap(play)(jax.random.split(key, n_envs))
    n = jnp.sum(episodes.ended)

    def mean(x: Array) -> Array:
        return jnp.sum(jnp.where(episodes.ended, x, 0)) / n

    return {
        "test_return": mean(episodes.return_),
        "test_length": mean(episodes.length),
        "test_episodes": n,
    }
