"""Throughput, compile time and memory of the compiled training program."""

from __future__ import annotations

import time
from typing import Any

import jax
from rich.table import Table

from jaxvff import experiment, replay, sharding, train
from jaxvff.plan import Group


def measure(group: Group, seconds: float = 5.0) -> dict[str, Any]:
    """Time one group of lanes: init and compile apart from the steady state.

    Args:
      group: from jaxvff.plan.
      seconds: least length of the steady state that is timed, after a warm-up in which learning
        has started.

    Returns:
      lanes, init_s, compile_s, seed_steps_per_s, state_bytes and replay_bytes (of one lane).
    """
    with experiment.open_program(group) as program:
        return _measure(group, program, seconds)


def _measure(group: Group, program: train.Program, seconds: float) -> dict[str, Any]:
    one = group.config
    lane = sharding.place(group.lanes(), program.mesh)
    began = time.perf_counter()
    carry = jax.block_until_ready(program.init(lane))
    init_s = time.perf_counter() - began
    began = time.perf_counter()
    advance = program.compile(carry, lane)
    compile_s = time.perf_counter() - began
    sizes = {
        "state_bytes": replay.nbytes(carry.state) // group.n_lanes,
        "replay_bytes": replay.nbytes(carry.state.replay) // group.n_lanes,
    }

    def go(start: int, n: int) -> tuple[Any, float]:
        began = time.perf_counter()
        out = jax.block_until_ready(advance(carry, lane, start, start + n))
        return out, time.perf_counter() - began

    # Past the start of learning, then chunks that double until one is long enough to trust.
    done, n, elapsed = one.first_learning_iteration + 1, 16, 0.0
    carry, _ = go(0, done)
    while elapsed < seconds:
        n *= 2
        carry, elapsed = go(done, n)
        done += n
    speed = group.n_lanes * n * one.steps_per_iteration / elapsed
    return {
        "method": one.method["name"],
        "lanes": group.n_lanes,
        "init_s": init_s,
        "compile_s": compile_s,
        "seed_steps_per_s": speed,
        **sizes,
    }


def terminal(rows: list[dict[str, Any]]) -> Table:
    """The measurements as a table."""
    table = Table(title="one iteration = collect, store, sample, one gradient step")
    names = (
        "method",
        "lanes",
        "init s",
        "compile s",
        "seed-steps/s",
        "bytes/seed",
        "of them replay",
    )
    for name in names:
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            r["method"], str(r["lanes"]), f"{r['init_s']:.1f}", f"{r['compile_s']:.1f}",
            f"{r['seed_steps_per_s']:,.0f}", f"{r['state_bytes']:,}", f"{r['replay_bytes']:,}",
        )  # fmt: skip
    return table
