"""The suite for GPUs: its small form runs here; what needs a GPU is skipped without one."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from jaxvff.api import switches
from jaxvff.core.errors import UserError
from jaxvff.core.types import Env
from jaxvff.runs.plan import plan
from jaxvff.settings import overrides, sweep

ROOT = Path(__file__).resolve().parent.parent
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def suite(monkeypatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("accelerator")


def run(out: Path, *options: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(BENCHMARKS / "accelerator.py"), f"--out={out}", *options]
    clean = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAXVFF_CACHE")}
    env = clean | {"JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=env, capture_output=True, text=True)


@pytest.mark.slow
def test_the_small_form_measures_what_is_missing_and_then_nothing(
    tmp_path: Path, suite: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "record.json"
    options = ("--small", "--timed-seconds=0.1", "--seconds=400")
    done = run(out, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(out.read_text())
    parts = record["parts"]
    assert [*parts] == ["compile: matrix, QMIX", "time: matrix, QMIX", "deterministic"]
    timed, again = parts["time: matrix, QMIX"]["2"], parts["deterministic"]["true"]
    assert timed["seed_steps_per_s"] > 100
    assert timed["lane_bytes"]["carried"] > 1000
    assert timed["compile_s"] < parts["compile: matrix, QMIX"]["2"]["compile_s"]  # from the cache
    assert (timed["deterministic"], again["deterministic"]) == (False, True)
    assert timed["digest"] == again["digest"]  # on a CPU there is nothing else
    assert isinstance(record["accelerator"]["gpus"], list)
    assert {"jax", "jaxlib", "python"} <= record["versions"].keys()
    # A row that is missing is measured, and what is there is kept. Here: JAX starts elsewhere.
    monkeypatch.setattr(suite, "end_children_on_term", lambda: None)
    monkeypatch.setattr(sys, "argv", ["accelerator.py", f"--out={out}", *options, "--seconds=1"])
    del parts["deterministic"]
    out.write_text(json.dumps(record))
    assert suite.main() == 3
    assert json.loads(out.read_text()) == record
    # A record of other versions is not mixed with this one.
    out.write_text(json.dumps(record | {"versions": {"jax": "0.1"}}))
    with pytest.raises(SystemExit, match=r"is of another versions: {'jax': '0.1'}; here it is"):
        suite.main()


def test_its_programs_are_jobs_on_the_device(suite: ModuleType) -> None:
    for name, program in (suite.PROGRAMS | suite.MAPS).items():
        most = (program.lanes or suite.LANES)[-1]
        (job,) = plan([*program.overrides, suite.AT_ONCE, f"seeds={most}"])
        assert isinstance(job.env, Env), name
        assert job.n_lanes == most
    learners = {name: plan(p.overrides)[0].config.learner for name, p in suite.PROGRAMS.items()}
    assert [learners[f"3m, {x}"] for x in ("parallel", "replay")] == ["parallel", "replay"]


def test_determinism_is_asked_of_xla_before_jax_starts(monkeypatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=true")
    with pytest.raises(UserError, match="has to be said before JAX starts"):
        switches.be_deterministic(started=True)
    switches.be_deterministic(started=False)
    flags = os.environ["XLA_FLAGS"].split()
    assert flags == ["--xla_cpu_use_fusion_emitters=true", switches.DETERMINISTIC]
    switches.be_deterministic(started=True)  # it is there
    with pytest.raises(UserError, match=r"sweep.deterministic is no sweep"):
        sweep.expand(overrides.parse(["sweep.deterministic=[true,false]"], typed=True))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/driver/nvidia").exists(), reason="there is no GPU here")
def test_on_a_gpu_the_same_seed_gives_the_same_bits(tmp_path: Path) -> None:
    side = [sys.executable, str(BENCHMARKS / "_accelerator_side.py"), "--lanes=64", "--seconds=1"]
    asked = ["env=smax/3m", "method=qmix", "learner=replay", "deterministic=true"]
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    env |= {"JAXVFF_CACHE": str(tmp_path)}
    rows = []
    for _ in range(2):
        done = subprocess.run([*side, *asked], env=env, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    assert all(row["deterministic"] for row in rows)
    assert rows[0]["digest"] == rows[1]["digest"]
