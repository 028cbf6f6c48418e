"""The command line: help on a screen, and a short clear message for every mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jaxvff.cli import start
from jaxvff.cli.main import main
from jaxvff.methods.table import METHODS
from jaxvff.runs import execute
from jaxvff.settings import config


@pytest.mark.parametrize("args", [[], ["--help"], ["train", "--help"], ["evaluate", "-h"],
                                  ["reproduce", "--help"], ["bench", "--help"]])  # fmt: skip
def test_help_fits_a_screen(args: list[str], capsys) -> None:
    assert main(args) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 3 < len(lines) <= 32
    assert max(map(len, lines)) <= 100


HOSTED = ("grf", "smac", "smacv2", "smaclite")  # dozens of names, which their games know


def test_help_names_every_method_and_key_that_exists(capsys) -> None:
    main(["train", "--help"])
    text = capsys.readouterr().out
    assert all(name in text for name in METHODS)
    for name in config.config_names("env"):
        kind, _, short = name.partition("/")
        listed = (short if kind == "smax" else name) in text
        assert listed or (kind in HOSTED and f"{kind}/<" in text)


MISTAKES = [
    ("foo=1", "unknown key 'foo'", "seeds"),
    ("lrr=1", "unknown key 'lrr'", "did you mean lr"),
    ("method=qmxi", "method=qmxi is unknown", "did you mean qmix"),
    ("env=matrix/c", "env=matrix/c is unknown", "matrix/"),
    ("env=nothing", "env=nothing is unknown", "matrix/a"),
    ("target=best", "target='best' is unknown", "sarsa"),
    ("optimizer=adamw", "optimizer='adamw' is unknown", "adam"),
    ("lr=fast", "'fast'", "0.001"),
    ("seeds=1.5", "'1.5'", "Integer"),
    ("shared=3.7", "'3.7' is not a valid bool", "True"),
    ("seeds=0", "seeds=0 is out of range", "[1, "),
    ("seed=-1", "seed=-1 is out of range", "[0, "),
    ("epsilon_end=1.5", "epsilon_end=1.5 is out of range", "[0, 1]"),
    ("epsilon_start=-0.1", "epsilon_start=-0.1 is out of range", "[0, 1]"),
    ("epsilon_end=nan", "epsilon_end=nan is out of range", "[0, 1]"),
    ("td_lambda=1.01", "td_lambda=1.01 is out of range", "[0, 1]"),
    ("gamma=2", "gamma=2.0 is out of range", "[0, 1]"),
    ("lr=inf", "lr=inf is out of range", "0.001"),
    ("temperature=0", "temperature=0.0 is out of range", "(0, "),
    ("batch_size=9999", "batch_size=9999 is larger than buffer_size=5000", "lower"),
    ("learn_start=9999", "learn_start=9999 is never reached", "lower"),
    ("total_steps=0", "total_steps=0 is out of range", "[1, "),
    ("method.embed_dm=3", "method.embed_dm is no option of nmqmix", "did you mean embed_dim"),
    ("method.embed_dim=x", "method.embed_dim='x' must be a whole number", "32"),
    ("method.embed_dim=0", "method.embed_dim=0 is out of range", "[1, "),
    ("method.monotonic=true", "method.monotonic is no option", "embed_dim"),
    ("env.foo=1", "env.foo is no option of matrix", "choose one of game"),
    ("env.gam=a", "env.gam is no option of matrix", "did you mean game"),
    (
        "env=matrix/random env.n_agents=3 env.n_actions=x",
        "env.n_actions='x' must be a whole number",
        "[2, ",
    ),
    ("env=matrix/random env.n_agents=2.5", "env.n_agents=2.5 must be a whole number", "[2, "),
    ("env=matrix/random env.n_agents=null", "env.n_agents=None must be a whole number", "[2, "),
    ("env=matrix/random env.game_seed=1.5", "env.game_seed=1.5 must be a whole number", "[0, "),
    ("env=matrix/random env.n_agents=20", "env.n_agents=20 exceeds", "fewer"),
    ("env=matrix/file env.file=3", "'3' does not exist", ".npy"),
    ("env.game=[a]", "env.game=['a'] is unknown", "climbing"),
    ("segment_length=4", "segment_length=4 must be 2", "n_envs"),
    ("seed=4294967295", "seed=4294967295", "lower one"),
    ("seeds=1,2", "several values", "sweep.seeds"),
    ("lr=[1", "cannot be read", "key=value"),
    ("=5", "has no key", "key=value"),
    ("env.=3", "env.=3", "key=value"),
    ("method=[qmix,vdn]", "takes one name", "sweep.method"),
    ("sweep.method=[[qmix]]", "is no name", "sweep.method=[one,two]"),
    ("lr=1 sweep.lr=[1,2]", "lr is set and swept", "keep"),
    ("sweep.run_dir=[a,b]", "sweep.run_dir is no sweep", "one value"),
    ("sweep.seeds=[1,2]", "sweep.seeds is no sweep", "one value"),
    ("env=matrix/file", "exactly one of", "env.file"),
    ("sweep.lr=3", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("sweep.lr=[]", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("sweep.lr=[1e-3", "cannot be read", "sweep.lr=[1e-3,1e-4]"),
    ("sweep.lrr=[1,2]", "unknown key 'lrr'", "did you mean lr"),
    ("sweep.gamma=[0.9,1.9]", "gamma=1.9 is out of range", "[0, 1]"),
    ("sweep.method=[qmix,qqmix]", "method=qqmix is unknown", "qmix"),
    ("lr=[1,2]", "lr", "0.001"),
    ("lr", "is no key=value", "--help"),
    ("resume=/nowhere", "is no run folder", "run.yaml"),
    ("run_dir=/proc/nowhere/x", "cannot be made", ""),
]


@pytest.mark.parametrize(("override", "value", "remedy"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_a_mistake_gets_a_short_message_before_anything_compiles(
    override: str, value: str, remedy: str, capsys, monkeypatch, tmp_path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(execute, "open_program", lambda *args: pytest.fail("it went on to compile"))
    args = override.split(" ")
    if "run_dir" not in override and "resume" not in override:
        args.append("run_dir=run")
    assert main(["train", *args]) == 2
    message = capsys.readouterr().err
    assert value in message
    assert remedy in message
    assert message.count("\n") <= 2
    assert "Traceback" not in message
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_exists_is_refused_and_kept(capsys, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("1")
    assert main(["train", f"run_dir={tmp_path}"]) == 2
    assert "exists; name another folder, or resume=" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


@pytest.mark.parametrize(
    "args",
    [["stabilty"], ["reproduce"], ["reproduce", "table9"], ["evaluate"], ["evaluate", "run=/nowhere"],
     ["bench", "lanes=[0]"], ["bench", "lanes=x"], ["bench", "seconds=-1"],
     ["bench", "lanes=[1"], ["bench", "lanes=[1.5]"], ["bench", "seconds=inf"],
     ["reproduce", "table1", "method=qmix"], ["reproduce", "table1", "sweep.lr=[1,2]"]],
)  # fmt: skip
def test_mistakes_in_other_commands(args: list[str], capsys) -> None:
    assert main(args) == 2
    assert capsys.readouterr().err.startswith("jaxvff: ")


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
    monkeypatch.setattr(start, "importing", lambda *options: pytest.fail("it imported JAX"))
    for args in (["train", f"resume={tmp_path}"], ["evaluate", f"run={tmp_path}"]):
        assert main(args) == 2
        assert "has no readable run.yaml" in capsys.readouterr().err
