"""A seed that stops on a value that is not finite has one message, and is on record."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.reports.stops import stops
from jaxvff.runs.plan import plan

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64"]


def test_a_seed_has_one_message_with_its_sweep_value() -> None:
    (job,) = plan([*TINY, "seed=3", "sweep.lr=[0.1,10.0]"])
    reported: set[tuple[str, int]] = set()
    lines = lambda *at: list(stops(job, {"stopped_at": np.array(at)}, reported))
    why = "a reward, an observation or the loss was not finite"
    assert lines(-1, -1, -1, -1) == []
    assert lines(-1, -1, 12345, -1) == [
        f"seed 3 of lr=10.0 stopped at env step 12,345: {why}; the others go on"
    ]
    assert lines(-1, 0, 12345, -1) == [
        f"seed 4 of lr=0.1 stopped at env step 0: {why}; the others go on"
    ]
    assert lines(-1, 0, 12345, -1) == []
    assert [line.split("; ")[1] for line in lines(7, 0, 12345, 8)] == ["none goes on"] * 2


def test_without_a_sweep_the_seed_is_enough() -> None:
    (job,) = plan(TINY)
    (line,) = stops(job, {"stopped_at": np.array([-1, 5])}, set())
    assert line.startswith("seed 1 stopped at env step 5: ")


@pytest.mark.slow
def test_a_run_that_diverges_says_so_and_table_json_holds_when(tmp_path: Path, capsys) -> None:
    args = [*TINY, "total_steps=300", "eval_interval=100", f"run_dir={tmp_path}/run"]
    assert main(["train", *args, "optimizer=sgd", "grad_clip=1e30", "sweep.lr=[1e30,0.001]"]) == 0
    messages = [
        line for line in capsys.readouterr().out.splitlines() if "stopped at env step" in line
    ]
    diverged, fine = json.loads((tmp_path / "run" / "table.json").read_text())["results"]
    assert fine["stopped_at"] == [-1, -1]
    assert all(0 < at <= 300 for at in diverged["stopped_at"])
    assert [line.split(":")[0] for line in messages] == [
        f"seed {seed} of lr=1e+30 stopped at env step {at:,}"
        for seed, at in enumerate(diverged["stopped_at"])
    ]
