"""Replay of segments: flashbax's item buffer, with a codec between segments and storage."""

from __future__ import annotations

import flashbax
import jax
import jax.numpy as jnp
from flashbax.buffers.trajectory_buffer import TrajectoryBuffer

from jaxvff.types import Array, Codec, EnvSpec, Segment


def make(capacity: int, batch_size: int) -> TrajectoryBuffer:
    """A ring of `capacity` segments; a sample is `batch_size` of them, with replacement."""
    return flashbax.make_item_buffer(capacity, 1, batch_size, add_batches=True)


def plain_codec(spec: EnvSpec) -> Codec:
    """Every field as it is, actions in the smallest unsigned integer that holds them."""
    dtype = jnp.uint8 if spec.n_actions <= 256 else jnp.uint16

    def pack(segment: Segment) -> Segment:
        return segment._replace(action=segment.action.astype(dtype))

    def unpack(stored: Segment, params: object) -> Segment:
        return stored._replace(action=stored.action.astype(jnp.int32))

    return Codec(pack, unpack)


def blank_segment(spec: EnvSpec, n_slots: int) -> Segment:
    """A segment of padding, which says the shapes and types of all others."""
    a, t = spec.n_agents, n_slots
    return Segment(
        obs=jnp.zeros((t, a, spec.obs_size)),
        state=jnp.zeros((t, spec.state_size)),
        avail=jnp.zeros((t, a, spec.n_actions), bool),
        action=jnp.zeros((t, a), jnp.int32),
        reward=jnp.zeros(t),
        terminated=jnp.zeros(t, bool),
        is_first=jnp.zeros(t, bool),
        mask=jnp.zeros(t, bool),
    )


def without_padding(segment: Segment) -> Segment:
    """The segment with every slot that no transition touches set to harmless values.

    A `where` after a network keeps the padding out of a loss but not out of its gradient, where
    0 · NaN is NaN; so the padding has to go before the network.
    """
    used = segment.mask | jnp.concatenate([jnp.zeros(1, bool), segment.mask[:-1]])

    def clean(x: Array, fill: float) -> Array:
        return jnp.where(used.reshape(used.shape + (1,) * (x.ndim - 1)), x, fill)

    return segment._replace(
        obs=clean(segment.obs, 0),
        state=clean(segment.state, 0),
        avail=clean(segment.avail, True),
        action=clean(segment.action, 0),
        reward=jnp.where(segment.mask, segment.reward, 0),
        terminated=segment.terminated & segment.mask,
        is_first=segment.is_first | ~used,
    )


def nbytes(stored: object) -> int:
    """Bytes that one stored segment takes."""
    return sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
