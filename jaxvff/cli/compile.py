"""`jaxvff compile for=tpu-v5e:2x2`: what the training program needs of a TPU, without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

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

        from jaxvff.core.types import Env, HostEnv
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
            rows.append(
                ahead.compile_for(
                    where,
                    config=job.config,
                    env=cast(Env, job.env),
                    lane=job.lanes(),
                    name=job.name,
                )
            )
    console.print(terminal(rows, where))
    return 0


def terminal(rows: list[Compiled], where: Topology) -> Table:
    """A table of compiled programs, a column each; all figures are of one device."""
    import jax
    from rich.table import Table

    title = f"Compiled for TPU {where.name}, jax {jax.__version__}; nothing was run"
    table = Table(title=title, caption="figures of one device; times are at least")
    table.add_column("")
    for row in rows:
        table.add_column(row.name, justify="right")
    chip = where.chip

    def bound(row: Compiled, by: str) -> str:
        seconds = row.least_s(chip).get(by)
        return "?" if seconds is None else f"{1e3 * seconds:.3g} ms"

    figures: dict[str, Callable[[Compiled], str]] = {
        "lanes": lambda row: f"{row.lanes} x {row.devices}",
        "compile": lambda row: f"{row.lower_s + row.compile_s:.0f} s",
        "a lane": lambda row: readable(row.lane),
        "lanes that fit": lambda row: f"{row.lanes_that_fit(chip):,}",
        "operations of an iteration": lambda row: f"{row.work.operations:,}" if row.work else "?",
        "matrix products": lambda row: bound(row, "products"),
        "memory traffic": lambda row: bound(row, "traffic"),
        "XLA's estimate": lambda row: bound(row, "estimate"),
        "env steps/s at most": lambda row: f"{row.most_steps_per_s(chip):,.0f}",
    }
    for name, figure in figures.items():
        table.add_row(name, *map(figure, rows))
    return table
