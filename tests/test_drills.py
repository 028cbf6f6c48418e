"""What happens to a run while it goes on, with real processes: nothing is lost, nothing is mixed up."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxvff.runs import checkpoint
from tests.test_run import metrics

pytestmark = pytest.mark.slow

JAXVFF = [sys.executable, "-m", "jaxvff"]
TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64"]
# 16 reports, a checkpoint between any two; some seconds, of which most are start-up.
RUN = [*TINY, "total_steps=8000", "eval_interval=500", "checkpoint_interval=250"]
ENDLESS = [*TINY, "total_steps=2000000000", "eval_interval=2000", "checkpoint_interval=500"]
PATIENCE_S = 120.0


def begin(*args: str, cwd: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [*JAXVFF, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=cwd,
        **options,
    )


def end(process: subprocess.Popen) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, printed


def run(*args: str, cwd: Path, **options) -> tuple[int, str]:
    return end(begin(*args, cwd=cwd, **options))


def wait_for_reports(folder: Path, n: int = 1) -> None:
    deadline = time.time() + PATIENCE_S
    while not (folder / "metrics.jsonl").exists() or len(metrics(folder)) < n:
        assert time.time() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Most runs here are of one program: it is compiled once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAXVFF_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The reports of RUN by a process that nobody disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("train", *RUN, "run_dir=r", cwd=folder)[0] == 0
    return metrics(folder / "r")


@pytest.fixture
def endless(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A run that goes on, in tmp_path/r; it has a checkpoint."""
    process = begin("train", *ENDLESS, "run_dir=r", cwd=tmp_path)
    wait_for_reports(tmp_path / "r")
    yield process
    process.kill()
    process.wait()


def test_of_two_resumes_one_goes_on_and_the_other_is_refused(
    tmp_path: Path, undisturbed: list[dict]
) -> None:
    """After a kill -9: the lock of a dead process is nobody's."""
    first = begin("train", *RUN, "run_dir=r", cwd=tmp_path)
    wait_for_reports(tmp_path / "r", 3)
    first.kill()
    first.wait()
    both = [begin("train", "resume=r", cwd=tmp_path) for _ in range(2)]
    (code_a, a), (code_b, b) = [end(each) for each in both]
    assert sorted([code_a, code_b]) == [0, 2]
    refused = a if code_a == 2 else b
    assert "r is being written by process" in refused
    assert "Traceback" not in refused
    assert metrics(tmp_path / "r") == undisturbed


def test_a_run_that_goes_on_is_not_resumed(tmp_path: Path, endless: subprocess.Popen) -> None:
    before = (tmp_path / "r" / "run.yaml").read_text()
    code, printed = run("train", "resume=r", "total_steps=2000000001", cwd=tmp_path)
    assert code == 2
    assert f"r is being written by process {endless.pid} on " in printed
    assert (tmp_path / "r" / "run.yaml").read_text() == before


def test_a_run_is_evaluated_while_it_goes_on(tmp_path: Path, endless: subprocess.Popen) -> None:
    """It saves many times a second; four evaluations."""
    for _ in range(4):
        code, printed = run("evaluate", "run=r", cwd=tmp_path)
        assert code == 0, printed
        assert "greedy-optimal" in printed
    assert endless.poll() is None
    kept = list((tmp_path / "r" / "checkpoint").iterdir())
    assert len(kept) <= 3  # the newest, the one being written, one that somebody has just read


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_a_checkpoint_and_a_table(
    tmp_path: Path, endless: subprocess.Popen, number: signal.Signals
) -> None:
    endless.send_signal(number)
    code, printed = end(endless)
    assert code == 130
    assert "interrupted; continue with: jaxvff train resume=r" in printed
    done = int(checkpoint.latest(tmp_path / "r" / "checkpoint").name)
    assert metrics(tmp_path / "r")[-1]["step"] <= done
    assert (tmp_path / "r" / "table.json").exists()


def test_nohup_is_honoured(tmp_path: Path) -> None:
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    process = begin("train", *ENDLESS, "run_dir=r", cwd=tmp_path, preexec_fn=ignore)
    wait_for_reports(tmp_path / "r")
    process.send_signal(signal.SIGHUP)
    wait_for_reports(tmp_path / "r", len(metrics(tmp_path / "r")) + 2)
    assert process.poll() is None
    process.kill()
    process.wait()


@pytest.mark.parametrize("gone", ["r", "r/metrics.jsonl", "r/run.yaml"])
def test_what_is_removed_while_it_is_written_is_put_back(
    tmp_path: Path, undisturbed: list[dict], gone: str
) -> None:
    process = begin("train", *RUN, "run_dir=r", cwd=tmp_path)
    wait_for_reports(tmp_path / "r", 2)
    (tmp_path / gone).rename(tmp_path / "gone")  # at once: it is written to all the time
    if (tmp_path / "gone").is_dir():
        shutil.rmtree(tmp_path / "gone", ignore_errors=True)
    code, printed = end(process)
    assert code == 0
    assert "was removed or moved" in printed
    assert metrics(tmp_path / "r") == undisturbed
    assert run("evaluate", "run=r", cwd=tmp_path)[0] == 0


def test_a_folder_that_is_moved_while_it_is_written_is_continued_where_it_was(
    tmp_path: Path, undisturbed: list[dict]
) -> None:
    process = begin("train", *RUN, "run_dir=r", cwd=tmp_path)
    wait_for_reports(tmp_path / "r", 2)
    (tmp_path / "r").rename(tmp_path / "elsewhere")
    code, printed = end(process)
    assert code == 0
    assert "r was removed or moved" in printed
    assert metrics(tmp_path / "r") == undisturbed
    assert metrics(tmp_path / "elsewhere") == undisturbed[: len(metrics(tmp_path / "elsewhere"))]


def test_a_full_disk_costs_only_what_was_being_written(tmp_path: Path) -> None:
    """A tmpfs of 400 kB where one can be mounted, else files of at most so many bytes."""
    disk, limits = tmp_path / "disk", None
    disk.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=400k", "full", str(disk)], capture_output=True
        ).returncode
    )
    if not mounted:
        limits = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        args = ["seeds=2", "total_steps=3000", "eval_interval=250", "checkpoint_interval=100"]
        code, printed = run("train", *args, "run_dir=disk/r", cwd=tmp_path, preexec_fn=limits)
        assert code == 1
        assert os.strerror(28 if mounted else 27) in printed
        assert "Traceback" not in printed
        kept = checkpoint.latest(disk / "r" / "checkpoint")
        if mounted:
            assert kept is not None
            assert run("evaluate", "run=disk/r", cwd=tmp_path)[0] == 0
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def test_a_run_folder_is_all_that_a_run_needs(tmp_path: Path) -> None:
    """Begun with a relative path to its payoffs, then moved; the payoffs change meanwhile."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "game.yaml").write_text("[[5, 0], [0, 1]]")
    args = ["env=matrix/file", "env.file=game.yaml", *TINY, "total_steps=200", "eval_interval=200"]
    assert run("train", *args, "run_dir=r", cwd=tmp_path / "a")[0] == 0
    (tmp_path / "a" / "game.yaml").write_text("[[0, 5], [1, 0]]")
    shutil.move(tmp_path / "a" / "r", tmp_path / "moved run")
    code, printed = run("evaluate", "run=moved run", cwd=tmp_path)
    assert code == 0, printed
    assert run("train", "resume=moved run", "total_steps=400", cwd=tmp_path)[0] == 0
    table = json.loads((tmp_path / "moved run" / "table.json").read_text())
    assert table["results"][0]["payoff"] == [[5, 0], [0, 1]]
