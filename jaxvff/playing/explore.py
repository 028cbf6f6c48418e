"""How actions are picked while experience is collected: ε-greedy, by agent or by team, or softmax.

Only available actions are picked. The table is EXPLORERS in playing/options.py.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxvff.core.actions import any_available, greedy, masked
from jaxvff.core.schedules import linear_schedule
from jaxvff.core.types import Array, Traced

# (key, q [A, U], avail [A, U], traced options, env steps []) -> actions [A]
Explorer = Callable[[Array, Array, Array, Traced, Array], Array]


def epsilon_greedy(key: Array, q: Array, avail: Array, epsilon: Array) -> Array:
    """ε-greedy over the available actions, independently for each agent.

    Args:
      key: PRNG key.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      epsilon: `[]` in [0, 1], the probability of a uniformly random available action.

    Returns:
      Actions `[A]` int.
    """
    best = jnp.arange(q.shape[-1]) == greedy(q, avail)[..., None]
    random = avail / jnp.sum(avail, axis=-1, keepdims=True)
    probs = (1 - epsilon) * best + epsilon * random
    # What distrax.Categorical(probs=probs) draws, without a second to import it: most runs are
    # ε-greedy, and need no distribution of distrax otherwise.
    return jax.random.categorical(key, jnp.log(probs / jnp.sum(probs, axis=-1, keepdims=True)))


def team_epsilon_greedy(key: Array, q: Array, avail: Array, epsilon: Array) -> Array:
    """ε-greedy over the available actions, with one coin for the whole team.

    With probability ε all agents take random actions, otherwise none does. Where n agents have to
    act together, independent coins let them meet by chance in about ε^n of the steps, and act alone
    in about ε of them; with one coin the ratio of the two does not depend on ε.

    Args:
      key: PRNG key.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      epsilon: `[]` in [0, 1], the probability of a uniformly random available joint action.

    Returns:
      Actions `[A]` int.
    """
    coin, key = jax.random.split(key)
    random = any_available(key, avail, 1)[0]
    return jnp.where(jax.random.bernoulli(coin, epsilon), random, greedy(q, avail))


def softmax(key: Array, q: Array, avail: Array, temperature: Array) -> Array:
    """Actions drawn with probability ~ exp(q / temperature) (eq. 12 of the paper).

    Args:
      key: PRNG key.
      q: utilities `[A, U]`.
      avail: `[A, U]` bool.
      temperature: `[]` > 0, in units of the utilities.

    Returns:
      Actions `[A]` int, available ones.
    """
    import distrax  # here, not above: TensorFlow Probability takes a second to import

    return distrax.Categorical(logits=masked(q / temperature, avail)).sample(seed=key)


def epsilon_greedy_explorer(
    key: Array, q: Array, avail: Array, traced: Traced, step: Array
) -> Array:
    """`epsilon_greedy` with a linear schedule of ε, as an Explorer."""
    return epsilon_greedy(key, q, avail, _epsilon(traced, step))


def team_epsilon_greedy_explorer(
    key: Array, q: Array, avail: Array, traced: Traced, step: Array
) -> Array:
    """`team_epsilon_greedy` with a linear schedule of ε, as an Explorer."""
    return team_epsilon_greedy(key, q, avail, _epsilon(traced, step))


def softmax_explorer(key: Array, q: Array, avail: Array, traced: Traced, step: Array) -> Array:
    """`softmax` with a fixed temperature, as an Explorer."""
    return softmax(key, q, avail, traced.temperature)


def _epsilon(traced: Traced, step: Array) -> Array:
    """ε at an env step."""
    return linear_schedule(traced.epsilon_start, traced.epsilon_end, step, traced.epsilon_steps)
