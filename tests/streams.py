"""Random segments: several episodes back to back, with padding that holds garbage."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import EnvSpec, Segment


def spans(segment: Segment) -> list[tuple[int, int]]:
    """`(first, last)` slot of every episode; the last one holds its final observation."""
    is_first, mask = np.asarray(segment.is_first), np.asarray(segment.mask)
    found = []
    for first in np.flatnonzero(is_first & mask):
        last = first
        while mask[last]:
            last += 1
        found.append((int(first), int(last)))
    return found


def random_segment(
    rng: np.random.Generator, spec: EnvSpec, n_slots: int, garbage: float | None = None
) -> Segment:
    """Episodes of random lengths, some terminated, some truncated, the last maybe cut.

    With `garbage`, every float of the padding holds it.
    """
    is_first, mask, terminated = (np.zeros(n_slots, bool) for _ in range(3))
    t = 0
    while t < n_slots - 1 and rng.random() < 0.85:
        length = int(rng.integers(1, 5))
        stop = min(t + length, n_slots - 1)
        is_first[t], mask[t:stop] = True, True
        cut = t + length > n_slots - 1
        terminated[stop - 1] = not cut and rng.random() < 0.6
        t = stop + 1
    used = mask | np.append(False, mask[:-1])
    a, u = spec.n_agents, spec.n_actions
    avail = rng.random((n_slots, a, u)) < 0.6
    avail[np.arange(n_slots)[:, None], np.arange(a), rng.integers(0, u, (n_slots, a))] = True
    action = np.argmax(avail + 0.5 * rng.random(avail.shape), axis=-1)

    def filled(shape: tuple[int, ...], rows: np.ndarray) -> np.ndarray:
        x = rng.normal(size=shape).astype(np.float32)
        if garbage is not None:
            x[~rows] = garbage
        return x

    if garbage is not None:
        avail[~used] = False
        terminated |= ~used & (rng.random(n_slots) < 0.5)
    return jax.tree.map(
        jnp.asarray,
        Segment(
            obs=filled((n_slots, a, spec.obs_size), used),
            state=filled((n_slots, spec.state_size), used),
            avail=avail,
            action=action,
            reward=filled((n_slots,), mask),
            terminated=terminated,
            is_first=is_first,
            mask=mask,
        ),
    )


def drawn(segment: Segment, context: nn.Module | None, garbage: float | None = None) -> Segment:
    """The segment with what a method draws for each of its episodes; None: nothing.

    With `garbage`, the context of the padding holds it.
    """
    if context is None:
        return segment
    key = jax.random.key(5)
    params = context.init(key, segment.state[0], key, greedy=True)
    keys = jax.random.split(key, len(segment.mask))[jnp.cumsum(segment.is_first)]
    nothing = jnp.zeros(segment.state.shape[1])
    draw = lambda k: context.apply(params, nothing, k, greedy=False)
    values = jax.vmap(draw)(keys)
    if garbage is not None:
        used = segment.mask | jnp.append(False, segment.mask[:-1])
        values = jnp.where(used[:, None], values, garbage)
    return segment._replace(context=values)
