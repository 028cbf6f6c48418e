"""lax.scan, unrolled where the sequence is short."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax

from jaxvff.core.types import Tree

Carry = TypeVar("Carry")

SHORT = 4  # slots; a loop of so few costs more than its body, as in one-step games


def scan(
    f: Callable[[Carry, Tree], tuple[Carry, Tree]], init: Carry, xs: Tree, *, reverse: bool = False
) -> tuple[Carry, Tree]:
    """`jax.lax.scan(f, init, xs)` over the leading axis [T] of `xs`; no loop where T <= SHORT."""
    n_slots = len(jax.tree.leaves(xs)[0])
    unroll = n_slots if n_slots <= SHORT else 1
    return jax.lax.scan(f, init, xs, reverse=reverse, unroll=unroll)
