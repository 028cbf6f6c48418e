"""What a GPU gives: speed by lanes, memory, compile time, time to a win rate, equal bits.

One command, under nine minutes on an H100 or H200 with 16 cores; the same command goes on with
what there was no time for:

    python benchmarks/accelerator.py [--jaxmarl PATH_TO_CHECKOUT]

The parts, in this order: all programs are compiled, JaxMARL's too, several at a time, into a cache;
each is timed alone from that cache at 1 to 1,024 lanes, the larger maps of `reproduce smax` with
its six seeds; deterministic=true beside the default; seconds from the start of a process to a
greedy win rate of 0.8 on 3m, ours and JaxMARL's. --lanes and --programs take some of them. A row is
written to the record when it is there, also where it failed. --small is for a machine without a
GPU: it shows that the suite runs, and its figures say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import time_to_skill
from _common import Record, about, end_children_on_term
from jaxmarl_speed import OURS
from rich.console import Console
from rich.table import Table

from jaxvff.core import machine
from jaxvff.core.files import write_json

HERE = Path(__file__).parent
LIMIT_S = 520.0  # of one call
LEAST_S = 20.0  # that have to be left to begin a process
LANES = (1, 4, 16, 64, 256, 1024)
TIMED_S = 2.0  # of each row, at least
CORES_EACH = 2  # of a process that compiles
PEER_LIMIT_S = 150.0  # of a row of JaxMARL, which compiles twice

Rows = tuple[int | str, ...]


class Program(NamedTuple):
    """A training program that is compiled and timed."""

    overrides: list[str]
    lanes: Rows | None = None  # None: those of --lanes


PROGRAMS = {
    "matrix, QMIX": Program(["method=qmix"]),
    "matrix, NM-QMIX": Program(["method=nmqmix"]),
    "3m, parallel": Program(["env=smax/3m", "method=qmix", "learner=parallel"]),
    "3s_vs_5z, parallel": Program(["env=smax/3s_vs_5z", "method=qmix", "learner=parallel"]),
    "3m, replay": Program(["env=smax/3m", "method=qmix", "learner=replay"]),
    "3s_vs_5z, replay": Program(["env=smax/3s_vs_5z", "method=qmix", "learner=replay"]),
    # The work of JaxMARL's QMIX: benchmarks/jaxmarl_speed.py checks that it is the same.
    "3m, as JaxMARL": Program([*OURS["qmix_rnn"], "env=smax/3m", "n_envs=16", "learn_start=16"]),
}
MAPS = {  # of `reproduce smax`, with its six seeds
    "3s5z_vs_3s6z, parallel": Program(["env=smax/3s5z_vs_3s6z", "method=qmix"], (6,)),
    "corridor, parallel": Program(["env=smax/corridor", "method=qmix"], (6,)),
}
SMALL = {"matrix, QMIX": Program(["method=qmix"], (2,))}
SCRIPTS = {"JaxMARL QMIX": "qmix_rnn", "JaxMARL PQN-VDN": "pqn_vdn_rnn"}
DETERMINISTIC: Rows = ("false", "true", "true again")
# Else lanes beyond 64 run in turns, which keeps what they work on in the caches of a CPU.
AT_ONCE = f"lanes_per_device={LANES[-1]}"
NOTES = [
    "seed_steps_per_s: slots of all lanes together in the steady state, learning included",
    "lane_bytes: by the compiler. carried: what a lane keeps between iterations, replay included",
    "compile: several programs at a time, into an empty cache. lower: tracing, which is Python",
    "JaxMARL: a process for each number of lanes, whose seeds are vmapped. Its compile_s is of a "
    "program from the cache. A row that failed or took longer than its limit says so",
    "skill: seconds from the start of a process, imports and compilation included, to the first "
    "greedy evaluation with a win rate of 0.8 on 3m, one seed (benchmarks/time_to_skill.py)",
    "deterministic: digest is of the parameters after four iterations that learn",
]


class Failed(Exception):
    """A row that cannot be had; the message says why."""


class OutOfTime(Exception):
    """This call is over; the next one goes on."""


class Suite:
    """The record of all calls, and the clock of this one."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read the record of earlier calls.

        Raises:
          SystemExit: it is of another machine, version or commit.
        """
        self.args, self.began, self.lock = args, time.monotonic(), threading.Lock()
        self.cache = args.out.with_suffix(".cache").resolve()
        origin: Record = {**about(), "accelerator": accelerator(), "small": args.small}
        self.record: Record = {"what": __doc__.splitlines()[0], "notes": NOTES, **origin}
        if args.out.exists():
            self.record = json.loads(args.out.read_text())
        for name, value in origin.items():
            if self.record.get(name) != json.loads(json.dumps(value)):
                raise SystemExit(
                    f"{args.out} is of another {name}: {self.record.get(name)}; here it is "
                    f"{value}. Name another file with --out, or remove that one"
                )
        self.parts: dict[str, Record] = self.record.setdefault("parts", {})

    def left_s(self) -> float:
        """Seconds of this call that are left."""
        return self.args.seconds - (time.monotonic() - self.began)

    def keep(self, part: str, row: int | str, found: Record) -> None:
        """Write a row to the record, and tell of it."""
        with self.lock:
            self.parts.setdefault(part, {})[str(row)] = found
            write_json(self.args.out, self.record)
            spent = self.args.seconds - self.left_s()
            print(f"{spent:4.0f} s  {part}, {row}: {told(found)}", flush=True)

    def todo(self, part: str, wanted: Rows) -> Rows:
        """The rows of a part that are missing."""
        return tuple(row for row in wanted if str(row) not in self.parts.get(part, {}))

    def lines(
        self, command: list[str], *, limit_s: float | None = None, **own: str
    ) -> Iterator[Record]:
        """The JSON objects that a Python script prints, as they come.

        Args:
          command: the script and its arguments.
          limit_s: seconds after which it has failed; None: those that are left of this call.
          own: variables of its environment.

        Raises:
          Failed: it ended with an error, or took too long.
          OutOfTime: this call is over.
        """
        if self.left_s() < LEAST_S:
            raise OutOfTime
        limit = min(self.left_s(), limit_s or self.left_s())
        log = Path(f"{self.args.out}.log")
        env = os.environ | {"JAXVFF_CACHE": str(self.cache)} | own
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=errors,
                env=env,
                text=True,
                start_new_session=True,  # so that what it starts ends with it
            )
        late = threading.Event()
        timer = threading.Timer(limit, lambda: (late.set(), end(process)))
        timer.start()
        try:
            assert process.stdout is not None
            yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
            if process.wait():
                if late.is_set() and self.left_s() <= LEAST_S:
                    raise OutOfTime
                if late.is_set():
                    raise Failed(f"took more than {limit:.0f} s")
                raise Failed(f"{last_line(log)} (exit code {process.returncode})")
        finally:
            timer.cancel()
            end(process)


def end(process: subprocess.Popen) -> None:
    """Kill a process with what it has started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def last_line(path: Path) -> str:
    """What was written to a file last."""
    lines = path.read_text(errors="replace").strip().splitlines() or ["no reason given"]
    return lines[-1][-300:]


def accelerator() -> Record:
    """The devices and their driver, without starting JAX; nothing where there is no GPU."""
    asked = "name,driver_version,memory.total"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"gpus": []}
    names = asked.split(",")
    rows = (line.split(", ") for line in done.stdout.splitlines())
    return {"gpus": [dict(zip(names, row, strict=True)) for row in rows]}


def told(row: Record) -> str:
    """A row in a few words."""
    if "failed" in row:
        return f"failed: {row['failed']}"
    words = {
        "seed_steps_per_s": lambda x: f"{x:,.0f} seed-steps/s",
        "env_steps_per_s": lambda x: f"{x:,.0f} seed-steps/s",
        "compile_s": lambda x: f"compiled in {x:.1f} s",
        "lane_bytes": lambda x: f"{sum(x.values()) / 1e6:.2f} MB a lane",
        "seconds": lambda x: f"{'' if row.get('reached') else '>'}{x:.1f} s",
        "digest": str,
    }
    return ", ".join(say(row[name]) for name, say in words.items() if name in row)


# The parts. Each does what is missing of it, and raises OutOfTime where that is too much.


def by_lanes(suite: Suite, kind: str, name: str, program: Program) -> None:
    """Compile, or time, a program for each number of lanes.

    Args:
      suite: the record.
      kind: compile, or time.
      name: of the program.
      program: that is measured.
    """
    part = f"{kind}: {name}"
    seconds = 0 if kind == "compile" else suite.args.timed_seconds
    command = [str(HERE / "_accelerator_side.py"), f"--seconds={seconds}", "--lanes"]
    lanes = program.lanes or suite.args.lanes
    while left := suite.todo(part, lanes):
        rows = suite.lines([*command, *map(str, left), "--", *program.overrides, AT_ONCE])
        try:
            for row in rows:
                suite.keep(part, row["lanes"], row)
        except Failed as error:  # of the row that it was at; the others are tried again
            if missing := suite.todo(part, lanes):
                suite.keep(part, missing[0], {"failed": str(error)})
        if suite.todo(part, lanes) == left:
            suite.keep(part, left[0], {"failed": "it ended without a row"})


def compiling(suite: Suite, programs: dict[str, Program], peers: dict[str, str]) -> None:
    """Compile all programs, several at a time."""
    at_a_time = max(1, machine.cores() // CORES_EACH)
    # Side by side, no process may take all of a GPU's memory (docs/scale.md).
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    with ThreadPoolExecutor(at_a_time) as pool:
        begun = [pool.submit(by_lanes, suite, "compile", *item) for item in programs.items()]
        begun += [pool.submit(jaxmarl, suite, "compile", *item) for item in peers.items()]
    del os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"]
    for done in begun:
        done.result()


def deterministic(suite: Suite, program: Program) -> None:
    """A program by default, and twice with deterministic=true."""
    part, asked_for = "deterministic", [int(n) for n in program.lanes or suite.args.lanes]
    lanes = max((n for n in asked_for if n <= 64), default=min(asked_for))
    for row in suite.todo(part, DETERMINISTIC[1:2] if suite.args.small else DETERMINISTIC):
        asked = [*program.overrides, AT_ONCE, f"deterministic={str(row).split()[0]}"]
        command = [str(HERE / "_accelerator_side.py"), f"--seconds={suite.args.timed_seconds}"]
        try:
            for found in suite.lines([*command, f"--lanes={lanes}", *asked]):
                suite.keep(part, row, found)
        except Failed as error:
            suite.keep(part, row, {"failed": str(error)})


def skill(suite: Suite) -> None:
    """Seconds to a win rate of 0.8 on 3m: of ours, and of JaxMARL's where there is a checkout."""
    args = argparse.Namespace(target=0.8, core=None, checkout=suite.args.jaxmarl, max_seconds=0.0)
    sides: Rows = ("ours", "ours_qmix")
    peers: Rows = tuple(time_to_skill.PEERS) if suite.args.jaxmarl else ()
    for row in suite.todo("skill", (*sides, *peers)):
        args.max_seconds = min(suite.left_s() - LEAST_S, PEER_LIMIT_S)
        if args.max_seconds < PEER_LIMIT_S / 2:
            raise OutOfTime
        if row in sides:
            found = time_to_skill.ours("3m", 0, args, time_to_skill.OURS[str(row)])
        else:
            found = time_to_skill.peer("3m", 0, args, time_to_skill.PEERS[str(row)])
        suite.keep("skill", row, found)


def jaxmarl(suite: Suite, kind: str, name: str, script: str) -> None:
    """JaxMARL's own training loop for each number of lanes.

    Args:
      suite: the record.
      kind: compile (into the cache; how long the run takes then says nothing), or time.
      name: of the script in the record.
      script: of JaxMARL.
    """
    part = f"{kind}: {name}"
    cache = {"JAX_COMPILATION_CACHE_DIR": f"{suite.cache}/jaxmarl"}
    for lanes in suite.todo(part, suite.args.lanes):
        command = [str(HERE / "_jaxmarl_peer.py"), str(suite.args.jaxmarl), "speed"]
        command += [f"--script={script}", "--map=3m", f"--seeds={lanes}", "--updates=10"]
        try:
            for row in suite.lines(command, limit_s=PEER_LIMIT_S, **cache):
                times = {x: row[x] for x in ("lower_s", "compile_s")}
                suite.keep(part, lanes, row if kind == "time" else times)
        except Failed as error:
            suite.keep(part, lanes, {"failed": str(error)})


def measure(suite: Suite) -> None:
    """All parts, in the order of their worth.

    Raises:
      OutOfTime: this call is over before they are.
    """
    small = suite.args.small
    known = PROGRAMS | MAPS
    programs = SMALL if small else {name: known[name] for name in suite.args.programs}
    peers = SCRIPTS if suite.args.jaxmarl and not small else {}
    compiling(suite, programs, peers)
    for name, program in programs.items():
        by_lanes(suite, "time", name, program)
    for name, script in peers.items():
        jaxmarl(suite, "time", name, script)
    deterministic(suite, SMALL["matrix, QMIX"] if small else PROGRAMS["3m, parallel"])
    if not small:
        skill(suite)


def terminal(suite: Suite) -> Table:
    """Seed-steps a second by lanes, a row for each program."""
    view = Table(title="Seed-steps a second")
    rows = {n.removeprefix("time: "): p for n, p in suite.parts.items() if n.startswith("time: ")}
    columns = sorted({lanes for part in rows.values() for lanes in part}, key=int)
    for column in ("lanes", *columns):
        view.add_column(column, justify="left" if column == "lanes" else "right")
    for name, part in rows.items():
        speeds = [part.get(lanes, {}) for lanes in columns]
        found = [x.get("seed_steps_per_s", x.get("env_steps_per_s")) for x in speeds]
        view.add_row(name, *("-" if x is None else f"{x:,.0f}" for x in found))
    return view


def main() -> int:
    """Measure what is missing; the exit code: 3 where something is left for the next call."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jaxmarl", type=Path, help="root of a JaxMARL checkout")
    parser.add_argument("--small", action="store_true", help="what a CPU does in half a minute")
    parser.add_argument("--lanes", type=int, nargs="+", default=LANES, help="of each program")
    parser.add_argument(
        "--programs", nargs="+", default=[*PROGRAMS, *MAPS], choices=[*PROGRAMS, *MAPS]
    )
    parser.add_argument("--seconds", type=float, default=LIMIT_S, help="of this call")
    parser.add_argument("--timed-seconds", type=float, default=TIMED_S, help="of each row")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "accelerator.json")
    args = parser.parse_args()
    args.lanes = tuple(args.lanes)
    end_children_on_term()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    suite = Suite(args)
    if not (args.small or suite.record["accelerator"]["gpus"]):
        parser.error("there is no GPU here (nvidia-smi); --small shows that the suite runs")
    try:
        measure(suite)
    except OutOfTime:
        print("out of time; the same command goes on")
        return 3
    Console().print(terminal(suite))
    return 0


if __name__ == "__main__":
    sys.exit(main())
