"""Segments: blank ones, cleaned ones, and how they are stored as they are."""

from __future__ import annotations

import jax.numpy as jnp

from jaxvff.core.types import Array, Codec, EnvParams, EnvSpec, Segment, Tree


def plain_codec(spec: EnvSpec) -> Codec:
    """Every field as it is, actions in the smallest unsigned integer that holds them."""

    def pack(segment: Segment) -> Segment:
        return segment._replace(action=segment.action.astype(spec.action_dtype))

    def unpack(stored: Segment, params: object) -> Segment:
        return stored._replace(action=stored.action.astype(jnp.int32))

    return Codec(pack, unpack)


def with_context(codec: Codec) -> Codec:
    """The codec of an environment, which knows no context, and the context as it is beside it.

    Nothing is merged: segments that an environment would call equal may differ in their context.
    """

    def pack(segment: Segment) -> tuple[Tree, Array | None]:
        return codec.pack(segment), segment.context

    def unpack(stored: tuple[Tree, Array | None], params: EnvParams) -> Segment:
        packed, context = stored
        return codec.unpack(packed, params)._replace(context=context)

    return Codec(pack, unpack)


def cleaned(codec: Codec) -> Codec:
    """A codec whose segments come back `without_padding`."""

    def unpack(stored: Tree, params: EnvParams) -> Segment:
        return without_padding(codec.unpack(stored, params))

    return codec._replace(unpack=unpack)


def blank_segment(spec: EnvSpec, n_slots: int, context_size: int = 0) -> Segment:
    """A segment of padding, which says the shapes and types of all others.

    Args:
      spec: of the environment.
      n_slots: T.
      context_size: C, what the method draws for an episode; 0: nothing.
    """
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
        context=jnp.zeros((t, context_size)) if context_size else None,
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
        context=None if segment.context is None else clean(segment.context, 0),
    )
