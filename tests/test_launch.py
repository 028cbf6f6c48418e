"""Workers that engines start, real processes: whoever is killed, no seed is lost or there twice."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from jaxvff.cli import on_local, on_ray, on_slurm
from jaxvff.cli.launch import Order
from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.runs import leases
from jaxvff.runs.leases import END, OWNER, Shelf
from jaxvff.runs.work import RESULTS
from tests import slurm_here
from tests.command_line import once
from tests.test_run import metrics

JAXVFF = [sys.executable, "-m", "jaxvff"]
# Shards of four lanes: two a device where a worker has both cores, and vmaps of two lanes or more
# agree bit for bit.
RUN = ["method=vdn", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
       "total_steps=12000", "eval_interval=3000", "checkpoint_interval=1000", "seeds=32"]  # fmt: skip
KILLS = 6  # at random times; benchmarks/results/shards.json has a drill with more
PATIENCE_S = 540.0


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All workers run one program: it is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXVFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("XLA_FLAGS", raising=False)
        yield


def planned(folder: Path, n: int, *changes: str) -> Path:
    args = ["plan", "train", *once([*RUN, *changes]), f"shards={n}", f"run_dir={folder}"]
    assert main(args) == 0
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The merged reports of RUN in 8 shards, by one worker that nobody disturbs."""
    folder = planned(tmp_path_factory.mktemp("undisturbed") / "big", 8)
    subprocess.run([*JAXVFF, "work", str(folder)], check=True, capture_output=True)
    return merged(folder)


def half(reports: list[dict]) -> list[dict]:
    """The reports of the first 16 seeds, which clusters train alone."""
    return [
        {name: x[:16] if isinstance(x, list) else x for name, x in report.items()}
        for report in reports
    ]


def merged(folder: Path) -> list[dict]:
    assert main(["merge", str(folder)]) == 0
    return metrics(folder)


def seeds_done(folder: Path) -> Counter:
    """How often each seed is in a shard that counts: by what the shards say of themselves."""
    counts: Counter = Counter()
    shelf = Shelf(folder / "shards")
    n = len(json.loads((folder / "plan.json").read_text())["shards"])
    for standing in shelf.standings(n):
        assert standing.state == "done"
        assert standing.attempt is not None
        with np.load(standing.attempt / RESULTS) as saved:
            counts.update(json.loads(str(saved["about"]))["shard"][2])
    return counts


def training(folder: Path) -> list[Path]:
    """The attempts at shards whose worker lives."""
    paths = (folder / "shards").glob(f"*.[0-9]*/{OWNER}")
    return [path.parent for path in paths if alive(leases.read(path).get("process", 0))]


def running(folder: Path) -> list[int]:
    """The processes that train a shard now, or have trained one and live."""
    found = [leases.read(attempt / OWNER)["process"] for attempt in training(folder)]
    return list(dict.fromkeys(found))


def left_in_order(attempts: list[Path]) -> bool:
    """Whether workers have completed them, or saved and given them up."""
    ended = [leases.read(attempt / END).get("state") for attempt in attempts]
    done = [attempt.with_name(f"{attempt.name}.done").exists() for attempt in attempts]
    return all(a or b == "stopped" for a, b in zip(done, ended, strict=True))


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def age_s(process: int) -> float:
    """Seconds since a process began; 0 if it is gone."""
    try:
        return time.time() - Path(f"/proc/{process}").stat().st_mtime
    except OSError:
        return 0.0


def wait_until(true: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def kill_at_random(folder: Path, launch: subprocess.Popen, kills: int) -> None:
    draw, killed, short = random.Random(0), 0, 0
    while killed < kills:
        time.sleep(draw.uniform(0.1, 1.5))
        assert launch.poll() is None, "it was through before the last kill"
        # Of very young ones only as many as `launch` does not take for workers that cannot begin.
        least_s = 0 if short < on_local.MOST_SHORT else on_local.FEWEST_S
        if victims := [p for p in running(folder) if age_s(p) > least_s]:
            victim = draw.choice(victims)
            short += age_s(victim) <= on_local.FEWEST_S + 0.5
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: not alive(victim), "it lives on")
            killed += 1


@pytest.mark.slow
def test_whoever_is_killed_or_stopped_no_seed_is_lost_and_none_is_there_twice(
    tmp_path: Path, undisturbed: list[dict], capsys
) -> None:
    """Workers are killed at random times, then there is Ctrl-C, then their launcher is killed."""
    folder, log = planned(tmp_path / "big", 8), tmp_path / "launch.txt"
    command = [*JAXVFF, "launch", str(folder), "on=local", "workers=2"]
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as launch:
        try:
            kill_at_random(folder, launch, KILLS)
            wait_until(lambda: running(folder), "no worker began again")
            interrupted = training(folder)
            launch.send_signal(signal.SIGINT)
            assert launch.wait(PATIENCE_S) == 130, log.read_text()
        finally:
            launch.terminate()
    assert "every worker saves a checkpoint first" in log.read_text()
    assert not running(folder)
    assert left_in_order(interrupted)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as launch:
        wait_until(lambda: running(folder), "no worker began")
        orphaned = training(folder)
        launch.kill()
    wait_until(lambda: not running(folder), "a worker lives on")
    assert left_in_order(orphaned)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout
    assert "all are done: jaxvff merge" in again.stdout
    assert seeds_done(folder) == dict.fromkeys(range(32), 1)
    assert merged(folder) == undisturbed
    capsys.readouterr()
    assert main(command[3:]) == 0
    assert "nothing to start; all are done" in capsys.readouterr().out


def test_each_killed_worker_is_replaced_while_the_others_live(plan_only: Path, monkeypatch) -> None:
    """With processes that sleep in place of workers."""
    begun: list[subprocess.Popen] = []

    def begin(order: Order, log: Path, **options: object) -> subprocess.Popen:
        begun.append(subprocess.Popen(["sleep", "60"] if len(begun) < 2 else ["true"]))
        return begun[-1]

    monkeypatch.setattr(on_local, "begin", begin)
    monkeypatch.setattr(on_local, "FEWEST_S", 0.1)
    monkeypatch.setattr(on_local, "LOOK_S", 0.05)
    monkeypatch.setattr(on_local, "end", lambda order: 0)
    order = Order(plan_only, "0123", 2, False, False, {"workers": "2"})
    launch = threading.Thread(target=on_local.start, args=(order,))
    launch.start()
    replaced = []
    for victim in (1, 0):  # the first one lives on while the second is replaced
        replaced.append(leases.poll(lambda: len(begun) == 3 - victim, 10, lambda: False))
        time.sleep(0.2)
        begun[victim].kill()
    launch.join(10)
    assert not launch.is_alive()
    assert replaced == [True, True]
    assert len(begun) == 4


def test_a_worker_has_its_share_of_the_cores(monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 3, 5, 7})
    assert [on_local.share(i, 2) for i in range(2)] == [[0, 3, 7], [2, 5]]
    assert [on_local.share(i, 6) for i in range(6)] == [[0], [2], [3], [5], [7], [0]]


def test_workers_that_share_a_gpu_leave_each_other_memory(monkeypatch) -> None:
    preallocate, fraction = on_local.MEMORY
    for name in on_local.MEMORY:
        monkeypatch.delenv(name, raising=False)
    assert on_local.on_gpu(1, 2, ["0", "3"]) == {"CUDA_VISIBLE_DEVICES": "3"}
    shared = {"CUDA_VISIBLE_DEVICES": "0", preallocate: "false"}
    assert on_local.on_gpu(2, 3, ["0", "3"]) == shared
    monkeypatch.setenv(fraction, ".3")  # the user's word
    assert on_local.on_gpu(2, 3, ["0", "3"]) == {"CUDA_VISIBLE_DEVICES": "0"}


def test_gpus_are_those_that_the_environment_leaves(monkeypatch) -> None:
    monkeypatch.setenv("JAX_PLATFORMS", "")
    for text, found in (("0,3", ["0", "3"]), ("", []), ("-1", []), ("GPU-1a", ["GPU-1a"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", text)
        assert on_local.gpus() == found
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    assert on_local.gpus() == []


# What is refused.


@pytest.fixture
def plan_only(tmp_path: Path) -> Path:
    args = ["plan", "train", *RUN, "shards=2", f"run_dir={tmp_path / 'big'}"]
    assert main(args) == 0
    return tmp_path / "big"


def refused(capsys, *args: str) -> str:
    assert main(list(args)) == 2
    return capsys.readouterr().err


def test_an_unknown_engine_or_key_is_refused(plan_only: Path, capsys) -> None:
    folder = str(plan_only)
    assert "on='slurn' is unknown; did you mean slurm?" in refused(
        capsys, "launch", folder, "on=slurn"
    )
    assert "on='nothing' is unknown" in refused(capsys, "launch", folder)
    assert "launch on=local takes" in refused(capsys, "launch", folder, "on=local", "partition=x")
    assert "workers=0 must be" in refused(capsys, "launch", folder, "on=local", "workers=0")
    assert "is no plan" in refused(capsys, "launch", str(plan_only.parent), "on=local")
    assert list((plan_only / "shards").iterdir()) == []


@pytest.mark.parametrize(
    "typed", ["-m", "--multirun", "hydra/launcher=submitit_slurm", "hydra.launcher=joblib"]
)
@pytest.mark.parametrize("command", ["train", "plan"])
def test_hydras_own_launchers_are_refused_with_a_sentence(command: str, typed: str, capsys) -> None:
    args = ["train", typed] if command == "train" else ["plan", "train", typed, "shards=2"]
    err = refused(capsys, *args)
    assert "Hydra's launchers start a job for every value" in err
    assert "sweep.<key>=[...]" in err
    assert "jaxvff launch" in err


def test_a_launch_that_cannot_be_says_why_and_starts_nothing(
    plan_only: Path, capsys, monkeypatch
) -> None:
    folder = str(plan_only)
    slurm = ("launch", folder, "on=slurm")
    assert "time= must be Slurm's limit" in refused(capsys, *slurm)
    assert "time=1h must be" in refused(capsys, *slurm, "time=1h")
    assert "warn=60 is no less than the 60 s" in refused(capsys, *slurm, "time=1", "warn=60")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "finds no sbatch on the path" in refused(capsys, *slurm, "time=10")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "uv sync --extra slurm" in refused(capsys, *slurm, "time=10")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "uv sync --extra ray" in refused(capsys, "launch", folder, "on=ray")
    assert list((plan_only / "shards").iterdir()) == []


def test_a_node_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    order = Order(tmp_path / "gone", "0123", 2, False, False, {})
    for begin in (lambda: on_slurm.Task(order)(0), lambda: on_ray.work(order, 0, 1)):
        with pytest.raises(UserError) as caught:
            begin()
        assert f"{tmp_path / 'gone'} is not there on " in str(caught.value)
        assert "has to be on a file system that all nodes share" in str(caught.value)


def test_the_manifest_for_kubernetes_starts_workers_in_an_indexed_job(capsys) -> None:
    """It is parsed, and its command is one of ours; there is no Kubernetes here."""
    text = (Path(__file__).parent.parent / "docs" / "scale.md").read_text()
    (found,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    job = yaml.safe_load(found)
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["spec"]["completionMode"] == "Indexed"
    pod = job["spec"]["template"]["spec"]
    (container,), (volume,) = pod["containers"], pod["volumes"]
    program, *args = container["command"]
    assert program == "jaxvff"
    assert container["volumeMounts"][0]["name"] == volume["name"]
    assert args[1].startswith(container["volumeMounts"][0]["mountPath"])
    assert "/shared/big is no plan" in refused(capsys, *args)  # not: an unknown command or key


# Slurm.

needs_slurm = pytest.mark.skipif(bool(slurm_here.missing()), reason=slurm_here.missing())


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    pytest.importorskip("submitit")
    with slurm_here.cluster(tmp_path_factory.mktemp("slurm") / "here") as env:
        yield env


def launch_slurm(folder: Path, env: dict[str, str], *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [*JAXVFF, "launch", str(folder), "on=slurm", *options],
        env=os.environ | env, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@needs_slurm
def test_an_array_of_slurm_jobs_does_every_shard_once_though_a_worker_is_killed(
    tmp_path: Path, undisturbed: list[dict], slurm: dict[str, str]
) -> None:
    folder = planned(tmp_path / "big", 4, "seeds=16")
    code, printed = launch_slurm(folder, slurm, "time=30", "partition=none", "workers=2")
    assert code == 2
    assert "Slurm took no job" in printed
    code, printed = launch_slurm(folder, slurm, "time=30", "partition=all", "workers=2")
    assert code == 0, printed
    assert "2 jobs are queued" in printed
    wait_until(lambda: running(folder), "no worker began")
    os.kill(running(folder)[0], signal.SIGKILL)
    queue = lambda: slurm_here.asked(slurm, "squeue", "-h")
    wait_until(lambda: not queue().strip(), "jobs remain")
    if len(list((folder / "shards").glob("*.done"))) < 4:  # the killed one's was the last
        assert launch_slurm(folder, slurm, "time=30", "workers=1")[0] == 0
        wait_until(lambda: not queue().strip(), "jobs remain")
    assert seeds_done(folder) == dict.fromkeys(range(16), 1)
    assert merged(folder) == half(undisturbed)


@pytest.mark.slow
@needs_slurm
def test_before_slurms_limit_a_job_saves_and_is_queued_again(
    tmp_path: Path, slurm: dict[str, str]
) -> None:
    folder = planned(
        tmp_path / "big", 1, "seeds=4", "total_steps=2000000000", "checkpoint_interval=0"
    )
    code, printed = launch_slurm(folder, slurm, "time=30", "warn=105")
    assert code == 0, printed
    job = slurm_here.asked(slurm, "squeue", "-h", "-o", "%i").strip()
    first, second = (folder / "shards" / name for name in ("0000.1", "0000.2"))
    wait_until((first / "metrics.jsonl").exists, "it did not begin")
    # Slurm warns at its next look, every 30 s: with its own limit, the test would take as long.
    limit = lambda minutes: slurm_here.asked(
        slurm, "scontrol", "update", f"jobid={job}", f"timelimit={minutes}"
    )
    assert limit(2) == ""
    wait_until((first / "end.json").exists, "it was not warned")
    assert leases.read(first / "end.json")["state"] == "stopped"
    saved = list((first / "checkpoint").glob("[0-9]*"))
    assert len(saved) == 1
    limit(30)  # so that the next sitting is not warned at once
    began = lambda: leases.read(second / OWNER).get("saved")
    wait_until(lambda: began() is not None, "it was not queued again, or has not begun")
    assert began() == int(saved[0].name)
    assert "Restarts=1" in slurm_here.asked(slurm, "scontrol", "show", "job")
    slurm_here.asked(slurm, "scancel", "--name=jaxvff")
    wait_until(lambda: not running(folder), "a worker lives on")


# Ray.


def launch_ray(folder: Path, address: str, *options: str) -> subprocess.Popen:
    command = [*JAXVFF, "launch", str(folder), "on=ray", f"address={address}", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.slow
def test_a_ray_cluster_may_lose_and_gain_nodes_and_vanish(
    tmp_path: Path, undisturbed: list[dict]
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: uv sync --extra ray")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    folder, address = planned(tmp_path / "big", 4, "seeds=16"), cluster.address
    try:
        # A node is lost, another one gained.
        node = cluster.add_node(num_cpus=1)
        launch = launch_ray(folder, address, "workers=2")
        wait_until(lambda: running(folder), "no worker began")
        cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        printed, _ = launch.communicate(timeout=PATIENCE_S)
        assert launch.returncode == 0, printed
        assert "all are done: jaxvff merge" in printed
        assert seeds_done(folder) == dict.fromkeys(range(16), 1)
        # The last shard is to be trained once more, and the cluster vanishes meanwhile.
        for path in (folder / "shards").glob("0003.*"):
            path.unlink() if path.is_file() else shutil.rmtree(path)
        launch = launch_ray(folder, address, "workers=1")
        wait_until(lambda: running(folder), "no worker began")
    finally:
        cluster.shutdown()
    printed, _ = launch.communicate(timeout=PATIENCE_S)
    assert launch.returncode != 0, printed
    again = launch_ray(folder, address)
    assert f"no Ray cluster at address={address}" in again.communicate(timeout=PATIENCE_S)[0]
    assert again.returncode == 2
    wait_until(lambda: not running(folder), "a worker lives on")
    subprocess.run([*JAXVFF, "work", str(folder)], check=True, capture_output=True)
    assert seeds_done(folder) == dict.fromkeys(range(16), 1)
    assert merged(folder) == half(undisturbed)
