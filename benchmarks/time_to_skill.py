"""Seconds from the start of a process to a greedy win rate on SMAX, jaxvff beside JaxMARL.

This is what a user waits for, imports and compilation included: one seed in a process that has all
cores, from its start to the first evaluation whose win rate reaches the target. jaxvff runs as
`jaxvff train`, whose metrics.jsonl is read from outside. JaxMARL's own script runs in
_jaxmarl_peer.py, once with settings of the same size as jaxvff's and once with JaxMARL's defaults.
The sides take turns with each seed. A run that has not reached the target after --max-seconds is
censored: ">600". The compilation cache of jaxvff is off, since JaxMARL's script uses none.

It needs a checkout of JaxMARL, for its training script:

    python benchmarks/time_to_skill.py PATH_TO_CHECKOUT

The record is written after each run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _common import Record, about, end_children_on_term, last_json
from rich.console import Console
from rich.table import Table

from jaxvff.core import machine
from jaxvff.core.files import write_json

HERE = Path(__file__).parent
# Overrides of `jaxvff train`, but for the map, the seed and the folder.
OURS: dict[str, str | int | bool] = {
    "method": "qmix",
    "seeds": 1,
    "utility": "mlp",
    "updates": 16,
    "target_interval": 50,
    "eval_interval": 10_000,
    "eval_episodes": 128,  # JaxMARL's evaluation counts 120 to 300: neither is lucky more often
    "total_steps": 10_000_000,  # more than there is time for
    "compilation_cache": False,  # every run compiles, as a first one does
}
# Options of _jaxmarl_peer.py; SETTINGS there has the values of all others.
PEERS: dict[str, list[str]] = {
    "jaxmarl_h64_lr1e-3": ["--lr=1e-3"],
    "jaxmarl_defaults": ["--defaults"],
}
POLL_S = 0.1  # seconds between two reads of metrics.jsonl: the error of jaxvff's times
NOTES = [
    "seconds: wall-clock since the process started, imports and compilation included; of ours "
    "seen from outside, of JaxMARL's reported by the process itself",
    "ours: the mean over 128 greedy episodes, each played to its end, every 10,000 slots",
    "JaxMARL's own evaluation: the mean over all greedy episodes that end in 32 environments x 128 "
    "steps, about every 20,000 env steps; short episodes count more often",
    "JaxMARL's replay allows sampling from 65,536 env steps on, whatever LEARNING_STARTS is; its "
    "min_length_time_axis is set to 1 here, in JaxMARL's favour",
    "a censored run counts as infinitely long in a median",
]


def ours(name: str, seed: int, args: argparse.Namespace) -> Record:
    """One run of `jaxvff train`, ended when it has reached the target or the limit."""
    with tempfile.TemporaryDirectory() as folder:
        run_dir, log = Path(folder) / "run", Path(folder) / "log"
        settings: Record = {"env": f"smax/{name}", "seed": seed, **OURS, "run_dir": run_dir}
        overrides = [f"{k}={v}" for k, v in settings.items()]
        command = [sys.executable, "-m", "jaxvff", "train", *overrides]
        curve: list[Record] = []
        with log.open("w") as output:
            began = time.monotonic()
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            try:
                for line in lines(run_dir / "metrics.jsonl", process, began + args.max_seconds):
                    point = {
                        "seconds": time.monotonic() - began,
                        "env_steps": line["env_steps"][0],
                        "win_rate": line["test_win_rate"][0],  # None: learning had to stop
                    }
                    curve.append(point)
                    if (point["win_rate"] or 0) >= args.target:
                        return {"reached": True, "seconds": point["seconds"], "curve": curve}
                seconds = time.monotonic() - began
            finally:
                process.kill()  # its folder goes with it
                process.wait()
        if process.returncode > 0:
            raise SystemExit(f"jaxvff train failed:\n{log.read_text()[-2000:]}")
        return {"reached": False, "seconds": seconds, "curve": curve}


def lines(path: Path, process: subprocess.Popen, until: float) -> Iterator[Record]:
    """Yield the JSON lines of a file as a process writes them.

    Args:
      path: the file; it need not exist yet.
      process: what writes it; the lines end with it.
      until: on the clock of time.monotonic, seconds; the lines end then at the latest.
    """
    offset, ended = 0, False
    while not ended and time.monotonic() < until:
        time.sleep(POLL_S)
        ended = process.poll() is not None  # before reading, so that nothing is missed
        if not path.exists():
            continue
        with path.open() as file:
            file.seek(offset)
            new = file.read()
        whole = new[: new.rfind("\n") + 1]
        offset += len(whole.encode())
        yield from map(json.loads, whole.splitlines())


def peer(name: str, seed: int, args: argparse.Namespace, extra: list[str]) -> Record:
    """One run of JaxMARL, which ends by itself.

    Args:
      name: of the map.
      seed: of the run.
      args: the command line.
      extra: options of _jaxmarl_peer.py.
    """
    command = [str(HERE / "_jaxmarl_peer.py"), str(args.checkout), "skill", f"--map={name}"]
    command += [f"--seed={seed}", f"--target={args.target}", f"--max-seconds={args.max_seconds}"]
    try:
        result = last_json([*command, *extra], timeout_s=args.max_seconds + 60)
    except subprocess.TimeoutExpired:  # it hung: its own timer did not end it
        return {"reached": False, "seconds": args.max_seconds, "hung": True, "curve": []}
    curve = [
        {"seconds": p["seconds"], "env_steps": p["env_step"], "win_rate": p["win_rate"]}
        for p in result["curve"]
    ]
    kept = {k: result[k] for k in ("reached", "seconds", "first_update_s", "commit", "config")}
    return kept | {"curve": curve}


def summary(runs: list[Record]) -> Record:
    """The runs of one side on one map: times in the order of the seeds, and their median."""
    times = [r["seconds"] if r["reached"] else math.inf for r in runs]
    limit = min((r["seconds"] for r in runs if not r["reached"]), default=math.inf)

    def shown(seconds: float) -> float | str:
        return round(seconds, 1) if math.isfinite(seconds) else f">{limit:.0f}"

    steps = [r["curve"][-1]["env_steps"] for r in runs if r["reached"]]
    starts = [r["curve"][0]["seconds"] for r in runs if r["curve"]]
    return {
        "median_s": shown(statistics.median(times)),
        "min_s": shown(min(times)),
        "max_s": shown(max(times)),
        "reached": len(steps),
        "runs": len(runs),
        "seconds": [shown(x) for x in times],
        "env_steps_of_those_that_reached": steps,
        "median_first_evaluation_s": round(statistics.median(starts), 1) if starts else None,
    }


def tabulate(runs: list[Record]) -> dict[str, Record]:
    """{map: {side: summary}}, with the ratio of the medians, theirs / ours."""
    out: dict[str, Record] = {}
    for run in runs:
        out.setdefault(run["map"], {}).setdefault(run["side"], []).append(run)
    for sides in out.values():
        sides.update({side: summary(rows) for side, rows in sides.items()})
        base = sides.get("ours", {}).get("median_s")
        for side, row in sides.items():
            if side != "ours" and isinstance(base, float):
                row["ratio"] = ratio(row["median_s"], base)
    return out


def ratio(theirs: float | str, base: float) -> str:
    """Theirs / ours; a lower bound where theirs is censored."""
    censored = isinstance(theirs, str)
    value = float(theirs.removeprefix(">")) if isinstance(theirs, str) else theirs
    return f"{'>' * censored}{value / base:.1f}"


def terminal(table: dict[str, Record], target: float) -> Table:
    """The medians and ranges, a section per map."""
    view = Table(title=f"Seconds from process start to a greedy win rate of {target:g}, one seed")
    for name in ("", "median", "range", "reached", "env steps", "first eval", "ratio"):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)
    for name, sides in table.items():
        view.add_section()
        view.add_row(f"[bold]{name}[/]")
        for side, row in sides.items():
            ends = dict.fromkeys((str(row["min_s"]), str(row["max_s"])))
            steps = row["env_steps_of_those_that_reached"]
            view.add_row(
                side,
                str(row["median_s"]),
                "-".join(ends),
                f"{row['reached']} of {row['runs']}",
                f"{statistics.median(steps):,.0f}" if steps else "-",
                str(row["median_first_evaluation_s"] or "-"),
                row.get("ratio", ""),
            )
    return view


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="root of a JaxMARL checkout")
    parser.add_argument("--maps", nargs="+", default=["3m", "2s3z"])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.8, help="greedy win rate")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of one run")
    parser.add_argument("--sides", nargs="+", default=["ours", *PEERS], choices=["ours", *PEERS])
    parser.add_argument("--add", action="store_true", help="keep what the record holds")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "time_to_skill.json")
    return parser.parse_args()


def main() -> None:
    """Run all sides, write the record after each run, and print a table."""
    args = parse_args()
    console = Console()
    end_children_on_term()

    kept = json.loads(args.out.read_text()) if args.add and args.out.exists() else {}
    runs: list[Record] = kept.get("runs", [])
    table: dict[str, Record] = {}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in args.maps:
            for side in args.sides:
                at_start = {"load": os.getloadavg()[0], "cores": machine.cores()}
                if side == "ours":
                    run = ours(name, seed, args)
                else:
                    run = peer(name, seed, args, PEERS[side])
                runs.append({"map": name, "side": side, "seed": seed, **at_start} | run)
                table = tabulate(runs)
                write(args, table, runs)
                console.print(f"{name}, {side}, seed {seed}: {outcome(run)}", highlight=False)
    console.print(terminal(table, args.target))


def outcome(run: Record) -> str:
    """One run in a few words."""
    rates = [p["win_rate"] for p in run["curve"] if p["win_rate"] is not None]
    best = f"best win rate {max(rates):.2f}" if rates else "no evaluation"
    return f"{'' if run['reached'] else '>'}{run['seconds']:.1f} s, {best}"


def write(args: argparse.Namespace, table: dict[str, Record], runs: list[Record]) -> None:
    """Write the record of all runs so far."""
    record = {
        "what": f"seconds from process start to a greedy win rate of {args.target:g} on SMAX, "
        "one seed in a process",
        "notes": NOTES,
        "table": table,
        "max_seconds": args.max_seconds,
        "ours": {"command": "python -m jaxvff train", "overrides": OURS},
        "peers": PEERS,
        **about(),
        "command": "python benchmarks/time_to_skill.py CHECKOUT",
        "runs": runs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
