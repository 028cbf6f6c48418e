"""What planning, looking after and merging many shards cost here; one shard alone is trained.

python -m benchmarks.shards [seeds=4096] [shards=64] [listed=100000]

One shard is trained. The others get copies of its files, under their own seeds and fingerprints.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from jaxvff.cli.main import main
from jaxvff.runs import folder as runs
from jaxvff.runs import shards
from jaxvff.runs.leases import Shelf
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


if __name__ == "__main__":
    asked = dict(text.split("=") for text in sys.argv[1:])
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with tempfile.TemporaryDirectory() as name:
        planning(Path(name))
        listing(Path(name), int(asked.get("listed", 100_000)))
        merging(Path(name), int(asked.get("seeds", 4096)), int(asked.get("shards", 64)))
