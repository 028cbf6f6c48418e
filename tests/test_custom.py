"""Environments of the user, through PettingZoo's parallel API and gymnasium's tuples."""

from __future__ import annotations

import shutil
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
    for name in ("foreign", "oddities"):
        monkeypatch.delitem(sys.modules, name, raising=False)
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


def test_a_seed_that_is_given_later_is_as_good_as_the_first() -> None:
    """Level-based foraging: two episodes after it, whatever was played before."""

    def played(one: game.Game) -> np.ndarray:
        begun = one.reset()
        actions = np.random.default_rng(0).integers(one.spec.n_actions, size=(8, 2))
        steps = [one.step(action)[0] for action in actions]
        return np.array([view.obs for view in (begun, *steps, one.reset())])

    one = custom("foraging", "gymnasium")
    first, later = played(one), played(one)
    assert not np.array_equal(first, later)
    one.reseed(11)
    np.testing.assert_array_equal(first, played(one))


CANNOT_BE_MADE = [
    ("foreign", "has no module and function; write package.module:function"),
    (":make", "has no module and function; write package.module:function"),
    ("foreign:", "has no module and function; write package.module:function"),
    ("foreign:nothing", "foreign has no attribute 'nothing'; write package.module:function"),
    ("nowhere.at:all", "No module named 'nowhere'; .* into PYTHONPATH"),
    ("needs_nowhere:make", "needs_nowhere imports 'nowhere', which is not there; install it"),
    ("half:make", "importing half raised SyntaxError: .* mend it"),
    ("ends:make", "importing ends raised SystemExit: 3 .*; mend it"),
    ("oddities:number", "is 5, which cannot be called; name a function"),
    ("oddities:nothing", "returned None; it must return the environment"),
    ("oddities:a_class", "returned <class 'oddities.Plain'>; it must return the environment"),
    ("oddities:raises", r"raised RuntimeError: no map at all \(oddities.py:\d+\); mend it"),
    ("oddities:exits", r"raised SystemExit: 0 \(oddities.py:\d+\); mend it"),
    ("oddities:exits_hard", "ended with exit code 0 before it answered; give the path"),
    ("oddities:needs_size", r"does not fit oddities:needs_size\(size\): missing .* 'size'"),
]


@pytest.mark.parametrize(("entry", "message"), CANNOT_BE_MADE)
def test_an_entry_that_makes_nothing_says_why_in_a_line(
    entry: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_nowhere.py").write_text("import nowhere")
    (tmp_path / "half.py").write_text("make = (")
    (tmp_path / "ends.py").write_text("import sys; sys.exit(3)")
    monkeypatch.setenv("PYTHONPATH", f"{GAMES}:{tmp_path}")
    with pytest.raises(UserError, match=message) as caught:
        custom_env.make(custom_env.Options(entry=entry, time_limit=10))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"entry": 5}, "env.entry=5 must be a text"),
        ({"time_limit": True}, "env.time_limit=true must be a whole number"),
        ({"time_limit": 0}, "env.time_limit=0 is out of range"),
        ({"kwargs": 5}, "env.kwargs=5 must be a mapping {key: value}"),
        ({"kwargs": {1: 2}}, "must have names as keys"),
        ({"python": ""}, "env.python='' is no program; give the path"),
        ({"python": "/"}, "env.python='/' is no program; give the path"),
        ({"python": shutil.which("true")}, "exit code 0 before it answered; give the path"),
        ({"python": shutil.which("false")}, "exit code 1 before it answered; give the path"),
        ({"python": shutil.which("echo")}, "it printed last: .*; give the path of an interpreter"),
    ],
)
def test_options_that_make_nothing_are_named(options: dict, message: str) -> None:
    usual = {"entry": "oddities:Plain", "time_limit": 10}
    with pytest.raises(UserError, match=message):
        custom_env.make(custom_env.Options(**{**usual, **options}))


def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("no program")
    script.chmod(0o755)
    with pytest.raises(UserError, match="cannot be started: Exec format error; give the path"):
        custom_env.make(custom_env.Options(entry="a:b", time_limit=10, python=str(script)))


def test_a_game_may_print_and_break_when_it_is_closed() -> None:
    for entry in ("oddities:prints", "oddities:BreaksInClose"):
        env = custom_env.make(custom_env.Options(entry=entry, time_limit=10))
        assert env.spec[:5] == (2, 3, 3, 6, 10)


CANNOT_BE_PLAYED = [
    ("nobody", r"possible_agents=\[\] must name at least one agent"),
    ("twice", r"possible_agents=\['left', 'left'\] must name at least one agent, each once"),
    ("unlisted", "has no possible_agents"),
    ("cartpole", "has no possible_agents.*for tuples of spaces set env.api=gymnasium"),
    ("aec", "is an AEC environment.*pettingzoo.utils.conversions.aec_to_parallel"),
    ("Stranger", "env.agents has 'third', which is not in possible_agents"),
    ("one_box", "observation_space knows no agent 'left'"),
    ("multi_binary", r"agent 'left' has the action space MultiBinary\(3\), which is not Discrete"),
    ("continuous", "agent 'left' has the action space Box.*, which is not Discrete"),
    ("text", "agent 'left' observes Text.*, which is no fixed number of numbers"),
    ("words", "the observation of agent 'left' is .*; expected numbers"),
    ("ragged", "the observation of agent 'left' is .*; expected numbers"),
    ("wrong_size", r"agent 'left' observes 4 numbers \(shape \[2, 2\]\), but .* has 3"),
    ("out_of_range", r"agent 'left' observes 0; .* whole numbers from \[1\] to \[3\]"),
    ("missing_part", r"its observation space has the parts \['hp', 'map'\]"),
    ("unseen", "agent 'right' has no observation although it is in env.agents"),
    ("no_seed", r"reset takes no seed .*; write it as reset\(self, seed=None, options=None\)"),
    ("old_reset", r"reset\(\) returned a dict; expected \(observations, infos\)"),
    ("old_step", r"step\(\) returned 4 values; expected \(observations, rewards, term"),
    ("list_rewards", r"step\(\) returned rewards that are a list; expected a dict by agent"),
    ("long_mask", "the action mask of agent 'left' is .*; expected 3 entries of 0 and 1"),
    ("log_mask", "the action mask of agent 'left' is .*; expected 3 entries of 0 and 1"),
    ("two_rewards", "the reward of agent 'left' has 2 entries; expected one number"),
    ("no_reward", "the reward of agent 'left' is None; expected numbers"),
    ("strange_reward", "rewards has 'team', which is not in possible_agents"),
    ("no_flags", "env.agents is empty although nobody was terminated or truncated"),
    ("CutUnseen", "agent 'left' has no observation although it was truncated"),
    ("growing_state", r"state\(\) has 3 numbers, and had 2 before"),
    ("broken_state", r"state\(\) raised AttributeError: .*nowhere.*; mend it, or leave it out"),
]
CANNOT_BE_PLAYED_AS_TUPLES = [
    ("cartpole", "observation_space is a Box, which is no Tuple with a space for each agent"),
    ("Plain", "observation_space is a method, which is no Tuple.*set env.api=pettingzoo"),
    ("old_tuples", "the info is .*; expected a dict"),
    ("fewer_spaces", "1 agents observe and 2 act"),
    ("three_rewards", "the reward has 3 entries; expected 1 or 2"),
    ("dict_flags", "terminated is {0: True, 1: True}; expected numbers"),
    ("dict_obs", "the observations are {0: .*; expected a tuple with 2 entries"),
]


@pytest.mark.parametrize(
    ("api", "entry", "message"),
    [("pettingzoo", *case) for case in CANNOT_BE_PLAYED]
    + [("gymnasium", *case) for case in CANNOT_BE_PLAYED_AS_TUPLES],
)
def test_what_no_team_can_play_is_refused_with_a_sentence(
    api: str, entry: str, message: str
) -> None:
    with pytest.raises(game.Refused, match=message):
        episode(odd(entry, api))


def test_a_refusal_reaches_the_user_as_it_is() -> None:
    with pytest.raises(UserError) as caught:
        custom_env.make(custom_env.Options(entry="oddities:multi_binary", time_limit=10))
    assert str(caught.value).startswith("agent 'left' has the action space MultiBinary(3), which")


def odd(entry: str, api: str = "pettingzoo") -> game.Game:
    """An environment of tests/games/oddities.py."""
    options = {"entry": f"oddities:{entry}", "api": api, "time_limit": 8, "kwargs": {}}
    return game.make("custom", options, 3)


def episode(one: game.Game, action: tuple[int, int] = (2, 0)) -> list[tuple]:
    """The (view, outcome) of each step of an episode in which the same actions are repeated."""
    one.reset()
    steps = []
    while not steps or not (steps[-1][1].terminated or steps[-1][1].truncated):
        steps.append(one.step(np.array(action)))
        assert len(steps) <= one.spec.episode_limit, "the episode does not end"
        assert not game.problem(one.spec, *steps[-1])
    return steps


@pytest.mark.parametrize(
    ("entry", "reward", "ends"),
    [
        ("Plain", 2, (True, False)),
        ("KeepsAgents", 2, (True, False)),
        ("ends_twice", 2, (True, False)),
        ("NoFinalActions", 2, (True, False)),
        ("OneEndsOneIsCut", 2, (False, True)),
        ("box_rewards", 1, (True, False)),
        ("no_state", 2, (True, False)),
        ("sees_nothing", 2, (True, False)),
        ("turns_at_once", 2, (True, False)),
    ],
)
def test_odd_environments_are_played_to_their_end(
    entry: str, reward: float, ends: tuple[bool, bool]
) -> None:
    one = odd(entry)
    steps = episode(one)
    assert [outcome[:3] for _, outcome in steps] == [(reward, False, False)] * 3 + [(reward, *ends)]
    seen = 0 if entry == "sees_nothing" else 4
    left_is_gone = entry == "OneEndsOneIsCut"  # the other one's future is all that is bootstrapped
    np.testing.assert_array_equal(steps[-1][0].obs[0], 0 if left_is_gone else seen)
    np.testing.assert_array_equal(steps[-1][0].obs[1], seen)
    np.testing.assert_array_equal(steps[-1][0].state, steps[-1][0].obs.ravel())


def test_a_termination_wins_in_tuples_as_well() -> None:
    ((_, outcome),) = episode(odd("ends_twice_in_tuples", "gymnasium"))
    assert outcome[:3] == (1, True, False)


def test_actions_are_counted_from_the_start_of_their_space() -> None:
    one = odd("starts_at_minus_1")
    episode(one, (2, 0))
    assert one._env.got == [{"left": 1, "right": -1}] * 4


def test_nobody_acts_in_a_final_observation_and_a_mask_may_be_empty_there() -> None:
    steps = episode(odd("NoFinalActions"))
    np.testing.assert_array_equal(steps[-2][0].avail, True)
    np.testing.assert_array_equal(steps[-1][0].avail, [[True, False, False]] * 2)


def test_an_environment_that_draws_from_the_global_generator_is_reproducible() -> None:
    first, second = (odd("DrawsFromTheGlobalGenerator").reset().obs for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.std() > 0


@pytest.mark.parametrize("reward", [1e39, -1e39, np.inf, np.nan])
def test_a_reward_that_32_bits_cannot_hold_is_rejected(reward: float) -> None:
    one = odd("Plain")
    outcome = game.Outcome(reward, terminated=False, truncated=False)
    assert game.problem(one.spec, one.reset(), outcome) == f"reward is {reward}"


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
