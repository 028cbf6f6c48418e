"""Training programs compiled for TPUs that are not here: memory, XLA's estimate, where it is spent.

    python benchmarks/tpu_programs.py [--chips v5e:1x1 v5p:1x1x1] [--programs ...] [--lanes 64]

A process for each program and chip; it needs libtpu (the extra tpu). A row that the record has is
kept, with the commit that it is of; a record of other lanes or versions is refused.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import math
from pathlib import Path

from _common import ROOT, Record, about, commit, last_json
from rich.console import Console
from rich.table import Table

from jaxvff.core.files import write_json

HERE = Path(__file__).parent
PROGRAMS = {
    "matrix, QMIX": ["method=qmix"],
    "matrix, NM-QMIX": ["method=nmqmix"],
    "3m, QMIX, parallel": ["env=smax/3m", "method=qmix", "learner=parallel"],
    "3m, QMIX, replay": ["env=smax/3m", "method=qmix", "learner=replay"],
}
NOTES = [
    "nothing was run: compiled ahead of time on a CPU, for one device, all lanes in one vmap",
    "flops: of matrix products, by the traced program; loops count as often as they turn",
    "cycles: XLA's own estimate of each operation, summed; gathers and scatters have none",
    "picked: rows that gathers pick one by one in an iteration",
    "steps_per_s_at_most: the least of what cycles at the chip's clock, flops and traffic allow",
    "v5p: gathers of whole rows are given to its SparseCores; they count as traffic, not as picked",
    "compile_s and lower_s: on cores that other work shared; rows have the commit they are of",
]


def one(chip: str, overrides: list[str]) -> Record:
    """Compile a program for a chip; in a process whose JAX has not been imported."""
    from jaxvff.training import ahead

    where = ahead.topology(chip)

    from typing import cast

    from jaxvff.core.types import Env
    from jaxvff.runs.plan import plan

    (job,) = plan(overrides)
    found = ahead.compile_for(
        where, config=job.config, env=cast(Env, job.env), lane=job.lanes(), name=job.name
    )
    work = found.work._asdict() if found.work else None
    return {
        **found._asdict(),
        "work": work,
        "lane_bytes": found.lane,
        "lanes_that_fit": found.lanes_that_fit(where.chip),
        "least_ms": {by: 1e3 * seconds for by, seconds in found.least_s(where.chip).items()},
        "steps_per_s_at_most": found.most_steps_per_s(where.chip),
    }


def terminal(rows: dict[str, Record]) -> Table:
    """A row for each program and chip."""
    view = Table(title="Compiled for TPUs; nothing was run")
    figures = {
        "compile, s": lambda r: f"{r['lower_s'] + r['compile_s']:.0f}",
        "kB a lane": lambda r: f"{r['lane_bytes'] / 1e3:,.0f}",
        "lanes a chip": lambda r: f"{r['lanes_that_fit']:,}",
        "operations": lambda r: f"{r['work']['operations']:,}" if r["work"] else "?",
        "rows picked": lambda r: f"{r['work']['picked']:,}" if r["work"] else "?",
        "products, ms": lambda r: f"{r['least_ms']['products']:.3g}",
        "traffic, ms": lambda r: f"{r['least_ms'].get('traffic', math.nan):.3g}",
        "XLA, ms": lambda r: f"{r['least_ms'].get('estimate', math.nan):.3g}",
        "steps/s at most": lambda r: f"{r['steps_per_s_at_most']:,.0f}",
    }
    view.add_column("")
    for name in figures:
        view.add_column(name, justify="right")
    for name, row in rows.items():
        view.add_row(name, *(figure(row) for figure in figures.values()))
    return view


def opened(out: Path, lanes: int) -> Record:
    """The record of earlier calls, or a new one.

    Raises:
      SystemExit: it is of another number of lanes or of other versions.
    """
    origin = about()
    del origin["commit"]  # rows have their own
    origin["versions"] |= {"libtpu": importlib.metadata.version("libtpu")}
    new: Record = {"what": __doc__.splitlines()[0], "notes": NOTES, "lanes": lanes, **origin}
    kept: Record = json.loads(out.read_text()) if out.exists() else {**new, "rows": {}}
    for name in ("lanes", "versions"):  # the machine decides how long compiling takes, and no more
        if kept[name] != new[name]:
            raise SystemExit(
                f"{out} is of {name} {kept[name]}; here it is {new[name]}. Name another file "
                "with --out, or remove that one"
            )
    return kept


def main() -> None:
    """Compile what is missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chips", nargs="+", default=["v5e:1x1", "v5p:1x1x1"])
    parser.add_argument("--programs", nargs="+", default=[*PROGRAMS], choices=PROGRAMS)
    parser.add_argument("--lanes", type=int, default=64)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "tpu_programs.json")
    parser.add_argument("--one", nargs="+", help="a chip and overrides: prints a row")
    args = parser.parse_args()
    if args.one:
        print(json.dumps(one(args.one[0], args.one[1:])))
        return
    record = opened(args.out, args.lanes)
    for name in args.programs:
        for chip in args.chips:
            row = f"{name}, {chip}"
            if row not in record["rows"]:
                asked = [chip, *PROGRAMS[name], f"seeds={args.lanes}"]
                found = last_json([__file__, "--one", *asked])
                record["rows"][row] = {**found, "commit": commit(ROOT)}
                write_json(args.out, record)
                print(row, flush=True)
    Console(width=160).print(terminal(record["rows"]))


if __name__ == "__main__":
    main()
