"""Helpers that train a few lanes of a config, for tests."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jaxvff import sharding, train
from jaxvff.plan import plan


def start(*overrides: str) -> tuple[train.Program, train.Carry, train.Lane]:
    """The program, fresh carry and lanes of one group."""
    (group,) = plan(list(overrides))
    program = train.program(group.config, group.values[0].env, group.n_lanes)
    lane = sharding.place(group.lanes(), program.mesh)
    return program, program.init(lane), lane


def params_of(carry: train.Carry) -> Any:
    """Parameters as NumPy arrays `[K, ...]`: the carry itself is donated by the next call."""
    return jax.tree.map(np.array, carry.state.params)
