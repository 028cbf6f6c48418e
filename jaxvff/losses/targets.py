"""TD targets: what is bootstrapped (a BootstrapRule) times how far rewards are summed (a Return).

The tables of both are in losses/options.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.scan import scan
from jaxvff.core.types import Array, Segment


class Bootstrap(NamedTuple):
    """What a return is made of, for the T slots of one segment."""

    reward: Array  # [T] of the transition t -> t+1, env units
    discount: Array  # [T] γ, and 0 where that transition terminates
    value: Array  # [T] bootstrap value of slot t; the last slot of an episode included
    mask: Array  # [T] bool, t -> t+1 is a real transition


def td_lambda(x: Bootstrap, lambda_: float | Array) -> Array:
    """TD(λ) targets, for all episodes of one segment.

      G_t = r_t + γ_t [(1 - λ) v_{t+1} + λ G_{t+1}]

    At the last transition of an episode G_{t+1} is v_{t+1}: a terminated one has γ_t = 0, and a
    truncated one bootstraps on its final observation. Slots without a transition return 0.

    Args:
      x: arrays `[T]`.
      lambda_: trace decay in [0, 1]; 0 is the one-step target.

    Returns:
      Targets `[T]`, in reward units.

    Raises:
      AssertionError: ranks or lengths differ.

    Source: Sutton & Barto (2018), §12.1; eq. 30 of the paper.
    """
    chex.assert_rank(list(x), 1)
    chex.assert_equal_shape(list(x))
    v_next, goes_on = _shift(x.value), _shift(x.mask)

    def back(g_next: Array, slot: tuple[Array, ...]) -> tuple[Array, Array]:
        reward, discount, v, goes_on, mask = slot
        tail = jnp.where(goes_on, g_next, v)
        g = jnp.where(mask, reward + discount * ((1 - lambda_) * v + lambda_ * tail), 0.0)
        return g, g

    slots = (x.reward, x.discount, v_next, goes_on, x.mask)
    return scan(back, jnp.zeros_like(x.value[0]), slots, reverse=True)[1]


def n_step(x: Bootstrap, n: int) -> Array:
    """n-step targets, for all episodes of one segment.

      G_t = r_t + γ_t r_{t+1} + ... + γ_t ... γ_{t+m-1} v_{t+m}

    with m = n, or fewer at the end of an episode.

    Args:
      x: arrays `[T]`.
      n: number of rewards, >= 1.

    Returns:
      Targets `[T]`, in reward units; 0 in slots without a transition.

    Raises:
      AssertionError: ranks or lengths differ, or n < 1.

    Source: Sutton & Barto (2018), eq. 7.1.
    """
    chex.assert_rank(list(x), 1)
    chex.assert_equal_shape(list(x))
    chex.assert_scalar_positive(n)
    g = x.value
    # After i rounds: the i-step target, or the value where no transition is.
    for _ in range(min(n, len(x.mask))):
        g = jnp.where(x.mask, x.reward + x.discount * _shift(g), x.value)
    return jnp.where(x.mask, g, 0.0)


def _shift(x: Array) -> Array:
    """`x[t+1]` at t, and 0 at the last slot, which has no transition."""
    return jnp.concatenate([x[1:], jnp.zeros_like(x[:1])])


def sarsa(q_online: Array, q_target: Array, segment: Segment) -> Array:
    """The joint action really taken (eq. 29)."""
    return segment.action


def greedy_by_target(q_online: Array, q_target: Array, segment: Segment) -> Array:
    """Each agent's greedy action by the target network (eq. 27)."""
    return greedy(q_target, segment.avail)


def greedy_by_online(q_online: Array, q_target: Array, segment: Segment) -> Array:
    """Each agent's greedy action by the online network: double Q-learning."""
    return greedy(q_online, segment.avail)


def searched(q_online: Array, q_target: Array, segment: Segment) -> Array:
    """The better of the greedy joint action and the one that a search found, by the joint value.

    A loss that searches knows the latter and chooses; this is the former.
    """
    return greedy_by_online(q_online, q_target, segment)


# (q_online[T, A, U], q_target[T, A, U], segment) -> the joint action to bootstrap on, [T, A] int
BootstrapRule = Callable[[Array, Array, Segment], Array]
# (what a return is made of, λ, n) -> targets [T]
Return = Callable[[Bootstrap, Array, int], Array]


def td_lambda_return(x: Bootstrap, lambda_: Array, n: int) -> Array:
    """`td_lambda` as a Return."""
    return td_lambda(x, lambda_)


def n_step_return(x: Bootstrap, lambda_: Array, n: int) -> Array:
    """`n_step` as a Return."""
    return n_step(x, n)


def one_step_return(x: Bootstrap, lambda_: Array, n: int) -> Array:
    """`n_step` with a single reward as a Return."""
    return n_step(x, 1)
