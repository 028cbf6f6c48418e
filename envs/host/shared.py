"""The memory that a pool and its workers share: one unlinked file, mapped by all of them.

A file without a name leaves nothing behind, however its processes end.
"""

from __future__ import annotations

import math
import mmap
from typing import NamedTuple

import numpy as np

from .game import Spec

ALIGN = 64  # bytes, a cache line


class Arrays(NamedTuple):
    """Staged episodes of E games. Slot t of an episode is `[e, t]`; L is the episode limit."""

    obs: np.ndarray  # [E, L+1, A, O] float32
    state: np.ndarray  # [E, L+1, S] float32
    avail: np.ndarray  # [E, L+1, A, U] bool
    action: np.ndarray  # [E, L+1, A] int32, written by the pool
    reward: np.ndarray  # [E, L+1] float32, of the transition t -> t+1
    active: np.ndarray  # [E] bool, written by the pool: step this game
    seed: np.ndarray  # [E] int32, written by the pool: where a game begins anew
    slot: np.ndarray  # [E] int32, the newest slot
    ended: np.ndarray  # [E] bool, the newest slot shows a final observation
    terminated: np.ndarray  # [E] bool, and the end was no truncation
    results: np.ndarray  # [E, R] float32, of the last step


class Block(NamedTuple):
    """Where an array lies in the shared memory."""

    offset: int  # bytes
    shape: tuple[int, ...]
    dtype: str


def layout(spec: Spec, n_games: int) -> tuple[dict[str, Block], int]:
    """`(the block of each field of Arrays, bytes in all)`."""
    e, t, a = n_games, spec.episode_limit + 1, spec.n_agents
    fields = {
        "obs": ((e, t, a, spec.obs_size), "float32"),
        "state": ((e, t, spec.state_size), "float32"),
        "avail": ((e, t, a, spec.n_actions), "bool"),
        "action": ((e, t, a), "int32"),
        "reward": ((e, t), "float32"),
        "active": ((e,), "bool"),
        "seed": ((e,), "int32"),
        "slot": ((e,), "int32"),
        "ended": ((e,), "bool"),
        "terminated": ((e,), "bool"),
        "results": ((e, len(spec.results)), "float32"),
    }
    blocks, offset = {}, 0
    for name, (shape, dtype) in fields.items():
        blocks[name] = Block(offset, shape, dtype)
        n_bytes = math.prod(shape) * np.dtype(dtype).itemsize  # of any size: no int64
        offset += -(-n_bytes // ALIGN) * ALIGN  # rounded up to whole cache lines
    return blocks, max(offset, ALIGN)


def arrays(spec: Spec, n_games: int, fd: int) -> Arrays:
    """The arrays in the file with descriptor `fd`, which has the size that `layout` says."""
    blocks, size = layout(spec, n_games)
    memory = mmap.mmap(fd, size)
    return Arrays(
        **{
            name: np.ndarray(block.shape, block.dtype, memory, block.offset)
            for name, block in blocks.items()
        }
    )
