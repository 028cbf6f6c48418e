"""Time the parts of jaxvff's training program, as _jaxmarl_peer.py times those of JaxMARL.

  python benchmarks/_jaxvff_side.py --updates 20 --learn env=smax/3m method=qmix seeds=1 ...

The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar, cast

import jax
import numpy as np
from _common import Record

from jaxvff.core import machine
from jaxvff.core.types import Env
from jaxvff.learning.learner import Learner
from jaxvff.runs.plan import Job, plan
from jaxvff.settings.config import Config
from jaxvff.training import sharding
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Advance, device_program

Output = TypeVar("Output")


class Clock:
    """Adds up wall-clock and CPU seconds by name."""

    def __init__(self) -> None:
        self.times: dict[str, float] = {}

    def run(self, name: str, f: Callable[..., Output], *args: object) -> Output:
        """Call `f` and wait for its result; add its seconds to `<name>_s` and `<name>_cpu_s`."""
        start, start_cpu = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(f(*args))
        spent = (time.perf_counter() - start, time.process_time() - start_cpu)
        for clock, seconds in zip(("s", "cpu_s"), spent, strict=True):
            key = f"{name}_{clock}"
            self.times[key] = self.times.get(key, 0.0) + seconds
        return out

    def compile(self, f: Callable[..., Output], *args: object) -> Callable[..., Output]:
        """Compile a jitted function ahead of time; its seconds count as `lower` and `compile`."""
        lowered = self.run("lower", cast(jax.stages.Wrapped, f).lower, *args)
        return self.run("compile", lowered.compile)


class Work(NamedTuple):
    """The iterations that are timed."""

    updates: int  # iterations
    learn: bool  # False: they collect and store, and take no gradient step
    first_learning: int  # the number of the first iteration that learns

    def run(self, advance: Advance, carry: Carry, lane: Lane) -> Carry:
        """Run all iterations.

        An iteration learns if its number is at least `first_learning`. So that all of them learn,
        or none of them does, the numbers start from 0 again with each call of `advance`.
        """
        left = self.updates
        while left:
            n = left if self.learn else min(left, self.first_learning)
            carry, left = advance(carry, lane, 0, n), left - n
        return carry


def measure(overrides: list[str], updates: int, learn: bool) -> Record:
    """Time the job that `overrides` ask for.

    Args:
      overrides: as for `jaxvff train`; they have to give a single job, played on the device.
      updates: iterations that are timed, after as many that warm up.
      learn: with the learner; otherwise collect and store only.

    Raises:
      SystemExit: `learn_start` contradicts `learn`.
    """
    (job,) = plan(overrides)
    assert isinstance(job.env, Env)
    clock, program = Clock(), device_program(job.config, job.env, job.n_lanes)
    lane = sharding.spread(job.lanes(), program.mesh)
    work = Work(updates, learn, program.learner.first_iteration)
    if learn != (work.first_learning == 0):
        raise SystemExit(f"learning from iteration {work.first_learning} does not fit {learn=}")

    # Compile, initialise, and note the sizes: `advance` takes over the memory of the carry.
    carry = clock.run("setup", clock.compile(program.init, lane), lane)
    advance = clock.compile(program.advance, carry, lane, 0, 1)
    sizes = per_seed_sizes(job, program.learner, carry)
    sizes["program_bytes_per_seed"] = (
        program_bytes(cast(jax.stages.Compiled, advance)) / job.n_lanes
    )

    # Warm up, then time the same iterations again.
    carry = clock.run("warm_up", work.run, advance, carry, lane)
    steps_before, learned_before = counts(job, carry)
    carry = clock.run("second_run", work.run, advance, carry, lane)
    steps_after, learned_after = counts(job, carry)

    times = clock.times
    for name in ("s", "cpu_s"):
        times[f"first_run_{name}"] = times[f"setup_{name}"] + times.pop(f"warm_up_{name}")
        times[f"steady_{name}"] = times.pop(f"second_run_{name}") / updates
    return {
        "seeds": job.n_lanes,
        "updates": updates,
        "grad_steps": learned_after - learned_before,  # of one seed
        "env_steps": (steps_after - steps_before) / job.n_lanes,  # of one seed
        "slots": updates * job.config.n_envs * job.config.segment_length,  # of one seed
        **sizes,
        "cores": machine.cores(),
        **times,
    }


def per_seed_sizes(job: Job, learner: Learner, carry: Carry) -> dict[str, float]:
    """What a seed holds: parameters of the networks that act and mix, and its replay if any.

    The bytes of replay are those of the segments and 5 more, for its position in the ring.
    """
    state = carry.state.learner
    parameters = sum(x.size for x in jax.tree.leaves(learner.acting(state)))
    sizes = {"parameters": parameters // job.n_lanes}
    for size in learner.sizes(state):
        if size.name == "replay":
            sizes["replay_bytes_per_seed"] = size.n_bytes / job.n_lanes
            sizes["replay_slots_per_seed"] = job.config.buffer_size * job.config.segment_length
    return sizes


def program_bytes(program: jax.stages.Compiled) -> int:
    """What XLA lays out for a program: arguments, results that are not arguments, temporaries."""
    memory = program.memory_analysis()
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return memory.argument_size_in_bytes + results + memory.temp_size_in_bytes


def updates_of(config: Config) -> int:
    """Gradient steps of an iteration."""
    if config.learner == "parallel":
        return config.epochs * config.minibatches
    return config.updates


def counts(job: Job, carry: Carry) -> tuple[int, int]:
    """Env steps of all seeds, and gradient steps of one seed, since the start."""
    iterations = round(float(np.asarray(carry.totals["learned"])[0]))  # those that learned
    return int(np.asarray(carry.state.env_steps).sum()), iterations * updates_of(job.config)


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
