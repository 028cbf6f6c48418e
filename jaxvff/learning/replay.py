"""Replay of segments: flashbax's item buffers as pure functions of a state.

Nothing outside of this module knows a field of flashbax.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flashbax
import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, Tree
from jaxvff.learning.options import ReplayOptions
from jaxvff.learning.samples import Sample


class Replay(NamedTuple):
    """A ring of segments, as pure functions of its state."""

    init: Callable[[Tree], Tree]  # one stored segment -> state
    add: Callable[[Tree, Tree], Tree]  # (state, stored segments [N]) -> state
    sample: Callable[[Tree, Array], Sample]  # (state, key)
    prioritise: Callable[[Tree, Sample, Array], Tree]  # (state, sample, |TD error| [B]) -> state
    # Sampling changes priorities at most. What is stored stays outside of loops and branches
    # that learn, since XLA may copy what these return.
    split: Callable[[Tree], tuple[Tree, Tree]]  # state -> (what is stored, the rest)
    join: Callable[[Tree, Tree], Tree]  # (what is stored, the rest) -> state


def uniform(options: ReplayOptions) -> Replay:
    """Segments are drawn uniformly, with replacement."""
    buffer = flashbax.make_item_buffer(options.buffer_size, 1, options.batch_size, add_batches=True)

    def sample(state: Tree, key: Array) -> Sample:
        return Sample(buffer.sample(state, key).experience, None, None)

    def keep(state: Tree, sample: Sample, error: Array) -> Tree:
        return state

    return Replay(buffer.init, buffer.add, sample, keep, _split, _join)


def prioritised(options: ReplayOptions) -> Replay:
    """Segments are drawn with probability ~ |TD error|^a and weighted by (N P)^-b / max.

    Source: Schaul et al. (2016), §3.3 and 3.4, with segments for transitions.
    """
    buffer = flashbax.make_prioritised_item_buffer(
        options.buffer_size,
        1,
        options.batch_size,
        add_batches=True,
        priority_exponent=options.priority_exponent,
        device=jax.default_backend(),
    )

    def sample(state: Tree, key: Array) -> Sample:
        drawn = buffer.sample(state, key)
        weight = drawn.probabilities**-options.importance_exponent
        return Sample(drawn.experience, weight / jnp.max(weight), drawn.indices)

    def prioritise(state: Tree, sample: Sample, error: Array) -> Tree:
        return buffer.set_priorities(state, sample.items, error + 1e-6)  # never 0: never lost

    return Replay(buffer.init, buffer.add, sample, prioritise, _split, _join)


def _split(state: Tree) -> tuple[Tree, Tree]:
    return state.experience, state.replace(experience=None)


def _join(stored: Tree, rest: Tree) -> Tree:
    return rest.replace(experience=stored)
