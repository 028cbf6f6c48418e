"""What planning, looking after and merging many shards cost here, and what becomes of the killed.

python -m benchmarks.shards [seeds=4096] [shards=64] [listed=100000]   planning, listing, merging
python -m benchmarks.shards pairs=3 [steps=1048576]                    shards of a minute, on 3m
python -m benchmarks.shards drill=64 [workers=4] [every=20] [times=1]  kills

Merging: one shard is trained; the others get copies of its files, under their own seeds and
fingerprints. First: what a shard costs that trains for one iteration. Pairs: a worker trains a
shard of so many steps on 3m, and the same lanes are trained as a run that is no shard, by the same
compiled program; several times, in turns. Drill: a worker is killed every 20 seconds until all
shards are done; then each seed is counted, and the merged reports are held against those of one
worker that nobody disturbed, and of the same run unsharded. With times= it is done so often, each
time with other victims. A part replaces what the record had of it:
out=benchmarks/results/shards.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._common import ROOT, Record, about, commit
from jaxvff.cli.main import main
from jaxvff.core.files import write_json
from jaxvff.runs import execute, shards
from jaxvff.runs import folder as runs
from jaxvff.runs.leases import MOST_DEATHS, OWNER, Shelf, read
from jaxvff.runs.work import RESULTS, Worker

RUN = ["method=vdn", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
       "total_steps=2000", "eval_interval=100"]  # fmt: skip
# A shard of four lanes takes some three seconds of a core, and a worker's start some six.
DRILLED = [*RUN[:-2], "total_steps=20000", "eval_interval=1000", "checkpoint_interval=500"]
LARGE = ["env=smax/3m", "method=qmix"]
MINUTE = 2**20  # steps of two lanes: a minute of a core
N_LANES = 100_000  # planned
PATIENCE_S = 3600.0  # for a drill
NOTES = [
    "cpu_s: of this process, or of the processes that it started; load: of the machine, at the "
    "start",
    "drill, sharded: planning and merging included",
    "pairs: more_cpu_s is what a shard took beyond the same lanes alone, the mean of the pairs. "
    "Start and compilation are in neither",
    "drill, kills: SIGKILL; missed: nobody trained, or the one chosen had ended",
    "drill, in_a_row: the most workers that died on a shard one after the other without a "
    "checkpoint. Ten make it fail, so the one that follows eight such is spared",
]
Clock = tuple[float, float]


def since(began: Clock) -> Record:
    """The seconds since `began`: by the clock, and of the processor."""
    wall, cpu = (b - a for a, b in zip(began, now(), strict=True))
    return {"wall_s": round(wall, 3), "cpu_s": round(cpu, 3)}


def now() -> Clock:
    """By the clock, and of the processor: this process, and those that it has waited for."""
    spent = os.times()
    cpu = time.process_time() + spent.children_user + spent.children_system
    return time.perf_counter(), cpu


def planning(top: Path) -> Record:
    """Plan many lanes, and read the plan again."""
    began = now()
    folder, jobs = runs.new_run(
        [*RUN, f"seeds={N_LANES}", f"run_dir={top / 'plan'}"], elsewhere=True
    )
    shards.make(folder, jobs, 1024)
    shards.read(folder)
    return {"lanes": N_LANES, "shards": 1024, **since(began)}


def listing(top: Path, n: int) -> Record:
    """Look where many shards stand: all but one are done."""
    shelf = Shelf(top / f"listed{n}")
    shelf.folder.mkdir()
    for shard in range(n):
        shelf.path(shard, 1).mkdir()
        if shard:
            (shelf.folder / f"{shard:04d}.1.done").touch()
    began = now()
    states = [s.state for s in shelf.standings(n)]
    assert states[0] == "running"
    assert set(states[1:]) == {"done"}
    return since(began)


def merging(top: Path, n_seeds: int, n_shards: int) -> Record:
    """Train a shard, copy it for all others, and merge."""
    folder, jobs = runs.new_run(
        [*RUN, f"seeds={n_seeds}", f"run_dir={top / 'big'}"], elsewhere=True
    )
    plan = shards.make(folder, jobs, n_shards)
    done = folder / shards.FOLDER / "0000.1.done"
    worker = Worker(folder, plan, jobs, stop=done.exists, tell=lambda line: None)
    worker.work()
    shutil.rmtree(folder / shards.FOLDER / "0001.1", ignore_errors=True)
    for index in range(1, n_shards):
        copy(folder / shards.FOLDER, index, plan.shards[index], jobs)
    began = now()
    assert main(["merge", str(folder)]) == 0
    return {"seeds": n_seeds, "shards": n_shards, **since(began)}


def copy(top: Path, index: int, shard: shards.Shard, jobs: list) -> None:
    """The files of shard 0 as if they were those of another one."""
    first, attempt = top / "0000.1", top / f"{index:04d}.1"
    shutil.copytree(first, attempt)
    job = shard.of(jobs)
    with np.load(first / RESULTS) as saved:
        arrays = dict(saved)
    about = json.loads(str(arrays.pop("about")))
    about |= {"shard": [shard.job, list(shard.values), list(shard.seeds)]}
    about |= {"fingerprint": job.fingerprint()}
    np.savez(attempt / RESULTS, about=np.array(json.dumps(about)), **arrays)
    lines = [json.loads(line) for line in (first / "metrics.jsonl").read_text().splitlines()]
    seeds = list(job.values[0].seeds)
    told = (json.dumps(line | {"seed": seeds}) + "\n" for line in lines)
    (attempt / "metrics.jsonl").write_text("".join(told))
    (top / f"{attempt.name}.done").touch()


def first(top: Path, steps: int, *overrides: str, n: int = 9) -> Record:
    """Train shards of one iteration: all that they cost is what comes with a shard."""
    asked = [f"total_steps={steps}", f"eval_interval={steps}", f"seeds={4 * n}"]
    folder, jobs = runs.new_run([*overrides, *asked, f"run_dir={top / 'one'}"], elsewhere=True)
    plan = shards.make(folder, jobs, n)
    ends: list[Clock] = [now()]

    def tell(line: str) -> None:
        if " done in " in line:
            ends.append(now())

    Worker(folder, plan, jobs, stop=lambda: False, tell=tell).work()
    assert len(ends) == n + 1
    first = [b - a for a, b in zip(ends[0], ends[1], strict=True)]
    more = [(b - a) / (n - 1) for a, b in zip(ends[1], ends[-1], strict=True)]
    return {
        "first": dict(zip(("wall_s", "cpu_s"), first, strict=True)),
        "every_further": dict(zip(("wall_s", "cpu_s"), more, strict=True)),
    }


def in_turns(top: Path, n: int, steps: int) -> Record:
    """Shards on 3m beside the same lanes, trained by themselves, in turns."""
    asked = [*LARGE, f"total_steps={steps}", f"seeds={2 * (n + 1)}", f"run_dir={top / 'turns'}"]
    folder, jobs = runs.new_run(asked, elsewhere=True)
    plan = shards.make(folder, jobs, n + 1)
    pairs: list[Record] = []
    began, before = now(), None

    def alone() -> Record:
        index, began = len(pairs), now()
        (top / f"alone{index}").mkdir()
        job = plan.shards[index].of(jobs)
        list(execute.execute(top / f"alone{index}", [job], opener=worker._programs.open))
        return since(began)

    def tell(line: str) -> None:  # before each shard and after it, by the worker
        nonlocal began, before
        if " done in " in line:
            shard = since(began)
            pairs.append({"shard": shard, "alone": before or alone()})
            print(pairs[-1], flush=True)
        else:
            before = alone() if len(pairs) % 2 else None  # they take turns at being first
            began = now()

    worker = Worker(folder, plan, jobs, stop=lambda: len(pairs) > n, tell=tell)
    worker.work()
    del pairs[0]  # it compiled
    more = [pair["shard"]["cpu_s"] - pair["alone"]["cpu_s"] for pair in pairs]
    whole = [pair["alone"]["cpu_s"] for pair in pairs]
    found = {"steps": steps, "pairs": pairs, "alone_cpu_s": statistics.mean(whole)}
    return found | {"more_cpu_s": statistics.mean(more), "least_and_most": [min(more), max(more)]}


def drill(top: Path, n_shards: int, workers: int, every_s: float, times: int) -> Record:
    """Kill a worker now and then; count, and hold what is merged against undisturbed runs."""
    asked = [*DRILLED, f"seeds={4 * n_shards}"]
    jaxvff, quiet = [sys.executable, "-m", "jaxvff"], {"check": True, "stdout": subprocess.DEVNULL}

    def plan(folder: Path) -> None:
        command = [*jaxvff, "plan", "train", *asked, f"shards={n_shards}", f"run_dir={folder}"]
        subprocess.run(command, **quiet)

    def merge(folder: Path) -> list[dict]:
        subprocess.run([*jaxvff, "merge", str(folder)], **quiet)
        return reports(folder)

    began = now()
    subprocess.run([*jaxvff, "train", *asked, f"run_dir={top / 'whole'}"], **quiet)
    unsharded, whole = since(began), reports(top / "whole")
    plan(top / "calm")
    subprocess.run([*jaxvff, "work", str(top / "calm")], **quiet)
    calm = merge(top / "calm")

    drills: list[Record] = []
    for i in range(times):
        folder = top / f"big{i}"
        began = now()
        plan(folder)
        launch = [*jaxvff, "launch", str(folder), "on=local", f"workers={workers}"]
        counted = kill_until_done(launch, folder, every_s, i)
        merged = merge(folder)
        counted |= {"sharded": since(began)} | standing(folder, n_shards)
        counted["beside_undisturbed"] = compared(merged, calm)
        counted["beside_unsharded"] = compared(merged, whole)
        drills.append(counted)
        print(json.dumps(counted), flush=True)
    asked_for = {"shards": n_shards, "workers": workers, "every_s": every_s}
    return {"unsharded": unsharded, **asked_for, "drills": drills}


def kill_until_done(launch: list[str], folder: Path, every_s: float, seed: int) -> Record:
    """Launch workers, and kill one of those that train every so often; how many were killed.

    Raises:
      SystemExit: the launcher gave up.
    """
    draw, kills, missed = random.Random(seed), 0, 0
    log = folder.with_suffix(".log")
    with log.open("w") as out, subprocess.Popen(launch, stdout=out, stderr=out) as launched:
        deadline = time.monotonic() + PATIENCE_S
        while launched.poll() is None:
            try:
                launched.wait(every_s)
                break
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, log.read_text()[-2000:]
            owners = [x for x in running(folder) if x.get("deaths", 0) < MOST_DEATHS - 2]
            try:
                os.kill(draw.choice(owners)["process"], signal.SIGKILL)
                kills += 1
            except (IndexError, ProcessLookupError):  # nobody trains, or it has ended meanwhile
                missed += 1
    if launched.returncode:
        raise SystemExit(f"launch ended with {launched.returncode}:\n{log.read_text()[-2000:]}")
    return {"kills": kills, "missed": missed}


def standing(folder: Path, n_shards: int) -> Record:
    """What is left of the workers: takeovers, and each seed counted by what shards say of it."""
    seeds: Counter[int] = Counter()
    standings = Shelf(folder / shards.FOLDER).standings(n_shards)
    for one in standings:
        assert one.attempt is not None
        with np.load(one.attempt / RESULTS) as saved:
            seeds.update(json.loads(str(saved["about"]))["shard"][2])
    owners = [read(path) for path in (folder / shards.FOLDER).glob(f"*/{OWNER}")]
    return {
        "done": sum(one.state == "done" for one in standings),
        "takeovers": sum(len(one.attempts) - 1 for one in standings),
        "most_attempts": max(len(one.attempts) for one in standings),
        "in_a_row": max(owner.get("deaths", 0) for owner in owners),
        "seeds": 4 * n_shards,
        "seeds_lost": 4 * n_shards - len(seeds),
        "seeds_twice": sum(count > 1 for count in seeds.values()),
    }


def compared(mine: list[Record], other: list[Record]) -> Record:
    """Reports, number by number: all bits, and else how far they are apart."""
    assert [list(a) for a in mine] == [list(b) for b in other]
    pairs = [(a[k], b[k]) for a, b in zip(mine, other, strict=True) for k in a]
    apart = [
        np.abs(np.array(a, float) - np.array(b, float)) for a, b in pairs if a != b
    ]  # what is no number is equal, or this fails
    n = sum(np.size(np.array(a, object)) for a, _ in pairs)
    return {
        "reports": len(mine),
        "numbers": n,
        "other_bits": int(sum((d > 0).sum() for d in apart)),
        "largest_difference": max((float(np.nanmax(d)) for d in apart), default=0.0),
        "optimal_at_the_end": [int(np.sum(one[-1]["optimal"])) for one in (mine, other)],
    }


def running(folder: Path) -> list[Record]:
    """The owners of the shards that are trained now."""
    standings = Shelf(folder / shards.FOLDER).standings(len(shards.read(folder).shards))
    return [s.owner for s in standings if s.state == "running" and "process" in s.owner]


def reports(folder: Path) -> list[dict]:
    """The merged metrics.jsonl without its clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in lines]


def keep(out: Path, name: str, part: Callable[[], Record]) -> None:
    """Measure a part, print it, and write it to the record.

    Raises:
      SystemExit: the record is of another machine or of other versions.
    """
    origin = about()
    del origin["commit"]  # each part has its own
    kept: Record = json.loads(out.read_text()) if out.exists() else origin
    for key, value in origin.items():
        if kept[key] != value:
            raise SystemExit(
                f"{out} is of {key} {kept[key]}; here it is {value}. Name another file with out=, "
                "or remove that one"
            )
    asked = " ".join(["python -m benchmarks.shards", *sys.argv[1:]])
    found = {"command": asked, "commit": commit(ROOT), "load": os.getloadavg()[0], **part()}
    print(name, json.dumps(found), flush=True)
    parts = {**kept.get("parts", {}), name: found}
    write_json(out, {"what": __doc__.splitlines()[0], "notes": NOTES, **origin, "parts": parts})


def run() -> None:
    """The command line."""
    asked = dict(text.split("=") for text in sys.argv[1:])
    out = Path(asked.pop("out", ROOT / "benchmarks" / "results" / "shards.json"))
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    n = {"seeds": 4096, "shards": 64, "listed": 100_000, "workers": 4, "times": 1, "steps": MINUTE}
    n |= {key: int(value) for key, value in asked.items() if key != "every"}
    every_s = float(asked.get("every", 20))
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        os.environ["JAXVFF_CACHE"] = str(top / "cache")  # the first worker compiles
        if "drill" in n:
            part = f"drill {n['drill']}"
            keep(out, part, lambda: drill(top, n["drill"], n["workers"], every_s, n["times"]))
            return
        if "pairs" in n:
            keep(out, f"pairs {n['steps']}", lambda: in_turns(top, n["pairs"], n["steps"]))
            return
        keep(out, "first", lambda: first(top, 1, "method=qmix"))
        keep(out, "planning", lambda: planning(top))
        for listed in (n["listed"] // 10, n["listed"]):
            keep(out, f"listing {listed}", lambda listed=listed: listing(top, listed))
        keep(out, f"merging {n['seeds']}", lambda: merging(top, n["seeds"], n["shards"]))


if __name__ == "__main__":
    run()
