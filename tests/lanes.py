"""Helpers that train a few lanes of a config, for tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from jaxvff import config, sharding, train
from jaxvff.plan import Group, Value, plan
from jaxvff.types import Env


def start(*overrides: str) -> tuple[train.Program, train.Carry, train.Lane]:
    """The program, fresh carry and lanes of one group."""
    (group,) = plan(list(overrides))
    return _start(group)


def start_in(envs: list[Env], *overrides: str) -> tuple[train.Program, train.Carry, train.Lane]:
    """As `start`, in environments that are in no table; they differ in params alone."""
    one = dataclasses.replace(config.load(list(overrides)), env={"kind": "test"})
    return _start(Group([Value({"env": i}, one, env) for i, env in enumerate(envs)]))


def _start(group: Group) -> tuple[train.Program, train.Carry, train.Lane]:
    program = train.program(group.config, group.values[0].env, group.n_lanes)
    lane = sharding.place(group.lanes(), program.mesh)
    return program, program.init(lane), lane


def params_of(carry: train.Carry) -> Any:
    """Parameters as NumPy arrays `[K, ...]`: the carry itself is donated by the next call."""
    return jax.tree.map(np.array, carry.state.params)
