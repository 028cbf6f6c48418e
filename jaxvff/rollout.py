"""Collecting segments on the device: one scan over slots, whole episodes back to back."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvff.nets import Utility
from jaxvff.scan import scan
from jaxvff.types import Array, Env, Episodes, Params, Segment

Act = Callable[[Array, Array, Array], Array]  # (key, q[A, U], avail[A, U]) -> action[A]


def on_device(
    env: Env,
    utility: Utility,
    act: Act,
    params: Params,
    env_params: object,
    key: Array,
    n_slots: int,
) -> tuple[Segment, Episodes]:
    """One segment from one environment, which starts at a reset.

    The environment is stepped without auto-reset, so that the final observation of an episode
    gets a slot of its own. An episode that the segment's end cuts counts as truncated there.

    Args:
      env: pure functions.
      utility: the utility networks.
      act: the policy, from utilities to actions.
      params: parameters of the utility networks.
      env_params: the environment's traced parameters.
      key: PRNG key.
      n_slots: length T of the segment.

    Returns:
      The Segment, and the Episodes that it holds.
    """
    reset_key, scan_key = jax.random.split(key)
    zero = jnp.zeros(env.spec.n_agents, jnp.int32)

    def slot(carry: tuple, x: tuple[Array, Array]) -> tuple[tuple, tuple[Segment, Episodes]]:
        (state, now, hidden, last_action, is_first, return_, length), (key, is_last) = carry, x
        act_key, step_key, reset_key = jax.random.split(key, 3)
        inputs = utility.inputs(now.obs, last_action, is_first)
        hidden, q, _ = utility.step(params, hidden, inputs)
        action = act(act_key, q, now.avail).astype(jnp.int32)
        ended = now.terminated | now.truncated  # this slot shows a final observation
        next_state, after = env.step(step_key, state, action, env_params)
        mask = ~ended & ~is_last
        seen = Segment(
            obs=now.obs,
            state=now.state,
            avail=now.avail,
            action=action,
            reward=jnp.where(mask, after.reward, 0.0),
            terminated=after.terminated & mask,
            is_first=is_first,
            mask=mask,
        )
        on = (next_state, after, hidden, action, ended, return_ + after.reward, length + 1)
        again = (*env.reset(reset_key, env_params), utility.initial_carry(), zero, ended, 0.0, 0)
        carry = jax.tree.map(lambda a, b: jnp.where(ended, a, b), again, on)
        return carry, (seen, Episodes(ended, return_, length))

    first = env.reset(reset_key, env_params)
    start = (*first, utility.initial_carry(), zero, jnp.array(True), jnp.zeros(()), jnp.array(0))
    xs = (jax.random.split(scan_key, n_slots), jnp.arange(n_slots) == n_slots - 1)
    return scan(slot, start, xs)[1]
