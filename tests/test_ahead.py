"""Programs compiled for TPUs that are not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxvff.cli.main import main
from jaxvff.training.ahead import CHIPS, Compiled

ROOT = Path(__file__).resolve().parent.parent


def test_figures_follow_from_what_the_compiler_says() -> None:
    program = Compiled(
        name="x", devices=4, lanes=16, lower_s=1.0, compile_s=2.0, arguments=12_000_000,
        temporaries=4_000_000, code=50_000_000, flops=1.97e9, bytes_accessed=8.19e8, steps=32,
    )  # fmt: skip
    chip = CHIPS["v5e"]
    assert program.lane == 1e6
    assert program.lanes_that_fit(chip) == int((0.9 * 16 * 2**30 - 5e7) / 1e6)
    assert program.iteration_s(chip) == pytest.approx((1e-5, 1e-3))
    assert program.most_steps_per_s(chip) == pytest.approx(32_000)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("for=tpu-v9:2x2", "the chip in for='v9' is unknown; choose one of v4, v5e, v5p, v6e"),
        ("for=gpu", "for=gpu names no TPU; write for instance for=tpu-v5e:2x2"),
        ("method=qmix", "for= names no TPU"),
    ],
)
def test_what_is_no_tpu_is_refused(
    asked: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", asked]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "program", [["method=nmqmix"], ["env=predator_prey", "method=qmix", "learner=parallel"]]
)
def test_training_programs_compile_for_a_v5e(program: list[str]) -> None:
    """In a process of its own: JAX has to be told before it is imported."""
    pytest.importorskip("libtpu", reason="needs `uv sync --extra tpu`")
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", "compile", "for=tpu-v5e:2x2", "seeds=4", *program],
        capture_output=True, text=True, timeout=1200, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "1 x 4" in done.stdout
