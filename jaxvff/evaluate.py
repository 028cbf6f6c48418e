"""Greedy evaluation: whole episodes only."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxvff import explore, rollout
from jaxvff.nets import Utility
from jaxvff.rollout import Player
from jaxvff.types import Array, Env, Metrics, Params


def greedy_player(env: Env, utility: Utility, params: Params, env_params: object) -> Player:
    """Agents that take their best available action."""
    return Player(env, utility, lambda key, q, avail: explore.greedy(q, avail), params, env_params)


def greedy_episodes(player: Player, key: Array, n_episodes: int) -> Metrics:
    """Means over `n_episodes` whole episodes, each from its own start.

    One episode per environment: whichever episodes end first in a fixed number of steps would be
    the short ones.

    Args:
      player: from greedy_player.
      key: PRNG key.
      n_episodes: played side by side.

    Returns:
      Scalars test_return, test_length, and a test_<name> for each result of the environment.
    """
    plays = jax.vmap(lambda k: rollout.episode(player, k))(jax.random.split(key, n_episodes))
    ends = {"return": plays.return_, "length": plays.length, **plays.results}
    return {f"test_{name}": jnp.mean(x, dtype=jnp.float32) for name, x in ends.items()}
