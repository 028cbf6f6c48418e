"""The loss of a sampled batch, averaged over slots, and its gradient, which is made in parts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, EnvParams, Metrics, Params, Segment, Traced, Tree
from jaxvff.learning.learner import Parts
from jaxvff.learning.samples import Sample
from jaxvff.losses.contract import Evaluated, LossInput, LossOutput
from jaxvff.losses.terms import IN_REWARD_UNITS


class BatchInput(NamedTuple):
    """What the loss of a batch depends on."""

    params: Params  # online
    target_params: Params
    sample: Sample  # of Stored segments, B
    unit: Array  # [] env units, what rewards are divided by
    extra: Array | None  # [B, T], added to those rewards; None: nothing
    targets: Array | None  # [B, T, ...] of Loss.targets; None: they are made now
    counts: Array | None  # [B, T] bool, slots that are learned from; None: all transitions
    memory: Tree  # of the method's SegmentMemory
    key: Array  # PRNG key
    env_params: EnvParams
    traced: Traced


class BatchOutput(NamedTuple):
    """What a batch came to, beside its loss."""

    metrics: Metrics  # [] each, means over the valid slots
    error: Array  # mean |TD error| of each segment, in learned units, for priorities
    n_valid: Array  # [] slots that are averaged over
    evaluated: Evaluated | None  # for the method's SegmentMemory; None of a batch in parts


def loss_and_gradient(parts: Parts, x: BatchInput) -> tuple[tuple[Array, BatchOutput], Params]:
    """`batch_loss` and its gradient with respect to `params`, in parts of the batch on a CPU.

    What the backward pass needs of a whole batch does not fit the caches of a CPU's core. A method
    that remembers segments takes the batch as a whole, and so do games whose segments are merged.

    Args:
      parts: as that of `batch_loss`.
      x: as that of `batch_loss`.
    """

    def whole(x: BatchInput) -> tuple[tuple[Array, BatchOutput], Params]:
        def loss(params: Params) -> tuple[Array, BatchOutput]:
            return batch_loss(parts, x._replace(params=params))

        return jax.value_and_grad(loss, has_aux=True)(x.params)

    batch = (x.sample, x.extra, x.targets, x.counts)
    n_parts = _n_parts(parts, x.sample)
    if n_parts == 1:
        return whole(x)

    def part(batch: Tree) -> tuple[Tree, Array, Array]:
        sample, extra, targets, counts = batch
        (loss, out), gradient = whole(
            x._replace(sample=sample, extra=extra, targets=targets, counts=counts)
        )
        return (loss, out.metrics, gradient), out.error, out.n_valid

    split = jax.tree.map(lambda z: z.reshape(n_parts, -1, *z.shape[1:]), batch)
    means, error, n_valid = jax.lax.map(part, split)
    total = jnp.sum(n_valid)
    share = n_valid / jnp.maximum(total, 1)
    loss, metrics, gradient = jax.tree.map(lambda z: jnp.tensordot(share, z, 1), means)
    return (loss, BatchOutput(metrics, error.reshape(-1), total, None)), gradient


def _n_parts(parts: Parts, sample: Sample) -> int:
    """How many parts of equal size a batch is divided into; 1: none."""
    remembers = jax.tree.leaves(sample.stored.row)
    if parts.slots_at_once is None or remembers or parts.codec.merge is not None:
        return 1
    n_segments = len(jax.tree.leaves(sample.stored)[0])
    at_once = max(parts.slots_at_once // parts.n_slots, 1)
    return next(n for n in range(-(-n_segments // at_once), n_segments + 1) if n_segments % n == 0)


def batch_loss(parts: Parts, x: BatchInput) -> tuple[Array, BatchOutput]:
    """The loss of a batch, averaged over its valid slots.

    Args:
      parts: networks, the loss of a segment, codec, and what the method remembers of segments.
      x: parameters and the batch.

    Returns:
      The loss `[]`, and what else came out.
    """
    # Equal samples of a small game are merged: `copies[M]` says how many each of them stands for.
    stored, weight = x.sample.stored, x.sample.weight
    packed, n_sampled = stored.packed, len(jax.tree.leaves(stored)[0])
    copies = jnp.ones(n_sampled) if weight is None else weight
    example = jnp.arange(n_sampled)
    plain = weight is None and x.extra is None and x.targets is None and x.counts is None
    if plain and parts.codec.merge is not None:
        packed, copies, example = parts.codec.merge(packed, x.env_params)

    # The loss of each of them.
    Inputs = tuple[Tree, Array | None, Array | None, Array | None]

    def segment_loss(inputs: Inputs, recalled: Tree) -> tuple[Array, LossOutput]:
        packed, extra, targets, counts = inputs
        segment = parts.codec.unpack(packed, x.env_params)
        segment = learned_from(segment, x.unit, extra)
        given = LossInput(
            model=parts.model,
            params=x.params,
            target_params=x.target_params,
            segment=segment,
            traced=x.traced,
            recalled=recalled,
            targets=targets,
        )
        out = parts.loss(given)
        if counts is None:
            return segment.mask, out
        per_slot, metrics = jax.tree.map(
            lambda values: jnp.where(counts, values, 0), (out.per_slot, out.metrics)
        )
        return segment.mask & counts, out._replace(per_slot=per_slot, metrics=metrics)

    rows = jax.tree.map(lambda row: row[example], stored.row)
    recalled = parts.memory.recall(x.memory, rows, x.key)
    mask, out = parts.memory.over_batch(
        segment_loss, (packed, x.extra, x.targets, x.counts), recalled
    )

    # Weights lower what a segment adds; they do not shrink what it is divided by (PER, §3.4).
    n_valid = jnp.sum((copies if weight is None else 1) * mask.T)

    def mean(values: Array) -> Array:
        return jnp.sum(copies[:, None] * values) / jnp.maximum(n_valid, 1)

    error = jnp.sum(out.metrics["td_error_abs"], axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)
    evaluated = Evaluated(out.found, stored.row, example, copies, mean)
    metrics = jax.tree.map(mean, out.metrics)
    metrics |= {name: x.unit * metrics[name] for name in IN_REWARD_UNITS if name in metrics}
    return mean(out.per_slot), BatchOutput(metrics, error, n_valid, evaluated)


def learned_from(segment: Segment, unit: Array, extra: Array | None) -> Segment:
    """A segment with the rewards that values are learned from.

    Args:
      segment: with rewards `[..., T]` in env units.
      unit: `[]` env units, what they are divided by.
      extra: `[..., T]`, added to what comes out; None: nothing.
    """
    reward = segment.reward / unit
    return segment._replace(reward=reward if extra is None else reward + extra)
