"""`jaxvff bench`: throughput, compile time and memory of the compiled training program."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import yaml

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.core.options import INT_MAX
from jaxvff.core.sizes import readable
from jaxvff.settings import overrides, sweep
from jaxvff.settings.overrides import Override

# Keys of `train` that are about what comes beside training.
UNTIMED = ["eval_interval", "eval_episodes", "checkpoint_interval"]
UNTIMED += ["run_dir", "tensorboard", "wandb"]

if TYPE_CHECKING:
    from rich.console import JustifyMethod
    from rich.table import Table

    from jaxvff.runs.plan import Job
    from jaxvff.training.program import Program


def run(args: list[str]) -> int:
    """Time the program for each number of lanes."""
    texts, own = overrides.split(args, "lanes", "seconds")
    lanes, seconds = _numbers(own)
    given = overrides.parse(texts, typed=True)
    _check_keys(given)
    parts = [[*given, *overrides.parse([f"seeds={n}"])] for n in lanes]
    configs = [sweep.expand(part)[0].config for part in parts]
    with importing(configs[0]):
        from rich.console import Console

        from jaxvff.runs import memory
        from jaxvff.runs.plan import plan

        jobs = [job for part in parts for job in plan(part)]
        memory.check(jobs)
    console, rows = Console(), []
    for job in jobs:
        with console.status(f"compiling and timing {job.n_lanes} lanes of {job.name}"):
            rows.append(measure(job, seconds))
    console.print(terminal(rows))
    return 0


def _check_keys(given: list[Override]) -> None:
    """Refuse keys that bench sets, or that change nothing of what it times."""
    idle = dict.fromkeys(UNTIMED, "in bench, which writes nothing and does not evaluate; drop it")
    idle["seeds"] = "in bench, which sets it itself; write lanes=[1,64]"
    overrides.check_read(given, [idle])


def _numbers(own: dict[str, str]) -> tuple[list[int], float]:
    try:
        lanes = yaml.safe_load(own.get("lanes", "[1, 64, 512]"))
        seconds = float(own.get("seconds", 5))
        whole = all(type(n) is int and 0 < n <= INT_MAX for n in lanes)
        good = whole and bool(lanes) and 0 < seconds < 3600
    except (TypeError, ValueError, RecursionError, yaml.YAMLError):
        good = False
    if not good:
        asked = " ".join(f"{key}={value:.60}" for key, value in own.items())
        raise UserError(f"{asked} cannot be timed; write for instance lanes=[1,64] seconds=5")
    return lanes, seconds


def measure(job: Job, seconds: float = 5.0) -> dict[str, Any]:
    """Time one job: init and compile apart from the steady state.

    Args:
      job: from jaxvff.runs.plan.
      seconds: least length of the steady state that is timed, after a warm-up in which learning
        has started.

    Returns:
      method, lanes, init_s, compile_s, seed_steps_per_s; of one lane state_bytes, and the main
      part of it with its name, part and part_bytes.
    """
    from jaxvff.runs import learned

    with learned.open_program(job) as program:
        return _measure(job, program, seconds)


def _measure(job: Job, program: Program, seconds: float) -> dict[str, Any]:
    import jax

    from jaxvff.core.sizes import nbytes
    from jaxvff.training import sharding

    lane = sharding.spread(job.lanes(), program.mesh)
    began = time.perf_counter()
    carry = jax.block_until_ready(program.init(lane))
    init_s = time.perf_counter() - began
    began = time.perf_counter()
    advance = program.compile(carry, lane).advance
    compile_s = time.perf_counter() - began
    main_part = program.learner.sizes(carry.state.learner)[0]
    state_bytes = nbytes(carry.state) // job.n_lanes

    # Past the start of learning, then chunks that double until one is long enough to trust.
    done, n, elapsed = program.learner.first_iteration + 1, 16, 0.0
    carry = jax.block_until_ready(advance(carry, lane, 0, done))
    while elapsed < seconds:
        n *= 2
        began = time.perf_counter()
        carry = jax.block_until_ready(advance(carry, lane, done, done + n))
        elapsed = time.perf_counter() - began
        done += n
    return {
        "method": job.config.method["name"],
        "lanes": job.n_lanes,
        "init_s": init_s,
        "compile_s": compile_s,
        "seed_steps_per_s": job.n_lanes * n * job.config.steps_per_iteration / elapsed,
        "state_bytes": state_bytes,
        "part": main_part.name,
        "part_bytes": main_part.n_bytes // job.n_lanes,
    }


def terminal(rows: list[dict[str, Any]]) -> Table:
    """A table of measurements."""
    import jax
    from rich.table import Table

    n, device = jax.device_count(), jax.devices()[0].device_kind
    table = Table(title=f"Throughput on {n} x {device}, jax {jax.__version__}")
    columns = ("method", "lanes", "seed-steps/s", "compile", "init", "state", "main part")
    for name in columns:
        justify: JustifyMethod = "left" if name == "method" else "right"
        table.add_column(name, justify=justify, overflow="fold")
    for r in rows:
        table.add_row(
            r["method"],
            str(r["lanes"]),
            f"{r['seed_steps_per_s']:,.0f}",
            f"{r['compile_s']:.1f} s",
            f"{r['init_s']:.1f} s",
            f"{readable(r['state_bytes'])}/seed",
            f"{r['part']} {readable(r['part_bytes'])}/seed",
        )
    return table
