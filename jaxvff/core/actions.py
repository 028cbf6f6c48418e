"""Picking actions from utilities, available ones only."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array


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
