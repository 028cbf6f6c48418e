"""Replay of segments: flashbax's item buffers, with a codec between segments and storage."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from jaxvff.types import Array, Codec, EnvSpec, Segment


class Sample(NamedTuple):
    """A batch of stored segments."""

    stored: Any  # leaves [B, ...], for the codec
    weight: Array | None  # [B] importance weights in (0, 1]; None: all 1
    items: Array | None  # [B] where they are, for `prioritise`


class Replay(NamedTuple):
    """A ring of segments, as pure functions of its state."""

    init: Callable[[Any], Any]  # one stored segment -> state
    add: Callable[[Any, Any], Any]  # (state, stored [N]) -> state
    sample: Callable[[Any, Array], Sample]  # (state, key)
    prioritise: Callable[[Any, Sample, Array], Any]  # (state, sample, |TD error| [B]) -> state


def uniform(capacity: int, batch_size: int, exponents: tuple[float, float]) -> Replay:
    """Samples are drawn uniformly, with replacement."""
    buffer = flashbax.make_item_buffer(capacity, 1, batch_size, add_batches=True)

    def sample(state: Any, key: Array) -> Sample:
        return Sample(buffer.sample(state, key).experience, None, None)

    return Replay(buffer.init, buffer.add, sample, lambda state, sample, error: state)


def prioritised(capacity: int, batch_size: int, exponents: tuple[float, float]) -> Replay:
    """Samples are drawn with probability ~ |TD error|^a and weighted by (N P)^-b / max.

    Source: Schaul et al. (2016), §3.3 and 3.4, with segments for transitions.
    """
    of_priority, of_importance = exponents
    buffer = flashbax.make_prioritised_item_buffer(
        capacity, 1, batch_size, add_batches=True, priority_exponent=of_priority,
        device=jax.default_backend(),
    )  # fmt: skip

    def sample(state: Any, key: Array) -> Sample:
        drawn = buffer.sample(state, key)
        weight = drawn.probabilities**-of_importance
        return Sample(drawn.experience, weight / jnp.max(weight), drawn.indices)

    def prioritise(state: Any, sample: Sample, error: Array) -> Any:
        return buffer.set_priorities(state, sample.items, error + 1e-6)  # never 0: never lost

    return Replay(buffer.init, buffer.add, sample, prioritise)


# (capacity in segments, batch size, (priority exponent, importance exponent)) -> Replay
REPLAYS: dict[str, Callable[[int, int, tuple[float, float]], Replay]] = {
    "uniform": uniform,
    "prioritised": prioritised,
}


RECENT = 64  # segments


class Elites(NamedTuple):
    """The best joint action known to every slot in replay, in a ring as long as the replay's."""

    action: Array  # [capacity, T, A]
    recent: Array  # [RECENT, T, A], what searches found in the update before
    n_added: Array  # [] int, segments
    drift: Array  # [] running mean of how far a joint value is from the target network's

    def add(self, action: Array) -> tuple[Elites, Array]:
        """Begin with the actions that were taken, `[N, T, A]`; also the places, `[N]` int."""
        place = (self.n_added + jnp.arange(len(action))) % len(self.action)
        ring = self.action.at[place].set(action.astype(self.action.dtype))
        return self._replace(action=ring, n_added=self.n_added + len(action)), place

    def improve(self, place: Array, action: Array, searched: Array, drift: Array) -> Elites:
        """Write `action[M, T, A]` to the places `[M]`; one beyond the ring is nobody's.

        Also remember the rows `searched`, at least one, as recent.
        """
        action = action.astype(self.action.dtype)
        return self._replace(
            action=self.action.at[place].set(action, mode="drop"),
            recent=action[searched[jnp.arange(RECENT) % len(searched)]],
            drift=0.99 * self.drift + 0.01 * drift,
        )


def no_elites(spec: EnvSpec, capacity: int, n_slots: int, key: Array) -> Elites:
    """Elites of an empty replay; random ones are recent, so that no action's number is special."""
    shape = (n_slots, spec.n_agents)
    recent = jax.random.randint(key, (RECENT, *shape), 0, spec.n_actions)
    return Elites(
        action=jnp.zeros((capacity, *shape), spec.action_dtype),
        recent=recent.astype(spec.action_dtype),
        n_added=jnp.array(0, jnp.int32),
        drift=jnp.array(0.0),
    )


class Placed(NamedTuple):
    """A stored segment that knows the place of its elites."""

    stored: Any
    place: Array  # [] int


def plain_codec(spec: EnvSpec) -> Codec:
    """Every field as it is, actions in the smallest unsigned integer that holds them."""

    def pack(segment: Segment) -> Segment:
        return segment._replace(action=segment.action.astype(spec.action_dtype))

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


def nbytes(tree: object) -> int:
    """Bytes of a pytree's arrays, or of their shapes."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))
