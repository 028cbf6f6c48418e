"""Google Research Football, the real one: beside its own wrappers, and in training."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.envs import grf, grf_render
from jaxvff.envs.host import game
from jaxvff.envs.host.grf import Football
from jaxvff.runs.plan import plan

pytest.importorskip("gfootball_engine", reason="needs `uv sync --extra grf`")

# task -> (a seed, how near the scripted attack shoots: with these it scores within ten episodes)
TASKS = {
    "academy_3_vs_1_with_keeper": (1, 0.3),
    "academy_counterattack_easy": (1, 0.2),
    "academy_counterattack_hard": (5, 0.25),
}
RIGHT, SHOT, SPRINT = 5, 12, 13
TOWARDS = {-1: 4, 0: RIGHT, 1: 6}  # right and up, right, right and down


def football(scenario: str, seed: int = 1, **options: Any) -> Football:
    plain = {
        "representation": "simple115v2", "rewards": "scoring,checkpoints", "time_limit": None,
        "n_agents": None,
    }  # fmt: skip
    one = game.make("grf", {"scenario": scenario, **plain, **options}, seed)
    assert isinstance(one, Football)
    return one


def wrapped(ours: Football, scenario: str) -> Any:
    """gfootball's environment as its own factory makes it, with the settings of ours."""
    import gfootball.env

    return gfootball.env.create_environment(
        env_name=scenario, representation="simple115v2", rewards="scoring,checkpoints",
        number_of_left_players_agent_controls=ours.spec.n_agents,
        other_config_options={"reverse_team_processing": ours._config["reverse_team_processing"]},
    )  # fmt: skip


def attack(ours: Football, rng: np.random.Generator, near: float) -> np.ndarray:
    """Whoever has the ball runs at the goal and shoots; the others go along."""
    now, action = ours._now, np.full(ours.spec.n_agents, RIGHT)
    for i, player in enumerate(now.controlled):
        x, y = now.left[player]
        if now.owner != (0, player):
            action[i] = rng.choice([RIGHT, 0])
        elif np.hypot(x - 1, y) < near:
            action[i] = SHOT
        else:
            action[i] = TOWARDS[0 if abs(y) < 0.05 else int(-np.sign(y))]
            if rng.random() < 0.2:
                action[i] = SPRINT
    return action


def anything(ours: Football, rng: np.random.Generator, near: float) -> np.ndarray:
    return rng.integers(19, size=ours.spec.n_agents)


def wander(ours: Football, rng: np.random.Generator, near: float) -> np.ndarray:
    return rng.choice([0, 1, 14, 17], size=ours.spec.n_agents)


def side_by_side(
    ours: Football, theirs: Any, policies: list[Callable], seed: int, near: float
) -> dict[str, int]:
    """An episode of each policy in both, which must agree in everything; how they ended."""
    rng, ends = np.random.default_rng(seed), {"goal": 0, "late": 0, "other": 0}
    for policy in policies:
        view = ours.reset()
        drawn = ours._config["game_engine_random_seed"]
        theirs.unwrapped._config["game_engine_random_seed"] = drawn
        np.testing.assert_array_equal(view.obs, theirs.reset())
        done = False
        while not done:
            action = policy(ours, rng, near)
            view, outcome = ours.step(action)
            obs, rewards, done, info = theirs.step(action.tolist())
            np.testing.assert_array_equal(view.obs, obs)
            np.testing.assert_allclose(outcome.reward, np.mean(rewards), atol=1e-6)
            assert (outcome.terminated or outcome.truncated) == done
            score = theirs.unwrapped.observation()[0]["score"]
            assert outcome.results["goal_difference"] == score[0] - score[1]
            assert (info["score_reward"] != 0) == (max(score) > 0)
        kind = "goal" if max(score) else "late" if outcome.truncated else "other"
        ends[kind] += 1
    return ends


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_lean_reading_is_that_of_gfootballs_wrappers(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """23 episodes: observations, reward, end and score, with goals and time-outs among them."""
    seed, near = TASKS[task]
    ours = football(task, seed)
    theirs = wrapped(ours, task)
    ends = side_by_side(ours, theirs, [attack] * 10 + [anything] * 10, seed, near)
    assert ends["goal"] >= 1
    assert ends["other"] >= 5
    # A time-out, by the scenario's own clock: shorter than 400 steps, which few games reach.
    scenario = importlib.import_module(f"gfootball.scenarios.{task}")
    build = scenario.build_scenario

    def shorter(builder: Any) -> None:
        build(builder)
        builder.config().game_duration = 25

    monkeypatch.setattr(scenario, "build_scenario", shorter)
    late = side_by_side(ours, theirs, [wander] * 3, seed, near)
    assert late["late"] >= 1


def slow_relative(raw: dict[str, Any], ego: int, team: list[int], opponents: int) -> list[float]:
    """CDS's observation of one player, entry by entry from gfootball's raw observation."""
    me, out = raw["left_team"][ego], []
    out += [*me]
    for mate in team:
        if mate != ego:
            out += [*(raw["left_team"][mate] - me)]
    out += [*raw["left_team_direction"][ego]]
    for mate in team:
        if mate != ego:
            out += [*raw["left_team_direction"][mate]]
    for j in range(opponents):
        out += [*(raw["right_team"][j] - me)]
    for j in range(opponents):
        out += [*raw["right_team_direction"][j]]
    out += [*(raw["ball"][:2] - me), raw["ball"][2], *raw["ball_direction"]]
    return out


@pytest.mark.parametrize(
    ("task", "size"),
    [
        ("academy_3_vs_1_with_keeper", 26),
        ("academy_counterattack_easy", 34),
        ("academy_counterattack_hard", 34),
    ],
)
@pytest.mark.parametrize("representation", ["cds", "relative"])
def test_the_compact_observations(task: str, size: int, representation: str) -> None:
    """CDS's numbers: of its fixed players, or of those whom the agents really move."""
    ours = football(task, representation=representation)
    theirs = wrapped(ours, task)
    rng = np.random.default_rng(0)
    view = ours.reset()
    theirs.unwrapped._config["game_engine_random_seed"] = ours._config["game_engine_random_seed"]
    theirs.reset()
    n = ours.spec.n_agents
    for _ in range(12):
        raw = theirs.unwrapped.observation()
        fixed = list(range(len(raw[0]["left_team"]) - n, len(raw[0]["left_team"])))
        team = fixed if representation == "cds" else [o["active"] for o in raw]
        slow = [slow_relative(raw[0], ego, team, (size - 26) // 8 + 2) for ego in team]
        np.testing.assert_allclose(view.obs, slow, atol=1e-6)
        assert view.obs.shape == (n, size)
        action = rng.integers(19, size=n)
        view, _ = ours.step(action)
        if theirs.step(action.tolist())[2]:
            break


def play(one: Football, policy: Callable, n: int, near: float = 0.3) -> list[list[game.Outcome]]:
    rng, episodes = np.random.default_rng(1), []
    for _ in range(n):
        one.reset()
        episode: list[game.Outcome] = []
        while not episode or not (episode[-1].terminated or episode[-1].truncated):
            episode.append(one.step(policy(one, rng, near))[1])
        episodes.append(episode)
    return episodes


@pytest.mark.slow
def test_cds_rewards_a_goal_with_100_and_any_other_end_with_minus_1() -> None:
    one = football("academy_3_vs_1_with_keeper", representation="cds", rewards="cds")
    episodes = play(one, attack, 10)
    assert all(o.reward == 0 for episode in episodes for o in episode[:-1])
    for episode in episodes:
        won = episode[-1].results["win_rate"]
        assert episode[-1].reward == (100 if won else -1)
    assert any(episode[-1].results["win_rate"] for episode in episodes)


@pytest.mark.slow
def test_cds_ends_behind_the_halfway_line_and_at_its_limit() -> None:
    def back(ours: Football, rng: np.random.Generator, near: float) -> np.ndarray:
        return np.full(3, 1)  # everybody runs home

    one = football("academy_3_vs_1_with_keeper", 0, rewards="cds", time_limit=150)
    went = []
    for _ in range(8):
        (episode,) = play(one, back, 1)
        behind = one._now.left[1:, 0].min() < 0 or one._now.ball[0] < 0
        assert episode[-1].terminated or not behind
        went.append(behind)
    assert any(went)
    one = football("academy_3_vs_1_with_keeper", 0, rewards="cds", time_limit=12)
    assert one.spec.episode_limit == 12
    late = [e for e in play(one, wander, 4) if e[-1].truncated]
    assert late
    assert all(len(e) == 12 and e[-1].results["timeout_rate"] == 1 for e in late)
    assert not late[0][-1].terminated


def test_a_seed_decides_every_episode() -> None:
    """Also one that is given later, whatever was played before."""

    def trace(one: Football) -> np.ndarray:
        rng, seen = np.random.default_rng(0), []
        for _ in range(2):
            seen.append(one.reset().obs)
            for _ in range(10):
                view, outcome = one.step(rng.integers(19, size=3))
                seen.append(view.obs)
                if outcome.terminated:
                    break
        return np.array([x.sum() for x in seen])

    task = "academy_3_vs_1_with_keeper"
    same, later = football(task, 3), football(task, 4)
    expected, other = trace(same), trace(later)
    np.testing.assert_array_equal(expected, trace(football(task, 3)))
    n = min(len(expected), len(other))
    assert not np.array_equal(expected[:n], other[:n])
    later.reseed(3)
    np.testing.assert_array_equal(expected, trace(later))
    same.reseed(4)
    np.testing.assert_array_equal(other, trace(same))


def test_the_order_of_the_teams_is_drawn_or_given() -> None:
    def positions(seed: int, **options: Any) -> np.ndarray:
        one, rng = football("academy_3_vs_1_with_keeper", seed, **options), np.random.default_rng(0)
        one.reset()
        return np.array([one.step(rng.integers(19, size=3))[0].state for _ in range(5)])

    differs = 0
    for seed in (3, 4):  # of these one draws false, the other one true
        drawn = positions(seed)
        orders = [positions(seed, reverse_team_processing=order) for order in (False, True)]
        assert sum(np.array_equal(drawn, given) for given in orders) == 1
        differs += np.array_equal(drawn, orders[1])
    assert differs == 1


def test_a_whole_match_has_an_agent_for_all_but_one() -> None:
    one = football("11_vs_11_stochastic")
    assert one.spec.n_agents == 10
    assert one.spec.episode_limit == 3001
    view = one.reset()
    assert len(set(one._now.controlled)) == 10
    assert view.obs.shape == (10, 115)
    for _ in range(5):
        view, outcome = one.step(np.full(10, RIGHT))
    assert not outcome.terminated


def eased(**options: Any) -> Football:
    """The eased task: configs/env/grf_eased."""
    every = {"bind_players": True, "mask_actions": True, "action_repeat": 3, "n_agents": 3}
    scaled = {"representation": "scaled", "time_limit": 40, "terminate_late": True}
    return football("academy_3_vs_1_with_keeper", **{**every, **scaled, **options})


def test_an_agent_keeps_its_player_where_it_is_bound_to_it() -> None:
    handed_over = []
    for bind in (True, False):
        one, rng = eased(bind_players=bind, action_repeat=1), np.random.default_rng(0)
        seen = set()
        for _ in range(3):
            one.reset()
            for _ in range(15):
                _, outcome = one.step(anything(one, rng, 0))
                seen.add(tuple(one._now.controlled))
                if outcome.terminated:
                    break
        handed_over.append(seen)
    bound, by_engine = handed_over
    assert bound == {(1, 2, 3)}
    assert len(by_engine) > 1


def test_a_pass_needs_the_ball_and_a_shot_needs_its_range_too() -> None:
    one, seen = eased(action_repeat=1), set()
    rng = np.random.default_rng(0)
    for _ in range(6):
        view, outcome = one.reset(), None
        while outcome is None or not outcome.terminated:
            now = one._now
            has_ball = np.array([now.owner == (0, player) for player in now.controlled])
            np.testing.assert_array_equal(view.avail[:, 11], has_ball)
            np.testing.assert_array_equal(view.avail[:, 12], has_ball & (now.ball[0] >= 0.64))
            np.testing.assert_array_equal(view.avail[:, 13], ~view.avail[:, 15])
            assert not view.avail[:, [9, 10, 14, 16, 17, 18]].any()
            assert view.avail[:, :9].all()
            seen |= {(bool(has_ball.any()), bool(view.avail[:, 12].any()))}
            action = attack(one, rng, 0.3)
            allowed = view.avail[np.arange(3), action]
            view, outcome = one.step(np.where(allowed, action, RIGHT))
    assert seen == {(False, False), (True, False), (True, True)}


def test_an_action_lasts_so_many_steps_of_the_engine_unless_another_player_gets_the_ball() -> None:
    one, rng, lasted = eased(), np.random.default_rng(0), []
    for _ in range(8):
        one.reset()
        for _ in range(12):
            before, holder = one._now, one._holder
            _, outcome = one.step(wander(one, rng, 0))
            now = one._now
            lasted.append(now.step - before.step)
            same = one._holder == holder and now.mode == 0 and not outcome.terminated
            assert lasted[-1] == 3 if same else 1 <= lasted[-1] <= 3
            if outcome.terminated:
                break
    assert {1, 2} & set(lasted)
    assert lasted.count(3) > len(lasted) / 2


def test_time_that_is_up_is_an_end_where_that_is_asked_for() -> None:
    for terminate in (True, False):
        one = eased(terminate_late=terminate, time_limit=5)
        late = [e[-1] for e in play(one, wander, 3) if len(e) == 5]
        assert late
        assert all(o.terminated == terminate and o.truncated != terminate for o in late)


@pytest.mark.parametrize("representation", ["relative", "cds", "simple115v2", "scaled"])
def test_the_picture_finds_everybody_in_the_state(representation: str) -> None:
    one = football("academy_3_vs_1_with_keeper", representation=representation)
    view = one.reset()
    seen = grf_render.scene(representation, 3, view.state)
    np.testing.assert_allclose(seen.ball, one._now.ball, atol=1e-6)
    np.testing.assert_allclose(seen.right, one._now.right, atol=1e-6)
    of = {"relative": one._now.controlled, "cds": [1, 2, 3], "simple115v2": [0, 1, 2, 3]}
    of["scaled"] = of["relative"]
    np.testing.assert_allclose(seen.left, one._now.left[of[representation]], atol=1e-6)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"scenario": "academy_9_vs_9"}, "choose one of 11_vs_11"),
        ({"representation": "pixels"}, "choose one of relative, cds, simple115v2, scaled"),
        ({"bind_players": True, "n_agents": 2}, "leave 2 players standing still"),
        ({"rewards": "goals"}, "choose one of scoring"),
        ({"n_agents": 5}, "env.n_agents=5 must be 1 to 4"),
        ({"time_limit": 0}, "env.time_limit=0 is out of range"),
    ],
)
def test_bad_options_are_named(option: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grf.make(grf.Options(**option))


def test_a_missing_game_says_how_to_install_it(tmp_path: Path) -> None:
    """An interpreter that has NumPy and no gfootball."""
    script = tmp_path / "python"
    hide = "import sys; sys.modules['gfootball_engine'] = None; sys.argv.pop(0); import runpy; "
    run = "runpy.run_path(sys.argv[0], run_name='__main__')"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{hide}{run}" "$@"\n')
    script.chmod(0o755)
    with pytest.raises(UserError, match="uv sync --extra grf") as caught:
        grf.make(grf.Options(python=str(script)))
    assert "libboost-python-dev" in str(caught.value)


def test_every_scenario_has_a_config() -> None:
    from gfootball.env import scenario_builder

    names = {n for n in scenario_builder.all_scenarios() if n[0].isdigit() or n[:7] == "academy"}
    folder = Path(__file__).resolve().parent.parent / "configs" / "env" / "grf"
    assert {p.stem for p in folder.glob("*.yaml")} - {"base"} == names
    (group,) = plan(["env=grf/academy_counterattack_hard", "method=nmqmix"])
    assert group.values[0].env.spec[:3] == (4, 19, 34)


@pytest.mark.slow
def test_train_evaluate_and_render(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tmp_path / "run"
    small = [
        "env=grf/academy_3_vs_1_with_keeper", "method=nmqmix", "env.time_limit=30", "n_envs=2",
        "segment_length=62", "total_steps=488", "eval_interval=244", "eval_episodes=2",
        "hidden_dim=8", "buffer_size=16", "batch_size=2", "updates=1", "learn_start=2",
    ]  # fmt: skip
    assert main(["train", *small, f"run_dir={folder}"]) == 0
    assert (folder / "metrics.jsonl").exists()
    assert main(["evaluate", f"run={folder}", "render=true"]) == 0
    (picture,) = folder.glob("greedy_*.gif")
    assert picture.read_bytes()[:3] == b"GIF"
    assert str(picture) in capsys.readouterr().out
