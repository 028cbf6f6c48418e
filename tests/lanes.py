"""Helpers that train a few lanes of a config, for tests."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np

from jaxvff.core.types import Env, Params
from jaxvff.runs.plan import Job, SweepValue, plan
from jaxvff.settings import config
from jaxvff.training import sharding
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program, device_program


def start(*overrides: str) -> tuple[Program, Carry, Lane]:
    """The program, fresh carry and lanes of one job."""
    (job,) = plan(list(overrides))
    return start_job(job)


def start_in(envs: list[Env], *overrides: str) -> tuple[Program, Carry, Lane]:
    """As `start`, in environments that are in no table; they differ in params alone."""
    asked = dataclasses.replace(config.load(list(overrides)), env={"kind": "test"})
    return start_job(Job([SweepValue({"env": i}, asked, env) for i, env in enumerate(envs)]))


def start_job(job: Job) -> tuple[Program, Carry, Lane]:
    """The program, fresh carry and lanes of a job on the device."""
    program = device_program(job.config, job.env, job.n_lanes)
    lane = sharding.spread(job.lanes(), program.mesh)
    return program, program.init(lane), lane


def params_of(carry: Carry) -> Params:
    """Parameters as NumPy arrays `[K, ...]`: the carry itself is donated by the next call."""
    return jax.tree.map(np.array, carry.state.learner.params)
