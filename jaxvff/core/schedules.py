"""Schedules over env steps."""

from __future__ import annotations

import jax.numpy as jnp

from jaxvff.core.types import Array


def linear_schedule(start: Array | float, end: Array, step: Array, steps: Array) -> Array:
    """From `start` to `end` in `steps` env steps, then constant.

    optax.linear_schedule does not take a traced length, which a sweep may vary here.

    Args:
      start: `[]`, the value at step 0.
      end: `[]`, the value from `steps` on.
      step: `[]` env steps so far.
      steps: `[]` env steps; below 1 counts as 1.

    Returns:
      The value `[]` at `step`.
    """
    progress = jnp.clip(step / jnp.maximum(steps, 1), 0.0, 1.0)
    return start + progress * (end - start)
