"""Compiled programs are kept, in a folder that a user chooses or none, and change no number."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from jaxvff.settings.run_options import OutputOptions
from jaxvff.training import compilation_cache

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
        "total_steps=80", "eval_interval=40"]  # fmt: skip


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What is set in JAX's configuration, in place of setting it; no cache is on at first.

    An earlier test of the same process may have trained, and switched it on.
    """
    before = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    made: dict[str, object] = {}
    with monkeypatch.context() as patch:
        patch.setattr(jax.config, "update", lambda name, value: made.update({name: value}))
        yield made
    jax.config.update("jax_compilation_cache_dir", before)


def test_the_cache_is_in_the_users_folder_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    monkeypatch.delenv("JAXVFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = compilation_cache.set_up(OutputOptions())
    assert folder is not None
    assert folder.parent == tmp_path / "jaxvff"
    assert settings["jax_compilation_cache_dir"] == str(folder)
    assert settings["jax_compilation_cache_max_size"] == compilation_cache.MAX_BYTES


@pytest.mark.parametrize("how", ["key", "variable"])
def test_a_key_or_a_variable_switches_it_off(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    monkeypatch.setenv("JAXVFF_CACHE", "off" if how == "variable" else str(tmp_path))
    options = OutputOptions(compilation_cache=how == "variable")
    assert compilation_cache.set_up(options) is None
    assert not settings
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_switches_it_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object]
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JAXVFF_CACHE", str(tmp_path / "file"))
    assert compilation_cache.set_up(OutputOptions()) is None
    assert not settings


@pytest.mark.slow
def test_runs_that_share_the_cache_at_the_same_time_and_later_have_the_same_numbers(
    tmp_path: Path,
) -> None:
    def begin(name: str, cache: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "jaxvff", "train", *TINY, f"run_dir={tmp_path / name}"]
        env = {**os.environ, "JAXVFF_CACHE": cache}
        return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)

    def metrics(name: str) -> list[dict]:
        lines = (tmp_path / name / "metrics.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(x).items() if k != "wall_s"} for x in lines]

    cache = tmp_path / "cache"
    both = [begin(name, str(cache)) for name in ("one", "other")]
    assert [process.wait() for process in both] == [0, 0]
    kept = {p.name for p in cache.rglob("*-cache")}
    assert kept, "nothing was kept"
    assert begin("later", str(cache)).wait() == 0
    assert {p.name for p in cache.rglob("*-cache")} == kept, "something was compiled again"
    assert begin("without", "off").wait() == 0
    assert metrics("one") == metrics("other") == metrics("later") == metrics("without")
