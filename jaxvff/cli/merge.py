"""`jaxvff merge <folder>`: of the shards of a plan, the results that one machine would give."""

from __future__ import annotations

from jaxvff.cli import planned
from jaxvff.runs import locks
from jaxvff.settings import overrides

KEYS = ("checkpoint", "trust")


def run(args: list[str]) -> int:
    """Merge, and show the results."""
    folder, own = planned.arguments(args, "merge", KEYS)
    checkpoints = overrides.flag(own, "checkpoint")
    with planned.opened(folder, overrides.flag(own, "trust")) as found:
        from rich.console import Console

        from jaxvff.cli.progress import show
        from jaxvff.runs import merge

        console = Console()
        with locks.sole_writer(folder):
            with console.status("merging"):
                parts = merge.load(folder, found.plan, found.jobs)
                results = merge.merge(folder, found.jobs, parts, checkpoints=checkpoints)
            where = merge.machine(parts)
            show(console, folder, results, command=found.command, where=where)
    console.print(f"results: {folder}", soft_wrap=True, markup=False)
    if not checkpoints:
        console.print(
            f"checkpoints: not merged; to evaluate, export, record or go on: jaxvff merge {folder} "
            "checkpoint=true",
            soft_wrap=True,
            markup=False,
        )
    return 0
