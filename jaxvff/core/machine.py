"""What this machine has, and how lanes share it."""

from __future__ import annotations

import os


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def largest_divisor(n: int, limit: int) -> int:
    """The largest divisor of n that is at most `limit`: n lanes share so many of `limit` cores."""
    return max(d for d in range(1, min(n, limit) + 1) if n % d == 0)
