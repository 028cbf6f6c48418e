"""How actions are picked from utilities: greedy, ε-greedy, softmax; available actions only."""

from __future__ import annotations

from collections.abc import Callable

import distrax
import jax
import jax.numpy as jnp

from jaxvff.types import Array, Hyper


def masked(q: Array, avail: Array) -> Array:
    """`q[..., U]` with -inf where `avail[..., U]` is False."""
    return jnp.where(avail, q, -jnp.inf)  # -inf, not -1e10: survives any reward scale


def greedy(q: Array, avail: Array) -> Array:
    """The available action with the largest utility: `q[..., U]` -> `[...]` int."""
    return jnp.argmax(masked(q, avail), axis=-1)


def any_available(key: Array, avail: Array, n: int) -> Array:
    """`n` uniformly random available joint actions `[n, A]` int, of `avail[A, U]`.

    One random number an action: a categorical draws one for each of its alternatives.
    """
    count = jnp.cumsum(avail, axis=-1)
    nth = jax.random.randint(key, (n, len(avail)), 0, count[:, -1])
    return jnp.argmax(count > nth[..., None], axis=-1)


def linear(start: Array | float, end: Array, step: Array, steps: Array) -> Array:
    """A schedule: from `start` to `end` in `steps` env steps, then constant (all traced)."""
    progress = jnp.clip(step / jnp.maximum(steps, 1), 0.0, 1.0)
    return start + progress * (end - start)


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
    return distrax.Categorical(probs=probs).sample(seed=key)


def softmax(key: Array, q: Array, avail: Array, temperature: Array) -> Array:
    """Actions `[A]` ~ exp(q / temperature) over the available ones (eq. 12 of the paper)."""
    return distrax.Categorical(logits=masked(q / temperature, avail)).sample(seed=key)


def _epsilon_greedy(key: Array, q: Array, avail: Array, hyper: Hyper, step: Array) -> Array:
    epsilon = linear(hyper.epsilon_start, hyper.epsilon_end, step, hyper.epsilon_steps)
    return epsilon_greedy(key, q, avail, epsilon)


def _softmax(key: Array, q: Array, avail: Array, hyper: Hyper, step: Array) -> Array:
    return softmax(key, q, avail, hyper.temperature)


Explorer = Callable[[Array, Array, Array, Hyper, Array], Array]
EXPLORERS: dict[str, Explorer] = {"epsilon_greedy": _epsilon_greedy, "softmax": _softmax}
