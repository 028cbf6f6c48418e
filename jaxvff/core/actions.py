"""Picking actions from utilities, available ones only; and what belongs to an action."""

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


def pick(values: Array, index: Array) -> Array:
    """`values[..., index]` of a few: `values[..., K]` or `[K]`, `index[...]` int -> `[...]`.

    By comparing, not by a gather: where the values lie differently in memory for each lane, a TPU
    gathers them one number after the other (docs/scale.md). Equal to the last bit, as is the
    gradient. An index that is none of 0 to K - 1 gives 0.
    """
    chosen = index[..., None] == jnp.arange(values.shape[-1])
    return jnp.sum(jnp.where(chosen, values, jnp.zeros((), values.dtype)), axis=-1)


def any_available(key: Array, avail: Array, n: int) -> Array:
    """`n` uniformly random available joint actions `[n, A]` int, of `avail[A, U]`.

    One random number an action: a categorical draws one for each of its alternatives.
    """
    count = jnp.cumsum(avail, axis=-1)
    nth = jax.random.randint(key, (n, len(avail)), 0, count[:, -1])
    return jnp.argmax(count > nth[..., None], axis=-1)
