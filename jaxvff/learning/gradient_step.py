"""One gradient step of a lane: clipped, scheduled, and none where a number is not finite."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff.core.schedules import linear_schedule
from jaxvff.core.types import Array, Metrics, Params, Tree
from jaxvff.learning.batch_loss import BatchInput, BatchOutput, loss_and_gradient
from jaxvff.learning.learner import LearnInput, Parts


class Step(NamedTuple):
    """What a gradient step came to."""

    params: Params
    opt_state: Tree
    running: Array  # [] bool, as before, and loss and gradient are finite
    batch: BatchOutput
    memory: Tree  # the next state of the method's SegmentMemory
    metrics: Metrics  # loss, grad_norm, and "learned", which counts


def gradient_step(
    parts: Parts,
    optimizer: optax.GradientTransformation,
    given: BatchInput,
    opt_state: Tree,
    *,
    running: Array,
    x: LearnInput,
) -> Step:
    """Follow the gradient of a batch's loss once; a lane that stopped keeps its last parameters.

    Args:
      parts: networks, losses, codec.
      optimizer: without its learning rate.
      given: the batch, and the parameters that are moved.
      opt_state: of the optimizer.
      running: `[]` bool, the lane has not stopped.
      x: of this iteration, for the learning rate.
    """
    params, memory = given.params, given.memory
    (loss, batch), grads = loss_and_gradient(parts, given)
    if batch.evaluated is not None:
        memory = parts.memory.update(memory, batch.evaluated)
    norm = optax.tree.norm(grads)
    steps, new_opt_state = optimizer.update(grads, opt_state, params)
    decay = linear_schedule(1.0, x.traced.lr_final, x.env_steps, x.traced.lr_steps)
    lr = x.traced.lr * decay
    new_params = jax.tree.map(lambda p, u: p - lr * u, params, steps)
    running = running & jnp.isfinite(loss) & jnp.isfinite(norm)
    new_params, new_opt_state = keep_unless(
        running, (new_params, new_opt_state), (params, opt_state)
    )
    # "learned" counts: what is summed over iterations is divided by it.
    metrics = {"loss": loss, "grad_norm": norm, "learned": jnp.ones(())}
    return Step(new_params, new_opt_state, running, batch, memory, metrics)


def keep_unless(running: Array, new: Tree, old: Tree) -> Tree:
    """The new tree, or the old one for a lane that stopped."""
    return jax.tree.map(lambda a, b: jnp.where(running, a, b), new, old)
