"""`jaxvff compile for=tpu-v5e:2x2`: what the training program needs of a TPU, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxvff.core.errors import UserError
from jaxvff.core.sizes import readable
from jaxvff.settings import overrides, sweep

if TYPE_CHECKING:
    from rich.table import Table

    from jaxvff.training.ahead import Compiled, Topology

PREFIX = "tpu-"


def run(args: list[str]) -> int:
    """Compile the training programs that the arguments ask for, and say what they need."""
    texts, own = overrides.split(args, "for")
    asked = own.get("for", "")
    if not asked.startswith(PREFIX):
        raise UserError(f"for={asked} names no TPU; write for instance for=tpu-v5e:2x2")
    given = overrides.parse(texts, typed=True)
    configs = [one.config for one in sweep.expand(given)]

    from jaxvff.training import ahead

    where = ahead.topology(asked.removeprefix(PREFIX))  # before JAX is imported

    from jaxvff.cli.start import importing

    with importing(configs[0]):
        from rich.console import Console

        from jaxvff.core.types import HostEnv
        from jaxvff.runs.plan import plan

        jobs = plan(given)
    hosted = [job.config.env["kind"] for job in jobs if isinstance(job.env, HostEnv)]
    if hosted:
        raise UserError(
            f"env={hosted[0]} is played on the host, beside a compiled program that only learns; "
            "compile takes environments on the device"
        )
    console, rows = Console(), []
    for job in jobs:
        with console.status(f"compiling {job.n_lanes} lanes of {job.name} for {asked}"):
            rows.append(ahead.compile_for(job, where))
    console.print(terminal(rows, where))
    return 0


def terminal(rows: list[Compiled], where: Topology) -> Table:
    """A table of compiled programs, all figures for one device."""
    import jax
    from rich.table import Table

    title = f"Compiled for TPU {where.name}, jax {jax.__version__}; nothing was run"
    table = Table(title=title, caption="figures of one device; times are lower bounds")
    names = ("program", "lanes", "compile", "a lane", "lanes that fit", "arithmetic", "memory")
    for name in (*names, "env steps/s at most"):
        table.add_column(name, justify="left" if name == "program" else "right")
    for row in rows:
        by_flops, by_bytes = row.iteration_s(where.chip)
        table.add_row(
            row.name,
            f"{row.lanes} x {row.devices}",
            f"{row.lower_s + row.compile_s:.0f} s",
            readable(row.lane),
            f"{row.lanes_that_fit(where.chip):,}",
            f"{1e3 * by_flops:.3g} ms",
            f"{1e3 * by_bytes:.3g} ms",
            f"{row.most_steps_per_s(where.chip):,.3g}",
        )
    return table
