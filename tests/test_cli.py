"""The command line: help on a screen, and a short clear message for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxvff.cli import evaluate, train
from jaxvff.cli.main import main
from jaxvff.methods.table import METHODS
from jaxvff.settings import config


@pytest.mark.parametrize("args", [[], ["--help"], ["train", "--help"], ["evaluate", "-h"],
                                  ["reproduce", "--help"], ["bench", "--help"]])  # fmt: skip
def test_help_fits_a_screen(args: list[str], capsys) -> None:
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 3 < len(lines) <= 32
    assert max(map(len, lines)) <= 100


HOSTED = (
    "grf",
    "grf_eased",
    "smac",
    "smacv2",
    "smaclite",
)  # dozens of names, which their games know


def test_help_names_every_method_and_key_that_exists(capsys) -> None:
    main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in METHODS)
    for name in config.config_names("env"):
        kind, _, short = name.partition("/")
        listed = (short if kind == "smax" else name) in text
        assert listed or (kind in HOSTED and f"{kind}/<" in text)


def test_a_run_folder_that_exists_is_refused_and_kept(capsys, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("1")
    assert main(["train", f"run_dir={tmp_path}"]) == 2
    assert "exists; name another folder, or resume=" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_the_command_runs_as_a_program_and_exits_with_2() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", "train", "method=x"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize("saved", ["", "3", "command: train", "command: train\nparts: []",
                                   "command: train\nparts: [lr]"])  # fmt: skip
def test_a_run_file_that_says_nothing_is_named_before_jax_is_there(
    saved: str, tmp_path: Path, capsys, monkeypatch
) -> None:
    (tmp_path / "run.yaml").write_text(saved)
    for command in (evaluate, train):
        monkeypatch.setattr(command, "importing", lambda *options: pytest.fail("it imported JAX"))
    for args in (["train", f"resume={tmp_path}"], ["evaluate", f"run={tmp_path}"]):
        assert main(args) == 2
        assert "has no readable run.yaml" in capsys.readouterr().err
