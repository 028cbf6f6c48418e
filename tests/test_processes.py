"""Several JAX processes on one machine: each trains its slice of the lanes, process 0 merges."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.runs import checkpoint, leases
from jaxvff.runs.leases import OWNER
from jaxvff.training.processes import VARIABLES, Meeting, Place, meeting
from tests.slurm_here import free_port
from tests.test_launch import JAXVFF, seeds_done, wait_until
from tests.test_run import metrics

RUN = ["method=vdn", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
       "total_steps=2000", "eval_interval=1000", "checkpoint_interval=200", "seeds=16"]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """All processes run one program, which is compiled once; two lanes a device where there are 2."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXVFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        for name in ("XLA_FLAGS", *VARIABLES.values()):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The merged reports of one worker that is no group."""
    folder = planned(tmp_path_factory.mktemp("alone") / "big")
    for command in ("work", "merge"):  # compiled as in the processes of a group
        subprocess.run([*JAXVFF, command, str(folder)], check=True, capture_output=True)
    return metrics(folder)


def planned(folder: Path) -> Path:
    assert main(["plan", "train", *RUN, "shards=4", f"run_dir={folder}"]) == 0
    return folder


def started(folder: Path, n: int) -> list[subprocess.Popen]:
    """Processes of one group; what they print goes beside the folder."""
    address = f"coordinator=127.0.0.1:{free_port()}"
    out = []
    for i in range(n):
        command = [*JAXVFF, "work", str(folder), f"processes={n}", f"process={i}", address]
        with (folder.parent / f"{i}.txt").open("w") as log:
            out.append(subprocess.Popen(command, stdout=log, stderr=log))
    return out


def ended(processes: list[subprocess.Popen], folder: Path) -> list[int]:
    try:
        return [process.wait(300) for process in processes]
    finally:
        for i, process in enumerate(processes):
            process.kill()
            print((folder.parent / f"{i}.txt").read_text()[-2000:])


def owners(folder: Path) -> dict[str, int]:
    """Attempt -> the process that it belongs to."""
    paths = sorted((folder / "shards").glob(f"*.[0-9]*/{OWNER}"))
    return {path.parent.name: leases.read(path).get("process", 0) for path in paths}


@pytest.mark.slow
def test_two_processes_train_a_slice_each_and_process_0_merges(
    tmp_path: Path, alone: list[dict]
) -> None:
    folder = planned(tmp_path / "big")
    processes = started(folder, 2)
    assert ended(processes, folder) == [0, 0]
    found = owners(folder)
    assert found["0000.1"] == processes[0].pid
    assert found["0002.1"] == processes[1].pid  # the first of its half
    assert seeds_done(folder) == dict.fromkeys(range(16), 1)
    assert metrics(folder) == alone
    assert json.loads((folder / "table.json").read_text())["machine"]["workers"] == 2


@pytest.mark.slow
def test_of_four_processes_one_is_killed_and_another_goes_on_from_its_checkpoint(
    tmp_path: Path, alone: list[dict]
) -> None:
    folder = planned(tmp_path / "big")
    processes = started(folder, 4)
    saved = folder / "shards" / "0003.1" / "checkpoint"
    wait_until(lambda: saved.exists() and checkpoint.latest(saved), "nothing was saved")
    victim = owners(folder)["0003.1"]
    os.kill(victim, signal.SIGKILL)
    codes = ended(processes, folder)
    assert sorted(codes) == [-signal.SIGKILL, 0, 0, 0]
    assert leases.read(folder / "shards" / "0003.2" / OWNER)["saved"] > 0
    assert seeds_done(folder) == dict.fromkeys(range(16), 1)
    if codes[0] < 0:  # it had taken that shard, and nobody else merges
        subprocess.run([*JAXVFF, "merge", str(folder)], check=True, capture_output=True)
    assert metrics(folder) == alone


# What is refused, and who is which.


def test_processes_begin_in_slices_of_one_size() -> None:
    assert [Place(i, 4).first(10) for i in range(4)] == [0, 2, 5, 7]
    assert Place().first(10) == 0


def test_the_environment_says_what_keys_leave_out(monkeypatch) -> None:
    assert meeting({}) is None
    assert meeting({"processes": "auto"}) == Meeting(None, None, None)
    for name, text in zip(VARIABLES.values(), ("10.0.0.1:99", "4", "3"), strict=True):
        monkeypatch.setenv(name, text)
    assert meeting({}) is None  # nothing is joined unasked
    assert meeting({"processes": "auto"}) == Meeting("10.0.0.1:99", 4, 3)
    assert meeting({"processes": "8", "process": "0"}) == Meeting("10.0.0.1:99", 8, 0)


@pytest.mark.parametrize(
    ("typed", "why"),
    [
        ("process=1", "process= needs processes="),
        ("processes=two", "processes=two must be a whole number of 1 or more"),
        ("processes=2 process=2", "process=2 must be less than processes=2"),
        ("processes=2", "processes=2 needs process= (or the variable JAX_PROCESS_ID)"),
        ("processes=2 process=1", "needs coordinator= (or the variable JAX_COORDINATOR_ADDRESS)"),
        ("processes=2 process=1 coordinator=here", "coordinator=here must be <host>:<port>"),
    ],
)
def test_processes_that_cannot_meet_are_refused(typed: str, why: str) -> None:
    with pytest.raises(UserError) as caught:
        meeting(dict(text.split("=") for text in typed.split()))
    assert why in str(caught.value)


def test_where_nothing_says_who_the_others_are_that_is_told(tmp_path: Path) -> None:
    assert main(["plan", "train", "seeds=2", "shards=2", f"run_dir={tmp_path / 'big'}"]) == 0
    command = [sys.executable, "-m", "jaxvff", "work", str(tmp_path / "big"), "processes=auto"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "the JAX processes cannot meet" in done.stderr
    assert "write processes=<n> process=<i> coordinator=" in done.stderr
