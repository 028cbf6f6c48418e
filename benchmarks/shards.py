"""What planning, looking after and merging many shards cost here, and what becomes of the killed.

python -m benchmarks.shards [seeds=4096] [shards=64] [listed=100000]   all but the drill
python -m benchmarks.shards drill=64 [workers=4] [every=20]            the drill alone

Merging: one shard is trained; the others get copies of its files, under their own seeds and
fingerprints. Overhead: what a shard costs that trains for one iteration. The drill: a worker is
killed every 20 seconds until all shards are done; then each seed is counted, and the merged reports
are held against those of one worker that nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np

from jaxvff.cli.main import main
from jaxvff.runs import folder as runs
from jaxvff.runs import shards
from jaxvff.runs.leases import OWNER, Shelf, read
from jaxvff.runs.work import RESULTS, Worker

RUN = ["method=vdn", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
       "total_steps=2000", "eval_interval=100"]  # fmt: skip
N_LANES = 100_000  # planned


def seconds(what: str, began: tuple[float, float]) -> None:
    """Print the seconds since `began`: by the clock, and of the processor."""
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    print(f"{what}: {wall:.2f} s, {cpu:.2f} s of CPU", flush=True)


def now() -> tuple[float, float]:
    """By the clock, and of the processor."""
    return time.perf_counter(), time.process_time()


def planning(top: Path) -> None:
    """Plan many lanes, and read the plan again."""
    began = now()
    folder, jobs = runs.new_run(
        [*RUN, f"seeds={N_LANES}", f"run_dir={top / 'plan'}"], elsewhere=True
    )
    shards.make(folder, jobs, 1024)
    shards.read(folder)
    seconds(f"planning {N_LANES:,} lanes in 1,024 shards", began)


def listing(top: Path, n: int) -> None:
    """Look where many shards stand: all but one are done."""
    shelf = Shelf(top / "listed")
    shelf.folder.mkdir()
    for shard in range(n):
        shelf.path(shard, 1).mkdir()
        if shard:
            (shelf.folder / f"{shard:04d}.1.done").touch()
    began = now()
    states = [s.state for s in shelf.standings(n)]
    assert states[0] == "running"
    assert set(states[1:]) == {"done"}
    seconds(f"listing {n:,} shards in one folder", began)


def merging(top: Path, n_seeds: int, n_shards: int) -> None:
    """Train a shard, copy it for all others, and merge."""
    folder, jobs = runs.new_run(
        [*RUN, f"seeds={n_seeds}", f"run_dir={top / 'big'}"], elsewhere=True
    )
    plan = shards.make(folder, jobs, n_shards)
    done = folder / shards.FOLDER / "0000.1.done"
    began = now()
    worker = Worker(folder, plan, jobs, stop=done.exists, tell=lambda line: None)
    worker.work()
    seconds(f"training one shard of {plan.shards[0].n_lanes} seeds", began)
    shutil.rmtree(folder / shards.FOLDER / "0001.1", ignore_errors=True)
    for index in range(1, n_shards):
        copy(folder / shards.FOLDER, index, plan.shards[index], jobs)
    began = now()
    assert main(["merge", str(folder)]) == 0
    seconds(f"merging {n_seeds:,} seeds of {n_shards} shards, tables and curves included", began)


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


def overhead(top: Path, name: str, steps: int, *overrides: str, n: int = 9) -> None:
    """Train shards of one iteration: all that they cost is what comes with a shard."""
    asked = [
        f"total_steps={steps}",
        f"eval_interval={steps}",
        f"seeds={4 * n}",
        f"run_dir={top / name.replace(' ', '')}",
    ]
    folder, jobs = runs.new_run([*overrides, *asked], elsewhere=True)
    plan = shards.make(folder, jobs, n)
    ends: list[tuple[float, float]] = [now()]

    def tell(line: str) -> None:
        if " done in " in line:
            ends.append(now())

    Worker(folder, plan, jobs, stop=lambda: False, tell=tell).work()
    assert len(ends) == n + 1
    first = [b - a for a, b in zip(ends[0], ends[1], strict=True)]
    more = [(b - a) / (n - 1) for a, b in zip(ends[1], ends[-1], strict=True)]
    print(f"{name}, the first shard of 4 lanes: {first[0]:.2f} s, {first[1]:.2f} s of CPU")
    print(f"{name}, every further one: {more[0]:.2f} s, {more[1]:.2f} s of CPU", flush=True)


def drill(top: Path, n_shards: int, workers: int, every_s: float) -> None:
    """Kill a worker now and then; say how many, and hold what is merged against one worker's."""
    asked = [*RUN[:-2], "total_steps=20000", "eval_interval=1000", "checkpoint_interval=500"]
    asked += [f"seeds={4 * n_shards}"]
    jaxvff, draw = [sys.executable, "-m", "jaxvff"], random.Random(0)
    big, quiet = top / "big", top / "quiet"
    for folder in (big, quiet):
        plan = [*jaxvff, "plan", "train", *asked, f"shards={n_shards}", f"run_dir={folder}"]
        subprocess.run(plan, check=True, stdout=subprocess.DEVNULL)
    began, kills = now(), 0
    launch = [*jaxvff, "launch", str(big), "on=local", f"workers={workers}"]
    with subprocess.Popen(launch, stdout=subprocess.DEVNULL) as launched:
        while launched.poll() is None:
            time.sleep(every_s)
            if victims := running(big):
                os.kill(draw.choice(victims), signal.SIGKILL)
                kills += 1
    assert launched.returncode == 0
    attempts = len(list((big / shards.FOLDER).glob("*.[0-9]"))) - n_shards
    seconds(f"{n_shards} shards, {workers} workers, {kills} kills, {attempts} takeovers", began)
    subprocess.run([*jaxvff, "work", str(quiet)], check=True, stdout=subprocess.DEVNULL)
    for folder in (big, quiet):
        subprocess.run([*jaxvff, "merge", str(folder)], check=True, stdout=subprocess.DEVNULL)
    counts: Counter[int] = Counter()
    for standing in Shelf(big / shards.FOLDER).standings(n_shards):
        assert standing.attempt is not None
        with np.load(standing.attempt / RESULTS) as saved:
            counts.update(json.loads(str(saved["about"]))["shard"][2])
    lost = 4 * n_shards - len(counts)
    twice = sum(count > 1 for count in counts.values())
    same = reports(big) == reports(quiet)
    print(f"seeds lost {lost}, twice {twice}; merged = one undisturbed worker's: {same}")


def running(folder: Path) -> list[int]:
    """The processes that have a shard now."""
    standings = Shelf(folder / shards.FOLDER).standings(len(shards.read(folder).shards))
    return [
        read(s.attempt / OWNER)["process"]
        for s in standings
        if s.state == "running" and s.attempt and "process" in s.owner
    ]


def reports(folder: Path) -> list[dict]:
    """The merged metrics.jsonl without its clock."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "wall_s"} for line in lines]


def run() -> None:
    """The command line."""
    asked = dict(text.split("=") for text in sys.argv[1:])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as name:
        if "drill" in asked:
            drill(
                Path(name),
                int(asked["drill"]),
                int(asked.get("workers", 4)),
                float(asked.get("every", 20)),
            )
            return
        overhead(Path(name), "matrix game", 1, "method=qmix")
        overhead(Path(name), "3m with replay", 4064, "env=smax/3m", "method=qmix", "learner=replay")
        planning(Path(name))
        listing(Path(name), int(asked.get("listed", 100_000)))
        merging(Path(name), int(asked.get("seeds", 4096)), int(asked.get("shards", 64)))


if __name__ == "__main__":
    run()
