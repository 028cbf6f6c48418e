"""A gated recurrent unit over a sequence, with a gradient that is written out.

Only what depends on the memory is in the loops over slots: a product of the memory with its kernel
forwards, and one with its transpose backwards. All else is one product for all slots: the inputs'
share of the gates, the gates of the backward pass, and the gradients of the kernel. By automatic
differentiation every slot would add to them in turn.
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


def gates(kernel: Array, bias: Array, given: Array, memory: Array) -> Gates:
    """The gates, from what the input gives them `[..., 3H]` and from the memory `[..., H]`."""
    from_input = jnp.split(given, 3, axis=-1)
    from_memory = jnp.split(memory @ kernel, 3, axis=-1)
    reset, update = (
        jax.nn.sigmoid(x + h) for x, h in zip(from_input[:2], from_memory[:2], strict=True)
    )
    recalled = from_memory[2] + bias
    return Gates(reset, update, jnp.tanh(from_input[2] + reset * recalled), recalled)


@jax.custom_vjp
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

    def slot(memory: Array, x: tuple[Array, Array]) -> tuple[Array, Array]:
        given, is_first = x
        memory = jnp.where(is_first, 0, memory)
        gate = gates(kernel, bias, given, memory)
        memory = gate.candidate + gate.update * (memory - gate.candidate)
        return memory, memory

    return scan(slot, before, (given, is_first))[1]


Saved = tuple[Array, Array, Array, Array, Array, Array]


def _forwards(
    kernel: Array, bias: Array, given: Array, is_first: Array, before: Array
) -> tuple[Array, Saved]:
    memories = remember(kernel, bias, given, is_first, before)
    return memories, (kernel, bias, given, is_first, before, memories)


def _backwards(saved: Saved, gradient: Array) -> tuple[Array, Array, Array, None, Array]:
    """The gradients of `remember`'s arguments, from that of its result `[T, ..., H]`."""
    kernel, bias, given, is_first, before, memories = saved
    stays = ~jnp.expand_dims(is_first, tuple(range(1, memories.ndim)))
    held = jnp.concatenate([before[None], memories[:-1]]) * stays
    gate = gates(kernel, bias, given, held)

    # A gate's derivative is the memory's times a factor that all slots know beforehand.
    candidate = (1 - gate.update) * (1 - gate.candidate**2)
    reset = candidate * gate.recalled * gate.reset * (1 - gate.reset)
    update = (held - gate.candidate) * gate.update * (1 - gate.update)
    factors = jnp.concatenate([reset, update, candidate * gate.reset], axis=-1)

    def slot(later: Array, x: tuple[Array, ...]) -> tuple[Array, Array]:
        gradient, factors, update, stays = x
        total = gradient + later
        through_gates = (jnp.tile(total, 3) * factors) @ kernel.T
        return (total * update + through_gates) * stays, total

    xs = (gradient, factors, gate.update, stays)
    of_before, totals = scan(slot, jnp.zeros_like(before), xs, reverse=True)
    of_products = jnp.tile(totals, 3) * factors
    of_candidate = totals * candidate
    every = tuple(range(held.ndim - 1))
    return (
        jnp.tensordot(held, of_products, (every, every)),
        jnp.sum(of_candidate * gate.reset, axis=every),
        jnp.concatenate([*jnp.split(of_products, 3, axis=-1)[:2], of_candidate], axis=-1),
        None,
        of_before,
    )


remember.defvjp(_forwards, _backwards)
