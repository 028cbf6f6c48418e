"""A gated recurrent unit over a sequence, with a gradient that is written out.

Only what depends on the memory is in the loops over slots: a product of the memory with its kernel
forwards, and one with its transpose backwards. What the inputs give the gates, and the gradients of
the kernel, are one product each for all slots. By automatic differentiation every slot would add to
the latter in turn.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.scan import scan
from jaxvff.core.types import Array


class Gates(NamedTuple):
    """The gates of a slot, each `[..., H]`."""

    reset: Array
    update: Array
    candidate: Array
    recalled: Array  # the memory's share of the candidate, before the reset


class Run(NamedTuple):
    """What the loop over slots came to, of which no gradient is known yet; each `[T, ..., H]`."""

    held: Array  # the memory before each slot, zeros where it restarts
    gates: Gates
    memories: Array  # the memory after each slot


def remember(kernel: Array, bias: Array, given: Array, is_first: Array, before: Array) -> Array:
    """What a gated recurrent unit remembers after each slot.

      r, u = σ(given_r + W_r m), σ(given_u + W_u m)
      c = tanh(given_c + r (W_c m + b))
      m' = (1 - u) c + u m

    Args:
      kernel: W, `[H, 3H]`: reset r, update u and candidate c side by side.
      bias: b, `[H]`.
      given: the share of the inputs, `[T, ..., 3H]`.
      is_first: `[T]` bool, where the memory restarts from zeros.
      before: the memory before slot 0, `[..., H]`.

    Returns:
      The memory after each slot, `[T, ..., H]`.

    Source: Cho et al. (2014), as PyTorch and flax have it.
    """
    bias = jnp.pad(bias, (2 * len(bias), 0))  # of r, u and c
    stays = ~jnp.expand_dims(is_first, tuple(range(1, given.ndim)))
    fixed = jax.lax.stop_gradient
    run = _run(*map(fixed, (kernel, bias, given, stays, before)))
    # Only its gradient is used, a single product for all slots: XLA leaves out the value.
    recalled = run.held @ kernel + bias
    return _differentiable(given, recalled, before, run, stays, fixed(kernel))


def _run(kernel: Array, bias: Array, given: Array, stays: Array, before: Array) -> Run:
    def slot(memory: Array, x: tuple[list[Array], Array]) -> tuple[Array, tuple[Array, Gates]]:
        (to_reset, to_update, to_candidate), stays = x
        memory = memory * stays
        reset, update, recalled = jnp.split(memory @ kernel + bias, 3, axis=-1)
        reset, update = jax.nn.sigmoid(to_reset + reset), jax.nn.sigmoid(to_update + update)
        candidate = jnp.tanh(to_candidate + reset * recalled)
        memory = candidate + update * (memory - candidate)
        return memory, (memory, Gates(reset, update, candidate, recalled))

    memories, gates = scan(slot, before, (jnp.split(given, 3, axis=-1), stays))[1]
    return Run(jnp.concatenate([before[None], memories[:-1]]) * stays, gates, memories)


@jax.custom_vjp
def _differentiable(
    given: Array, recalled: Array, before: Array, run: Run, stays: Array, kernel: Array
) -> Array:
    """The memories of a run, with their gradient.

    Args:
      given: what the inputs give the gates, `[T, ..., 3H]`.
      recalled: what the memory gives them, `[T, ..., 3H]`.
      before: as that of `remember`.
      run: of these; without a gradient, as all that follows.
      stays: `[T, ..., 1]` bool, where the memory does not restart.
      kernel: as that of `remember`.
    """
    return run.memories


Saved = tuple[Run, Array, Array]


def _forwards(
    given: Array, recalled: Array, before: Array, run: Run, stays: Array, kernel: Array
) -> tuple[Array, Saved]:
    return run.memories, (run, stays, kernel)


def _backwards(saved: Saved, gradient: Array) -> tuple[Array, Array, Array, None, None, None]:
    """The gradients of what the gates are given, from that of the memories `[T, ..., H]`."""
    run, stays, kernel = saved
    transposed = kernel.T  # once, not in each slot

    def slot(
        later: Array, x: tuple[Array, Array, Gates, Array]
    ) -> tuple[Array, tuple[Array, Array]]:
        gradient, held, gate, stays = x
        total = gradient + later
        candidate = total * (1 - gate.update) * (1 - gate.candidate**2)
        through_reset = candidate * gate.reset
        reset = through_reset * gate.recalled * (1 - gate.reset)
        update = total * (held - gate.candidate) * gate.update * (1 - gate.update)
        recalled = jnp.concatenate([reset, update, through_reset], axis=-1)
        return (total * gate.update + recalled @ transposed) * stays, (recalled, candidate)

    xs = (gradient, run.held, run.gates, stays)
    before, (recalled, candidate) = scan(slot, jnp.zeros_like(gradient[0]), xs, reverse=True)
    shared = recalled[..., : -candidate.shape[-1]]  # by r and u, which add what they are given
    given = jnp.concatenate([shared, candidate], axis=-1)
    return given, recalled, before, None, None, None


_differentiable.defvjp(_forwards, _backwards)
