"""What a run needs is known, and refused if it cannot fit, before anything is allocated."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from jaxvff.cli.main import main
from jaxvff.core import sizes
from jaxvff.runs import execute, memory
from jaxvff.runs.plan import plan
from tests.lanes import start

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64"]


@pytest.mark.parametrize("extra", [["replay=prioritised"], ["method=qmix", "bonus=rnd"]])
def test_the_estimate_is_what_the_state_takes(extra: list[str]) -> None:
    (job,) = plan([*TINY, *extra])
    need = memory.need(job)
    _, carry, _ = start(*TINY, *extra)
    learner = carry.state.learner
    assert need.total == sizes.nbytes(learner)
    assert sum(part.n_bytes for part in need.parts) == need.lane
    replay = need.parts[0]
    assert replay.n_bytes == sizes.nbytes(learner.replay) / job.n_lanes >= 64 * 12
    # Two actions and a reward, in both slots; see the codec of envs/matrix.py.
    assert replay.note == "buffer_size=64 segments of 2 slots of 6 bytes"


def test_what_cannot_fit_is_refused_before_it_has_a_folder(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda devices: 22_100_000_000)
    monkeypatch.setattr(execute, "open_program", lambda *args: pytest.fail("it went on to compile"))
    args = ["method=vdn", "seeds=32", "buffer_size=100000000", f"run_dir={tmp_path}/run"]
    assert main(["train", *args]) == 2
    message = capsys.readouterr().err
    assert "32 seeds need at least 38.4 GB (replay 38.4 GB: buffer_size=100000000" in message
    assert "segments of 2 slots of 6 bytes), and 22.1 GB are free; lower buffer_size" in message
    assert message.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_the_largest_group_of_a_sweep_decides(monkeypatch) -> None:
    jobs = plan([*TINY[:-1], "sweep.buffer_size=[64,6400]"])
    assert len(jobs) == 2
    assert "buffer_size=6400" in memory.largest(jobs).parts[0].note


@pytest.mark.slow
def test_training_begins_with_the_estimate(tmp_path: Path, capsys) -> None:
    args = [*TINY, "total_steps=20", "eval_interval=20", f"run_dir={tmp_path}/run"]
    assert main(["train", *args]) == 0
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("memory: ")
    assert first.endswith("replay: buffer_size=64 segments of 2 slots of 6 bytes")
    assert not any(line.startswith("memory: ") for line in rest)


def device(platform: str, **stats: int) -> SimpleNamespace:
    return SimpleNamespace(platform=platform, memory_stats=lambda: stats or None)


def test_free_memory_is_that_of_all_devices_or_unknown() -> None:
    gpu = device("gpu", bytes_limit=100, bytes_in_use=30)
    assert memory.free_bytes([gpu, gpu]) == 140
    assert memory.free_bytes([device("tpu")]) is None
    if Path("/proc/meminfo").exists():  # the cores of a CPU share one memory
        one, two = (memory.free_bytes([device("cpu")] * n) for n in (1, 2))
        assert 0.5 < one / two < 2


def test_unknown_memory_refuses_nothing(monkeypatch) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda devices: None)
    memory.check(plan([*TINY[:-1], "buffer_size=1000000000"]))


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (12, "12 bytes"),
        (999_600, "1 MB"),
        (1_290_000, "1.29 MB"),
        (41.2e9, "41.2 GB"),
        (5e13, "50 TB"),
    ],
)
def test_sizes_are_readable(n: float, text: str) -> None:
    assert sizes.readable(n) == text
