"""The lower bounds of pyproject.toml are true: the wheel works with the oldest versions allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TINY = ["seeds=2", "hidden_dim=8", "batch_size=4", "learn_start=4", "buffer_size=16",
        "eval_episodes=2"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("uv") is None, reason="uv resolves the lowest versions")
def test_the_wheel_works_with_the_lowest_versions(tmp_path: Path) -> None:
    """Train, evaluate, battles of SMAX and the stability lab, in an environment of their own."""

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "JAXVFF_CACHE": "off"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["lab"]]
    (tmp_path / "lowest.txt").write_text("\n".join(asked))
    run(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    run("uv", "venv", "--quiet", "--python", sys.executable, "env")
    python = tmp_path / "env" / "bin" / "python"
    run("uv", "pip", "install", "--quiet", "--python", python, "--resolution", "lowest-direct",
        "--requirements", "lowest.txt", wheel)  # fmt: skip

    lowest = run(python, "-c", "import jax; print(jax.__version__)").strip()
    (bound,) = (d.split(">=")[1] for d in project["dependencies"] if d.startswith("jax>="))
    assert lowest.startswith(bound)
    jaxvff = [python, "-m", "jaxvff"]
    run(*jaxvff, "train", *TINY, "total_steps=40", "eval_interval=20", "run_dir=a")
    run(*jaxvff, "train", "resume=a", "total_steps=60")
    assert "greedy-optimal" in run(*jaxvff, "evaluate", "run=a")
    run(*jaxvff, "export", "run=a", "to=policy")
    run(python, "policy/act.py")
    run(*jaxvff, "train", *TINY, "init_from=policy", "total_steps=40", "run_dir=b")
    smax = ["env=smax/3m", "method=nmqmix_rnd", "learner=replay", "n_envs=2", "segment_length=32",
            "env.time_limit=31", "total_steps=248", "eval_interval=124"]  # fmt: skip
    assert "win rate" in run(*jaxvff, "train", *smax, *TINY, "run_dir=smax")
    lab = ["points=4", "starts=1", "lanes=4", "updates=20", "time=2", "temperatures=[1]"]
    assert "results: lab" in run(*jaxvff, "stability", "game=a", *lab, "run_dir=lab")
