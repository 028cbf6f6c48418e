"""Bytes of arrays, and how they are shown."""

from __future__ import annotations

import math


def nbytes(tree: object) -> int:
    """Bytes of a pytree's arrays, or of their shapes."""
    import jax  # here, not above: `readable` needs none of it

    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def readable(n_bytes: float) -> str:
    """1.3 MB."""
    power = 0
    while n_bytes >= 999.5 and power < 4:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
