"""A safety net for changes that should change no number: short runs, recorded to the last bit.

    python tests/record_runs.py record FOLDER [NAME ...]     before a change
    python tests/record_runs.py compare FOLDER OTHER         after it, with a second recording

A recording holds, for every run: the lines of metrics.jsonl, the tables and answers in JSON, what
`evaluate` prints, and a digest of every array in the checkpoint. Arrays are compared as a set, so
that state may move to another place of a tree. Recordings of two machines differ: XLA compiles for
the processor that it finds. The runs go through the command line alone, and know no module here.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TIMES = ("wall_s", "compile_s", "timing", "machine", "peak_rss_mb", "run_dir")

SMALL = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
         "total_steps=240", "eval_interval=40", "epsilon_steps=100",
         "target_interval=7"]  # fmt: skip
MANY_STEPS = ["seeds=2", "hidden_dim=16", "n_envs=2", "segment_length=101", "buffer_size=16",
              "batch_size=4", "learn_start=4", "updates=2", "target_interval=3", "eval_episodes=4",
              "total_steps=1600", "eval_interval=800", "epsilon_steps=800"]  # fmt: skip
REPLAY = ["learner=replay", "norm=none", "optimizer=adam", "utility=gru"]
METHODS = ["iql,vdn,qmix,nmqmix", "qatten,qplex,qtran", "cw_qmix,ow_qmix",
           "ordered_nmqmix,ordered_joint"]  # fmt: skip
WITHOUT_EPSILON = [text for text in SMALL if not text.startswith("epsilon")]
CLAIMS = ["points=6", "lanes=8", "updates=60", "temperatures=[0.3,1]"]
STABILITY = [*CLAIMS, "starts=2", "time=4"]

# name -> commands, one after the other; {run} is the folder of the run
RUNS: dict[str, list[list[str]]] = {
    f"matrix_{i}": [["train", f"sweep.method=[{names}]", "run_dir={run}", *SMALL]]
    for i, names in enumerate(METHODS)
} | {
    "matrix_b_sarsa": [["train", "method=nmqmix", "env=matrix/b", "target=sarsa", "run_dir={run}",
                        *SMALL, "optimizer=rmsprop", "returns=n_step", "lr_final=0.1",
                        "lr_steps=200"]],
    "matrix_softmax": [["train", "method=qmix", "env=matrix/random", "env.n_agents=3",
                        "explore=softmax", "temperature=0.5", "target=max", "returns=one_step",
                        "target_tau=0.3", "optimizer=radam", "run_dir={run}", *WITHOUT_EPSILON]],
    "matrix_prioritised": [["train", "method=qplex", "replay=prioritised", "utility=gru",
                            "last_action=true", "shared=false", "run_dir={run}", *SMALL]],
    "matrix_search": [["train", "method=ordered_joint", "method.max_listed=16", "act_search=0.3",
                       "search_fraction=0.4", "updates=2", "env.game=penalty", "method.restarts=1",
                       "run_dir={run}", *SMALL]],
    "contextual": [["train", "sweep.method=[cw_qmix,ordered_joint]", "env=contextual",
                    "env.noise=1.0", "env.states=12", "run_dir={run}", *SMALL, "n_envs=4"]],
    "two_step": [["train", "method=ordered_joint", "env=matrix_steps/two_step", "target=search",
                  "utility=gru", "run_dir={run}", *SMALL, "segment_length=3", "bonus=rnd"]],
    "predator_prey": [["train", "sweep.method=[ow_qmix,ordered_nmqmix]", "env=predator_prey",
                       "run_dir={run}", *MANY_STEPS, "seeds=1", "segment_length=201"]],
    "smax_qmix": [["train", "env=smax/3m", "method=qmix", *REPLAY, "run_dir={run}", *MANY_STEPS]],
    "smax_nmqmix_rnd": [["train", "env=smax/3m", "method=nmqmix_rnd", *REPLAY, "replay=prioritised",
                         "run_dir={run}", *MANY_STEPS, "utility=mlp"]],
    "smax_ordered_joint": [["train", "env=smax/3m", "method=ordered_joint", *REPLAY, "target=search",
                            "run_dir={run}", *MANY_STEPS, "utility=mlp"]],
    "smax_parallel": [["train", "env=smax/3m", "sweep.method=[nmqmix_rnd,ow_qmix]", "utility=gru",
                       "run_dir={run}", "seeds=2", "hidden_dim=16", "n_envs=4", "minibatches=2",
                       "segment_length=20", "burn_in=2", "eval_episodes=4", "total_steps=1600",
                       "eval_interval=800", "epsilon_steps=800"]],
    "host": [["train", "env=custom", "env.entry=foreign:Countdown", "env.time_limit=20",
              "env.workers=2", "method=qmix", "run_dir={run}", *MANY_STEPS, "segment_length=41",
              "n_envs=3", "utility=mlp"]],
    "sweep": [["train", "sweep.lr=[1e-3,3e-3]", "sweep.epsilon_end=[0.1,1.0]",
               "sweep.env=[matrix/a,matrix/b]", "run_dir={run}", *SMALL]],
    "resume": [["train", "run_dir={run}", *SMALL, "total_steps=150", "checkpoint_interval=60"],
               ["train", "resume={run}", "total_steps=240"],
               ["evaluate", "run={run}"]],
    "table1": [["reproduce", "table1", "seeds=2", "total_steps=200", "run_dir={run}"]],
    "stability": [["stability", "game=a", "run_dir={run}", *STABILITY]],
    "claims": [["stability", "claims", "game=b", "mixer=qmix", "run_dir={run}", *CLAIMS]],
}  # fmt: skip


def record(folder: Path, names: list[str]) -> None:
    """Run everything, on one core each, and write `<folder>/<name>.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    cores = sorted(os.sched_getaffinity(0))
    with concurrent.futures.ThreadPoolExecutor(len(cores)) as pool:
        free = list(cores)

        def one(name: str) -> None:
            core, began = free.pop(), time.time()
            try:
                said = _run(folder, name, core)
            finally:
                free.append(core)
            (folder / f"{name}.json").write_text(json.dumps(said, indent=1, sort_keys=True))
            print(f"{name}: {time.time() - began:.0f} s", flush=True)

        list(pool.map(one, names or RUNS))


def _run(folder: Path, name: str, core: int) -> dict:
    run, printed = folder.resolve() / name, []
    shutil.rmtree(run, ignore_errors=True)
    for command in RUNS[name]:
        # The last of each key: a command line that has a key twice is refused.
        last = {part.partition("=")[0]: part for part in command}
        args = [part.replace("{run}", str(run)) for part in last.values()]
        done = subprocess.run(
            ["taskset", "-c", str(core), str(Path(sys.executable).parent / "jaxvff"), *args],
            cwd=ROOT, capture_output=True, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT / "tests" / "games")},
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(
                f"{name}: {' '.join(args)} ended with {done.returncode}\n{done.stderr}"
            )
        if command[0] == "evaluate":
            printed.append(done.stdout.replace(str(run), "RUN"))
    return {"printed": printed, **_written(run)}


def _written(run: Path) -> dict:
    """All that a run folder says, but for times."""
    files: dict[str, object] = {}
    for path in sorted(run.rglob("*.json*")):
        name = str(path.relative_to(run))
        if "checkpoint" in name or path.name == "timing.json":
            continue
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        files[name] = [_timeless(json.loads(line)) for line in lines]
    arrays = [digest for path in sorted(run.rglob("state")) for digest in _digests(path)]
    return {"files": files, "arrays": sorted(arrays)}


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in TIMES}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def _digests(path: Path) -> list[str]:
    import numpy as np
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(path)
    out = []
    for x in arrays.values():
        x = np.asarray(x)
        out.append(f"{x.dtype}{list(x.shape)} {hashlib.sha256(x.tobytes()).hexdigest()[:16]}")
    return out


def compare(one: Path, other: Path) -> int:
    """Print what differs; the exit code."""
    differing = 0
    for path in sorted(one.glob("*.json")):
        if not (other / path.name).exists():
            print(f"{path.stem}: not recorded in {other}")
            differing += 1
            continue
        a, b = json.loads(path.read_text()), json.loads((other / path.name).read_text())
        told = list(_differences(a["printed"], b["printed"], "printed"))
        told += _differences(a["files"], b["files"], "files")
        lost, new = Counter(a["arrays"]) - Counter(b["arrays"]), Counter(b["arrays"]) - Counter(a["arrays"])  # fmt: skip
        told += [f"array gone: {x}" for x in lost.elements()]
        told += [f"array new:  {x}" for x in new.elements()]
        print(f"{path.stem}: {'equal' if not told else f'{len(told)} differences'}")
        for line in told[:12]:
            print("   ", line)
        differing += bool(told)
    return differing


def _differences(a: object, b: object, where: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            if key not in a or key not in b:
                yield f"{where}.{key}: only in {'the second' if key in b else 'the first'}"
            else:
                yield from _differences(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            yield from _differences(x, y, f"{where}[{i}]")
    elif a != b:
        yield f"{where}: {str(a)[:60]} -> {str(b)[:60]}"


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    if command == "record":
        record(Path(folder), rest)
    else:
        sys.exit(compare(Path(folder), Path(rest[0])))
