"""Time our training program in its parts, as benchmarks/_jaxmarl_peer.py times JaxMARL's.

  python benchmarks/_jaxvff_side.py --updates 20 --learn env=smax/3m method=qmix seeds=1 ...

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import jax
import numpy as np

from jaxvff.core import machine
from jaxvff.runs.plan import plan
from jaxvff.training import lanes, program, sharding


class Clock:
    """Adds up wall-clock and CPU seconds by name."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def run(self, name: str, f: Any, *args: Any) -> Any:
        """`f(*args)` when it is done; its seconds are added to `<name>_s` and `<name>_cpu_s`."""
        start, start_cpu = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(f(*args))
        spent = (time.perf_counter() - start, time.process_time() - start_cpu)
        for clock, seconds in zip(("s", "cpu_s"), spent, strict=True):
            key = f"{name}_{clock}"
            self.times[key] = self.times.get(key, 0.0) + seconds
        return out


def measure(overrides: list[str], updates: int, learn: bool) -> dict[str, Any]:
    """The times of one group of lanes.

    Args:
      overrides: as for `jaxvff train`.
      updates: iterations that are timed, after as many that warm up.
      learn: with the learner; otherwise collect and store only.
    """
    (group,) = plan(overrides)
    one, clock = group.config, Clock()
    program = program.program(one, group.values[0].env, group.n_lanes)
    lane = sharding.place(group.lanes(), program.mesh)

    def compiled(f: Any, *args: Any) -> Any:
        lowered = clock.run("lower", f.lower, *args)
        return clock.run("compile", lowered.compile)

    init = compiled(program.init, lane)
    carry = clock.run("setup", init, lane)
    advance = compiled(program.advance, carry, lane, 0, 1)
    # The number of an iteration decides whether it learns: from the first one on, or not before
    # `first`. So every call starts from 0 again.
    first = one.first_learning_iteration
    if learn != (first == 0):
        raise SystemExit(f"learn_start={one.learn_start} does not fit --learn={learn}")

    def go(carry: lanes.Carry) -> lanes.Carry:
        left = updates
        while left:
            n = left if learn else min(left, first)
            carry, left = advance(carry, lane, 0, n), left - n
        return carry

    def counts(carry: lanes.Carry) -> tuple[int, int]:
        learned = float(np.asarray(carry.totals["learned"])[0])  # iterations
        return int(np.asarray(carry.state.env_steps).sum()), round(learned) * one.updates

    # Sizes first: `advance` takes over the memory of the carry.
    parameters = sum(x.size for x in jax.tree.leaves(carry.state.params)) // group.n_lanes
    stored = jax.tree.leaves(carry.state.replay.experience)
    size = sum(x.nbytes for x in stored) / group.n_lanes
    del stored
    carry = clock.run("warm_up", go, carry)
    steps_before, learned_before = counts(carry)
    carry = clock.run("second_run", go, carry)
    steps_after, learned_after = counts(carry)
    times = clock.times
    for name in ("s", "cpu_s"):
        times[f"first_run_{name}"] = times[f"setup_{name}"] + times.pop(f"warm_up_{name}")
        times[f"steady_{name}"] = times.pop(f"second_run_{name}") / updates
    return {
        "seeds": group.n_lanes,
        "updates": updates,
        "grad_steps": learned_after - learned_before,  # of one seed
        "env_steps": (steps_after - steps_before) / group.n_lanes,  # of one seed
        "slots": updates * one.n_envs * one.segment_length,  # of one seed
        "parameters": parameters,
        "replay_bytes_per_seed": size,
        "replay_slots_per_seed": one.buffer_size * one.segment_length,
        "cores": machine.cores(),
        **times,
    }


def main() -> None:
    """Measure, and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", type=int, default=20, help="iterations that are timed")
    parser.add_argument("--learn", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("overrides", nargs="+", help="as for jaxvff train")
    args = parser.parse_args()
    print(json.dumps(measure(args.overrides, args.updates, args.learn), allow_nan=False))


if __name__ == "__main__":
    main()
