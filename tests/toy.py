"""A deterministic multi-step environment, as a pure Env and as a slow loop."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import Env, EnvSpec, Outcome, View

SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=3, state_size=2, episode_limit=5)


def rules(count, total, action):
    """(count, total, action) -> (count, total, reward, terminated, truncated).

    Terminates when the sum of actions reaches 6; is truncated after 5 steps.
    """
    total = total + action[0] + action[1]
    count = count + 1
    terminated = total >= 6
    return count, total, 1.0 * action[0] - 0.5 * total, terminated, (count >= 5) & ~terminated


def _observe(state, params) -> View:
    count, total = state
    now = jnp.stack([jnp.asarray(count, jnp.float32), jnp.asarray(total, jnp.float32)])
    agents = jnp.arange(2.0)[:, None]
    avail = jnp.ones((2, 3), bool).at[1, 2].set(count % 2 == 0)  # agent 1: no 2 at odd steps
    return View(jnp.concatenate([jnp.broadcast_to(now, (2, 2)), agents], 1), now, avail)


def make() -> Env:
    def reset(key, params):
        return jnp.array(0), jnp.array(0)

    def step(key, state, action, params):
        count, total, reward, terminated, truncated = rules(*state, action)
        won = jnp.asarray(terminated, jnp.float32)
        outcome = Outcome(
            jnp.asarray(reward, jnp.float32), terminated, truncated, {"win_rate": won}
        )
        return (count, total), outcome

    return Env(SPEC, (), reset, step, _observe, "toy")


def slow(actions: np.ndarray) -> list[dict]:
    """What every slot of a segment must hold, given the actions that were picked in it."""
    slots, count, total, ended, first = [], 0, 0, False, True
    for t, action in enumerate(actions):
        last = t == len(actions) - 1
        slot = {"count": count, "total": total, "is_first": first, "ended": ended}
        slot |= {"mask": not ended and not last, "reward": 0.0, "terminated": False}
        if ended:
            count, total, ended, first = 0, 0, False, True
        else:
            count, total, reward, terminated, truncated = rules(count, total, action)
            ended, first = bool(terminated or truncated), False
            if slot["mask"]:
                slot |= {"reward": float(reward), "terminated": bool(terminated)}
        slots.append(slot)
    return slots
