"""Environments of the user, through PettingZoo's parallel API and gymnasium's tuples."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.envs import custom as custom_env
from jaxvff.envs import hosted
from jaxvff.envs.host import game
from jaxvff.runs.plan import plan

GAMES = str(Path(__file__).parent / "games")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/games on the path, here and in workers."""
    monkeypatch.syspath_prepend(GAMES)
    monkeypatch.setenv("PYTHONPATH", GAMES)
    monkeypatch.delitem(sys.modules, "foreign", raising=False)
    hosted._ask.cache_clear()


def custom(
    entry: str, api: str = "pettingzoo", time_limit: int = 20, **kwargs: object
) -> game.Game:
    options = {"entry": f"foreign:{entry}", "api": api, "time_limit": time_limit, "kwargs": kwargs}
    return game.make("custom", options, 11)


def test_the_test_environment_keeps_pettingzoos_contract() -> None:
    import foreign
    from pettingzoo.test import parallel_api_test

    class Free(foreign.Countdown):
        """Its API test takes any action, which is random and has no seed; 5 cycles of 1 end it not."""

        def step(self, actions):
            return super().step({a: min(u, 1) if a == "slow" else 0 for a, u in actions.items()})

    parallel_api_test(Free(start=(9, 9)), num_cycles=5)


def test_agents_that_leave_see_zeros_and_have_one_action() -> None:
    one = custom("Countdown")
    assert one.spec[:5] == (2, 3, 2, 4, 20)
    view = one.reset()
    np.testing.assert_array_equal(view.obs, [[3, 0], [5, 5]])
    np.testing.assert_array_equal(view.avail, [[True, True, True], [True, True, False]])
    np.testing.assert_array_equal(view.state, view.obs.ravel())
    view, outcome = one.step(np.array([2, 1]))
    np.testing.assert_array_equal(view.obs, [[1, 0], [3, 3]])
    np.testing.assert_array_equal(view.avail[0], [True, True, False])  # its mask
    assert (outcome.reward, outcome.terminated) == (-2, False)
    one.step(np.array([1, 0]))
    view, outcome = one.step(np.array([0, 0]))  # "slow" has left: its action is nobody's
    np.testing.assert_array_equal(view.obs[0], [0, 0])
    np.testing.assert_array_equal(view.avail[0], [True, False, False])
    assert outcome.reward == -1
    _, outcome = one.step(np.array([0, 0]))
    assert (outcome.terminated, outcome.truncated) == (True, False)


def test_a_cut_is_told_from_an_end_and_shows_the_final_observation() -> None:
    one = custom("Countdown", cut_after=1)
    one.reset()
    view, outcome = one.step(np.array([1, 0]))
    assert (outcome.terminated, outcome.truncated) == (False, True)
    np.testing.assert_array_equal(view.obs, [[2, 0], [4, 4]])


def test_a_state_of_its_own_is_taken() -> None:
    one = custom("Countdown", with_state=True)
    np.testing.assert_array_equal(one.reset().state, [3, 5, 7])


def test_the_seed_reaches_the_environment() -> None:
    assert custom("Countdown")._env.seed == 11


def test_a_gymnasium_team_plays() -> None:
    """Level-based foraging, a real one: against itself, stepped by hand with the same seed."""
    import foreign

    one, plain = custom("foraging", "gymnasium"), foreign.foraging()
    view, (obs, _) = one.reset(), plain.reset(seed=11)
    rng = np.random.default_rng(0)
    for _ in range(30):
        np.testing.assert_allclose(view.obs, np.array(obs), atol=1e-6)
        action = rng.integers(one.spec.n_actions, size=2)
        view, outcome = one.step(action)
        obs, reward, done, cut, _ = plain.step(tuple(map(int, action)))
        np.testing.assert_allclose(outcome.reward, np.sum(reward))
        assert (outcome.terminated, outcome.truncated) == (done, cut and not done)
        if done or cut:
            view, (obs, _) = one.reset(), plain.reset()


@pytest.mark.parametrize(
    ("entry", "api", "message"),
    [
        ("foreign:cartpole", "gymnasium", "is no Tuple with a space for each agent"),
        ("foreign:nothing", "pettingzoo", "has no attribute 'nothing'"),
        ("foreign", "pettingzoo", "write package.module:function"),
    ],
)
def test_what_no_team_can_play_is_named(entry: str, api: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        custom_env.make(custom_env.Options(entry=entry, api=api, time_limit=10))


@pytest.mark.slow
def test_the_users_environment_trains(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = [
        "env=custom", "env.entry=foreign:Countdown", "env.time_limit=8", "method=vdn", "n_envs=2",
        "segment_length=18", "total_steps=340", "eval_interval=170", "eval_episodes=2",
        "hidden_dim=8", "buffer_size=16", "batch_size=2", "updates=1", "learn_start=2",
        f"run_dir={folder}",
    ]  # fmt: skip
    assert main(["train", *small]) == 0
    assert (folder / "curves.png").exists()


def test_games_on_the_host_are_not_searched_while_they_are_played() -> None:
    with pytest.raises(UserError, match="act_search=0"):
        plan(["env=custom", "env.entry=foreign:Countdown", "env.time_limit=20",
              "method=ordered_joint", "act_search=0.1"])  # fmt: skip
