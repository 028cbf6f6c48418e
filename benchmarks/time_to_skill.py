"""Seconds from the start of a process to a greedy win rate on SMAX, jaxvff beside JaxMARL.

This is what a user waits for, imports and compilation included: one seed in a process, from its
start to the first evaluation whose win rate reaches the target. jaxvff runs as `jaxvff train`, and
its metrics.jsonl is read from outside. JaxMARL's own scripts of QMIX and PQN-VDN run in
_jaxmarl_peer.py, each with settings of the same size as jaxvff's and with JaxMARL's defaults. The
sides take turns with each seed. A run that has not reached the target after --max-seconds is
censored: ">600". The compilation cache of jaxvff is off, since JaxMARL's scripts use none; only
`ours_warm` has one, which shows what a second start costs.

It needs a checkout of JaxMARL, for its training scripts:

    python benchmarks/time_to_skill.py PATH_TO_CHECKOUT --core 1

The record is written after each run. A process has all cores unless --core names one.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import NamedTuple

from _common import Record, about, end_children_on_term, last_json, pinned
from rich.console import Console
from rich.table import Table

from jaxvff.core import machine
from jaxvff.core.files import write_json

HERE = Path(__file__).parent


class Side(NamedTuple):
    """How `jaxvff train` runs."""

    overrides: dict[str, str | int | float | bool]  # of the map's preset, configs/env/smax
    warm: bool = False  # the compilation cache holds the programs of a run before


OURS: dict[str, Side] = {
    "ours": Side({"method": "vdn"}),
    "ours_qmix": Side({"method": "qmix"}),
    "ours_warm": Side({"method": "vdn"}, warm=True),
}
# Options of _jaxmarl_peer.py; `settings` there has the values of all others.
PEERS: dict[str, list[str]] = {
    "jaxmarl_h64_lr1e-3": ["--script=qmix_rnn", "--lr=1e-3"],
    "jaxmarl_defaults": ["--script=qmix_rnn", "--defaults"],
    "jaxmarl_pqn_vdn": ["--script=pqn_vdn_rnn", "--lr=2e-3", "--eps-decay=0.02"],
    "jaxmarl_pqn_vdn_defaults": ["--script=pqn_vdn_rnn", "--defaults"],
}
# Overrides of every side of ours: how it is measured.
MEASURED: dict[str, int] = {
    "seeds": 1,
    "eval_interval": 10_000,
    "eval_episodes": 128,  # JaxMARL's evaluation counts 120 to 300: neither is lucky more often
    "total_steps": 10_000_000,  # more than there is time for
}
POLL_S = 0.1  # seconds between two reads of metrics.jsonl: the error of jaxvff's times
NOTES = [
    "seconds: wall-clock since the process started, imports and compilation included; of ours "
    "seen from outside, of JaxMARL's reported by the process itself",
    "core: the only one that the process may use; null: it has all",
    "ours: the mean over 128 greedy episodes, each played to its end, every 10,000 slots",
    "ours_warm: a second start. JAXVFF_CACHE names a folder that one run before, ended after its "
    "first evaluation and not timed, has filled; all other sides compile anew",
    "JaxMARL's own evaluation, by both of its scripts: the mean over all greedy episodes that end "
    "in 32 environments x 128 steps. Each counts once. One that step 128 cuts off does not count, "
    "so short episodes count a little more often; an episode ends after 100 steps at the latest, "
    "so each environment has one that counts. JaxMARL's files ask for 512 environments (QMIX) and "
    "128 (PQN-VDN), 20 times in 10 million env steps",
    "JaxMARL evaluates at the multiple of its rollout that is nearest to 20,000 env steps: 20,480; "
    "16,384 with PQN-VDN's defaults",
    "JaxMARL's schedules are those of a run of 10 million env steps. Its exploration ends after "
    "0.1 of that, 1 million; that of jaxmarl_pqn_vdn after 0.02, which learns sooner",
    "settings of jaxmarl_pqn_vdn: chosen on seeds 100 and 101 of 3m",
    "JaxMARL's QMIX: its replay allows sampling from 65,536 env steps on, whatever LEARNING_STARTS "
    "is; its min_length_time_axis is set to 1 here, in JaxMARL's favour",
    "JaxMARL's PQN-VDN has no replay. Before the first update it plays one rollout and 4 steps at "
    "random, which its env steps do not count, and its seconds do",
    "a censored run counts as infinitely long in a median",
    "ratio: median seconds of the side / of ours",
]


def ours(
    name: str, seed: int, args: argparse.Namespace, side: Side, cache: Path | None = None
) -> Record:
    """One run of `jaxvff train`, ended when it has reached the target or the limit.

    Args:
      name: of the map.
      seed: of the run.
      args: the command line.
      side: how it runs.
      cache: folder of the compilation cache; None: there is none.
    """
    curve: list[Record] = []
    began = time.monotonic()
    with contextlib.closing(evaluations(name, seed, args, side, cache)) as points:
        for point in points:
            curve.append(point)
            if (point["win_rate"] or 0) >= args.target:
                return {"reached": True, "seconds": point["seconds"], "curve": curve}
        return {"reached": False, "seconds": time.monotonic() - began, "curve": curve}


def evaluations(
    name: str, seed: int, args: argparse.Namespace, side: Side, cache: Path | None
) -> Generator[Record, None, None]:
    """Start `jaxvff train` and yield its evaluations as they come; the process ends with them.

    Args:
      name: of the map.
      seed: of the run.
      args: the command line.
      side: how it runs.
      cache: folder of the compilation cache; None: there is none.

    Raises:
      SystemExit: the process failed; the message ends with what it wrote.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_dir, log = Path(folder) / "run", Path(folder) / "log"
        settings: Record = {"env": f"smax/{name}", "seed": seed, **side.overrides, **MEASURED}
        settings |= {"compilation_cache": cache is not None, "run_dir": run_dir}
        overrides = [f"{k}={v}" for k, v in settings.items()]
        command = [sys.executable, "-m", "jaxvff", "train", *overrides]
        environment = os.environ | ({} if cache is None else {"JAXVFF_CACHE": str(cache)})
        with log.open("w") as output:
            began = time.monotonic()
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=pinned(args.core),
            )
            try:
                for line in lines(run_dir / "metrics.jsonl", process, began + args.max_seconds):
                    yield {
                        "seconds": time.monotonic() - began,
                        "env_steps": line["env_steps"][0],
                        "win_rate": line["test_win_rate"][0],  # None: learning had to stop
                    }
            finally:
                process.kill()  # its folder goes with it
                process.wait()
        if process.returncode > 0:
            raise SystemExit(f"jaxvff train failed:\n{log.read_text()[-2000:]}")


class Caches:
    """The compilation caches of the warm sides, one for each side and map."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self.folder, self.args = folder, args

    def warm(self, name: str, side: str, seed: int) -> Path | None:
        """The folder with the programs of a side, which an untimed run fills where it is missing.

        Args:
          name: of the map.
          side: of OURS.
          seed: of the untimed run; its programs are those of all seeds.

        Returns:
          None where the side has no cache.
        """
        if not OURS[side].warm:
            return None
        folder = self.folder / side / name
        if not folder.exists():
            folder.mkdir(parents=True)
            # With the first evaluation, all programs are compiled.
            run = evaluations(name, seed, self.args, OURS[side], folder)
            with contextlib.closing(run) as points:
                next(points, None)
        return folder


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
        timeout_s = args.max_seconds + 60
        result = last_json([*command, *extra], core=args.core, timeout_s=timeout_s)
    except subprocess.TimeoutExpired:  # it hung: its own timer did not end it
        return {"reached": False, "seconds": args.max_seconds, "hung": True, "curve": []}
    curve = [
        {"seconds": p["seconds"], "env_steps": p["env_step"], "win_rate": p["win_rate"]}
        for p in result["curve"]
    ]
    names = ("reached", "seconds", "first_update_s", "script", "commit", "config")
    kept = {k: result[k] for k in names}
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
    text = "of SMAX, for instance 3m 2s3z 3s_vs_5z"
    parser.add_argument("--maps", nargs="+", default=["3m", "2s3z"], metavar="MAP", help=text)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--target", type=float, default=0.8, help="greedy win rate")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="of one run")
    parser.add_argument("--core", type=int, help="the only one that a process may use; none: all")
    sides, text = [*OURS, *PEERS], f"some of: {', '.join((*OURS, *PEERS))}"
    parser.add_argument(
        "--sides", nargs="+", default=sides, choices=sides, metavar="SIDE", help=text
    )
    parser.add_argument("--add", action="store_true", help="keep what the record holds")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "time_to_skill.json")
    args = parser.parse_args()
    if args.core is not None and not hasattr(os, "sched_setaffinity"):
        parser.error("--core: this system cannot pin a process")
    if args.core is not None and args.core not in os.sched_getaffinity(0):
        parser.error(f"--core={args.core} is none of {sorted(os.sched_getaffinity(0))}")
    return args


def main() -> None:
    """Run all sides, write the record after each run, and print a table."""
    args = parse_args()
    console = Console()
    end_children_on_term()
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # or every side would have a cache

    kept = json.loads(args.out.read_text()) if args.add and args.out.exists() else {}
    runs: list[Record] = kept.get("runs", [])
    table: dict[str, Record] = {}
    with tempfile.TemporaryDirectory() as folder:
        caches = Caches(Path(folder), args)
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            for name, side in itertools.product(args.maps, args.sides):
                runs.append(one_run(name, side, seed, args, caches))
                table = tabulate(runs)
                write(args, table, runs)
                told = f"{name}, {side}, seed {seed}: {outcome(runs[-1])}"
                console.print(told, highlight=False)
    console.print(terminal(table, args.target))


def one_run(name: str, side: str, seed: int, args: argparse.Namespace, caches: Caches) -> Record:
    """A run of a side on a map, with what it ran beside and on."""
    cache = caches.warm(name, side, seed) if side in OURS else None
    cores = machine.cores() if args.core is None else 1
    at_start = {"load": os.getloadavg()[0], "cores": cores, "core": args.core}
    if side in OURS:
        run = ours(name, seed, args, OURS[side], cache)
    else:
        run = peer(name, seed, args, PEERS[side])
    return {"map": name, "side": side, "seed": seed, **at_start} | run


def outcome(run: Record) -> str:
    """One run in a few words."""
    rates = [p["win_rate"] for p in run["curve"] if p["win_rate"] is not None]
    best = f"best win rate {max(rates):.2f}" if rates else "no evaluation"
    return f"{'' if run['reached'] else '>'}{run['seconds']:.1f} s, {best}"


def write(args: argparse.Namespace, table: dict[str, Record], runs: list[Record]) -> None:
    """Write the record of all runs so far."""
    pinning = "" if args.core is None else f" --core {args.core}"
    record = {
        "what": f"seconds from process start to a greedy win rate of {args.target:g} on SMAX, "
        "one seed in a process",
        "notes": NOTES,
        "table": table,
        "max_seconds": args.max_seconds,
        "ours": {
            "command": "python -m jaxvff train",
            "overrides": {name: side._asdict() for name, side in OURS.items()},
            "overrides_of_all": MEASURED,
        },
        "peers": PEERS,
        **about(),
        "command": f"python benchmarks/time_to_skill.py CHECKOUT{pinning}",
        "runs": runs,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
