"""Compile, and time, a training program of jaxvff for several numbers of lanes.

  python benchmarks/_accelerator_side.py --lanes 1 64 --seconds 2 env=smax/3m method=qmix

Prints a JSON object a line, one for each number of lanes, when it is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from typing import Any, cast

from jaxvff.api import switches
from jaxvff.cli.start import importing
from jaxvff.settings import config

FIXED = 4  # iterations that learn, before what is timed: the same for all, so that bits compare
LONGEST = 2**20  # iterations in a call


def main() -> None:
    """Measure, and print a line for each number of lanes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1])
    parser.add_argument("--seconds", type=float, default=2.0, help="timed; 0: compile alone")
    parser.add_argument("overrides", nargs="+", help="as for jaxvff train")
    args = parser.parse_args()
    with importing(config.load(args.overrides)):
        for lanes in args.lanes:
            print(json.dumps(measure(args.overrides, lanes, args.seconds)), flush=True)


def measure(overrides: list[str], lanes: int, seconds: float) -> dict[str, Any]:
    """One number of lanes.

    Args:
      overrides: of one job that is played on the device.
      lanes: seeds of it.
      seconds: that are timed at least; 0: it is compiled alone.

    Returns:
      Seconds of lowering and compiling; bytes by the compiler; seed-steps a second; a digest of
      the parameters after FIXED iterations that learn; `failed`: what went wrong instead.
    """
    import jax

    from jaxvff.core.types import Env
    from jaxvff.runs.plan import plan
    from jaxvff.training import sharding
    from jaxvff.training.program import device_program

    (job,) = plan([*overrides, f"seeds={lanes}"])
    program = device_program(job.config, cast(Env, job.env), job.n_lanes)
    out: dict[str, Any] = {"lanes": lanes, "devices": program.mesh.size}
    try:
        lane = sharding.spread(job.lanes(), program.mesh)
        carry = program.init(lane)
        began = time.perf_counter()
        lowered = cast(jax.stages.Wrapped, program.advance).lower(carry, lane, 0, 1)
        lowered_at = time.perf_counter()
        advance = lowered.compile()
        out |= {"lower_s": lowered_at - began, "compile_s": time.perf_counter() - lowered_at}
        memory = advance.memory_analysis()
        here = lanes // program.mesh.size
        out["lane_bytes"] = {
            "carried": memory.argument_size_in_bytes / here,
            "temporary": memory.temp_size_in_bytes / here,
        }
        if seconds == 0:
            return out
        learns = program.learner.first_iteration
        carry = jax.block_until_ready(advance(carry, lane, 0, learns + FIXED))
        out["digest"] = digest(program.learner.acting(carry.state.learner))
        n, elapsed, done = FIXED, 0.0, learns + FIXED
        while elapsed < seconds and n < LONGEST:  # calls that double, until one is long enough
            n = max(2 * n, min(int(n * seconds / elapsed), 16 * n) if elapsed else 0)
            began = time.perf_counter()
            carry = jax.block_until_ready(advance(carry, lane, done, done + n))
            elapsed, done = time.perf_counter() - began, done + n
    except jax.errors.JaxRuntimeError as error:  # the device's memory is full, say
        return out | {"failed": str(error).splitlines()[0][:300]}
    steps = n * job.config.steps_per_iteration
    return out | {
        "iteration_ms": 1e3 * elapsed / n,
        "iterations": n,
        "steps_per_iteration": job.config.steps_per_iteration,
        "updates_per_iteration": job.config.updates,
        "seed_steps_per_s": lanes * steps / elapsed,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "deterministic": switches.DETERMINISTIC in os.environ.get("XLA_FLAGS", ""),
    }


def digest(tree: Any) -> str:
    """Of all bits of a tree of arrays."""
    import jax
    import numpy as np

    found = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        found.update(np.asarray(leaf).tobytes())
    return found.hexdigest()[:16]


if __name__ == "__main__":
    main()
