"""The adapters of SMAC and SMACv2, against stand-ins that keep the contract of the real ones."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.envs import hosted, smac, smacv2
from jaxvff.envs.host import game
from jaxvff.envs.host.game import Crashed, Missing
from jaxvff.playing.host.pool import Pool
from tests.hosts import play as play_pool

FAKES = str(Path(__file__).parent / "fakes")


@pytest.fixture
def starcraft(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """smac, smacv2 and a folder that passes for StarCraft II, here and in workers."""
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setenv("PYTHONPATH", FAKES)
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    hosted._ask.cache_clear()
    yield
    hosted._ask.cache_clear()
    for name in [n for n in sys.modules if n.split(".")[0] in ("smac", "smacv2")]:
        del sys.modules[name]


def play(one: game.Game) -> tuple[list[game.Outcome], list[game.View]]:
    """An episode of the last available action of everybody."""
    views, outcomes = [one.reset()], []
    while not outcomes or not (outcomes[-1].terminated or outcomes[-1].truncated):
        best = views[-1].avail.shape[1] - 1 - np.argmax(views[-1].avail[:, ::-1], axis=1)
        view, outcome = one.step(best)
        views.append(view)
        outcomes.append(outcome)
    return outcomes, views


def battle(**options: object) -> game.Game:
    return game.make("smac", {"map_name": "3m", **options}, 7)


@pytest.mark.parametrize(
    ("kind", "terminated", "rates"),
    [("win", True, (1, 0, 0)), ("loss", True, (0, 1, 0)), ("timeout", False, (0, 0, 1))],
)
def test_how_a_battle_ended(starcraft: None, kind: str, terminated: bool, rates: tuple) -> None:
    outcomes, _ = play(battle(script=[kind]))
    last = outcomes[-1]
    assert (last.terminated, last.truncated) == (terminated, not terminated)
    named = [last.results[f"{name}_rate"] for name in ("win", "loss", "timeout")]
    assert tuple(named) == rates
    assert not any(o.terminated or o.truncated for o in outcomes[:-1])


def test_the_sizes_and_the_limit_are_the_registrys(starcraft: None) -> None:
    spec = battle(length=None).spec
    assert spec[:5] == (3, 9, 4, 5, 60)
    env = smac.make(smac.Options(map="3s_vs_5z", options={"length": None}))
    assert env.spec.episode_limit == 250
    assert env.results[0] == "win_rate"


def test_only_the_dead_have_no_op(starcraft: None) -> None:
    _, views = play(battle())
    assert not any(view.avail[:, 0].any() for view in views[:2])
    dead = views[2].avail[0]
    assert dead[0]
    assert not dead[1:].any()
    one = battle()
    one.reset()
    with pytest.raises(AssertionError, match="cannot perform"):
        one.step(np.zeros(3, int))


def test_the_seed_is_an_argument_of_the_constructor(starcraft: None) -> None:
    assert battle()._env._seed == 7


@pytest.mark.parametrize("options", [{"script": ["crash"]}, {"broken_reset": [0]}])
def test_a_game_that_broke_is_never_an_episode(starcraft: None, options: dict) -> None:
    with pytest.raises(Crashed, match="StarCraft II broke"):
        play(battle(**options))


def test_a_reward_that_is_no_number_is_named(starcraft: None) -> None:
    one = battle(script=["nan"])
    one.reset()
    for _ in range(2):
        view, outcome = one.step(np.ones(3, int))
    assert game.problem(one.spec, view, outcome) == "reward is nan"


def test_smacv2_draws_teams_and_may_reset_twice(starcraft: None) -> None:
    options = {"race": "zerg", "n_units": 5, "n_enemies": 6, "script": ["win"]}
    one = game.make("smacv2", options, 3)
    assert one._env.config["n_enemies"] == 6
    outcomes, views = play(one)
    assert outcomes[-1].results["win_rate"] == 1
    assert views[0].obs.shape == (3, 4)
    with pytest.raises(ValueError, match="choose one of terran, protoss, zerg"):
        game.make("smacv2", {**options, "race": "murloc"}, 3)


def test_a_worker_whose_game_broke_is_replaced(starcraft: None) -> None:
    """Episode 1 of every process crashes: the run goes on with the others."""
    told: list[str] = []
    env = smac.make(smac.Options(map="3m", workers=1, options={"script": ["win", "crash"]}))
    with Pool(env, 2, [0], told.append) as pool:
        ends = play_pool(pool, 20)
        assert pool.restarts >= 2
    assert ends >= 4
    assert all("StarCraft II broke in a battle" in line for line in told)


def test_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for kind, name in ((smac.KIND, "smac"), (smacv2.KIND, "smacv2")):
        with pytest.raises(UserError, match=f"oxwhirl/{name}") as caught:
            kind.make(kind.options())
        assert "StarCraft II" in str(caught.value)
    monkeypatch.syspath_prepend(FAKES)
    monkeypatch.setenv("SC2PATH", str(tmp_path / "nowhere"))
    with pytest.raises(Missing, match="there is no StarCraft II"):
        battle()
    assert "smac" not in os.environ.get("PYTHONPATH", "")
