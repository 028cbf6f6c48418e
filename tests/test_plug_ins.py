"""Parts of other packages: by entry points and by import paths, without an edit here."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

import jaxvff
from jaxvff.cli.main import main
from jaxvff.core import registry
from jaxvff.settings import build

PACKAGE = Path(__file__).parent / "plugin"
SMALL = {"hidden_dim": 16, "seeds": 2, "batch_size": 16, "learn_start": 16, "buffer_size": 64,
         "total_steps": 400, "eval_interval": 200, "lr": 0.01}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The package of tests/plugin, where this Python finds it."""
    site = tmp_path_factory.mktemp("site")
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "plugin")
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not on the path; it installs the package")
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(source)]
    subprocess.run(command, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site))  # for worker processes
        importlib.invalidate_caches()
        registry._entry_points.cache_clear()
        yield site
    registry._entry_points.cache_clear()
    for name in [name for name in sys.modules if name.startswith("vff_extras")]:
        del sys.modules[name]


def trained(folder: Path, **asked: object) -> jaxvff.Run:
    return jaxvff.train(run_dir=str(folder), **(SMALL | asked))


@pytest.mark.slow
def test_a_method_and_a_game_of_an_installed_package_learn_by_their_names(
    installed: Path, tmp_path: Path
) -> None:
    assert "scaled_sum" in jaxvff.list_methods()
    assert {"light", "coin"} <= set(jaxvff.list_envs())
    run = trained(
        tmp_path / "run", method="scaled_sum", env="light",
        **{"env.agents": 3, "env.bright": 2.0, "method.share": 0.9, "total_steps": 3000},
    )  # fmt: skip
    np.testing.assert_array_equal(run.results.columns["test_return"], [2, 2])
    assert run.results[0].title == "scaled_sum on light"


@pytest.mark.slow
def test_parts_are_found_by_their_import_paths(installed: Path, tmp_path: Path) -> None:
    run = trained(
        tmp_path / "run",
        method="vff_extras.methods:ScaledSum",
        env="vff_extras.games:make",
        bonus="vff_extras.learning:half",
        explore="vff_extras.learning:uniform",
        sink="vff_extras.learning:Lines",
        **{"env.agents": 3, "method.first_scale": 2.0, "bonus_beta": 0.5},
    )
    assert (tmp_path / "run" / "lines.txt").read_text() == "200 2\n400 2\n"
    np.testing.assert_allclose(run.curves["bonus"][-2:], 0.5)
    # Three agents that act at random all see the light in one of eight games.
    assert 0.02 < run.curves["train_return"].mean() < 0.3


@pytest.mark.slow
def test_classes_like_jaxmarls_and_gymnaxs_are_played(installed: Path, tmp_path: Path) -> None:
    line = trained(
        tmp_path / "line", env="vff_extras.games:Line", method="vdn", segment_length=14,
        **{"env.max_steps": 6, "env.cells": 3, "total_steps": 6000, "epsilon_steps": 1000},
    )  # fmt: skip
    # They are a cell apart from the middle, and are paid for all steps after the first but one.
    assert line.results.columns["test_length"].tolist() == [6, 6]
    assert (line.results.columns["test_return"] == 6).all()
    alone = trained(
        tmp_path / "alone", env="vff_extras.games:Alone", method="vdn", segment_length=12,
        **{"total_steps": 6000, "epsilon_steps": 1000},
    )  # fmt: skip
    assert alone.results.columns["test_length"].tolist() == [5, 5]
    assert alone.results.columns["test_return"].tolist() == [5, 5]


@pytest.mark.slow
def test_a_game_of_an_installed_package_is_played_by_workers(
    installed: Path, tmp_path: Path
) -> None:
    run = trained(
        tmp_path / "run", env="coin", method="vdn", segment_length=10, n_envs=4, seeds=1,
        **{"env.workers": 1, "total_steps": 2000, "epsilon_steps": 500},
    )  # fmt: skip
    assert run.results.columns["test_length"].tolist() == [4]
    assert run.results.columns["test_return"][0] > 3.5


@pytest.mark.slow
@pytest.mark.parametrize(("asked", "longest"), [({}, 7), ({"env.max_steps": 4}, 4)])
def test_a_class_with_a_length_of_its_own_is_made_with_the_users(
    asked: dict, longest: int, installed: Path
) -> None:
    env = build.environment({"kind": "vff_extras.games:Timed"} | _of_env(asked))
    state, steps, over = env.reset(jax.random.key(0), ()), 0, False
    while not over:
        state, outcome = env.step(jax.random.key(1), state, jnp.zeros(2, int), ())
        steps, over = steps + 1, bool(outcome.terminated | outcome.truncated)
        assert not outcome.terminated
    assert steps == longest


def _of_env(asked: dict) -> dict:
    return {key.removeprefix("env."): value for key, value in asked.items()}


REFUSED = {
    "env=vff_extras.games:Nothing": "vff_extras.games:Nothing cannot be imported",
    "env=nowhere.games:make": "No module named 'nowhere'",
    "env=vff_extras.games:Space": "it must make a jaxvff.core.types.Env",
    "env=vff_extras.games:Line": "set env.max_steps=<env steps>",
    "env=light env.agent=2": "env.agent is no option of light environments; did you mean agents?",
    "env=light env.agents=1": "env.agents=1 is out of range",
    "method=vff_extras.games:Alone": "is no method: it must be a flax module with a field `spec`",
    "method=scaled_sum method.first_scale=0": "method.first_scale=0 is out of range",
    "method=scaled_sum target=search": "target=search needs a method that searches",
    "method=scaled_sums": "did you mean scaled_sum?",
    "bonus=halve": "did you mean half?",
    "sink=line": "did you mean lines?",
}


@pytest.mark.slow
@pytest.mark.parametrize("typed", REFUSED)
def test_what_is_wrong_with_them_is_told(
    installed: Path, tmp_path: Path, typed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = typed.split()
    if "light" in typed or "Space" in typed:
        keys.append("seeds=2")
    if "Space" in typed:
        keys.append("env.n=2")
    assert main(["train", *keys, f"run_dir={tmp_path / 'run'}"]) == 2
    assert REFUSED[typed] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("key", ["method", "env", "bonus", "explore", "sink", "optimizer"])
def test_a_run_folder_that_names_code_runs_none_of_it_unasked(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "somebodys.py").write_text("raise SystemExit('it ran')\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    folder.mkdir()
    saved = {"command": "train", "parts": [[f"{key}=somebodys:part"]]}
    (folder / "run.yaml").write_text(yaml.safe_dump(saved))
    for command in (["evaluate", f"run={folder}"], ["train", f"resume={folder}"]):
        assert main(command) == 2
        err = capsys.readouterr().err
        assert f"names code that would be run here, {key}='somebodys:part'" in err
        assert "trust=true" in err
    if key != "sink":  # an evaluation reports to nobody
        with pytest.raises(SystemExit, match="it ran"):
            main(["evaluate", f"run={folder}", "trust=true"])
