"""Google Research Football: gfootball's engine, read once a step for all players.

gfootball's own wrappers copy every observation several times for every player, and keep a trace
for videos. Here its engine is driven directly, by its rules (gfootball/env/football_env_core.py,
2.10.2), with the numbers of its wrappers: tests/test_grf.py plays both side by side.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .game import Game, Missing, Outcome, Spec, View

INSTALL = """{error}. Install it from a checkout with
  apt-get install -y g++ make cmake libgl-dev libegl-dev libopengl-dev libsdl2-dev \\
    libsdl2-image-dev libsdl2-ttf-dev libsdl2-gfx-dev libboost-python-dev libboost-thread-dev \\
    libboost-system-dev libboost-filesystem-dev
  uv sync --extra grf        (compiles for about five minutes; Python 3.11 on Debian 12)
or name an interpreter that has it: env.python=<its python>"""
REPRESENTATIONS = ("relative", "cds", "simple115v2")
REWARDS = ("scoring", "scoring,checkpoints", "cds")
RESULTS = ("win_rate", "loss_rate", "draw_rate", "timeout_rate", "goal_difference")
N_ACTIONS = 19  # gfootball's default action set
N_CHECKPOINTS, CHECKPOINT = 10, 0.1  # gfootball's checkpoint reward
OPPONENTS = 3  # that CDS shows, if there are as many
PATIENCE = 20  # steps that a team may hold up a restart, before gfootball plays on for it
NORMAL = 0  # game mode


class Reading(NamedTuple):
    """What one reading of the engine tells."""

    left: np.ndarray  # [n, 2] positions
    left_speed: np.ndarray  # [n, 2]
    right: np.ndarray  # [m, 2]
    right_speed: np.ndarray  # [m, 2]
    ball: np.ndarray  # [3]
    ball_speed: np.ndarray  # [3]
    owner: tuple[int, int]  # the team (-1: none) and the player that has the ball
    controlled: list[int]  # the player of each agent; the engine may change them at any step
    mode: int
    score: tuple[int, int]
    step: int


def make(seed: int, **options: Any) -> Game:
    """A scenario, for the left team; options as in jaxvff/envs/hosted.py.

    Raises:
      Missing: gfootball is not there.
      ValueError: an unknown name, or a number of players that the scenario does not have.
    """
    try:
        import gfootball_engine  # noqa: F401
    except ImportError as error:
        raise Missing(INSTALL.format(error=error)) from error
    return Football(seed, **options)


class Football(Game):
    """A scenario of gfootball; an agent each for `n_agents` players of the left team."""

    def __init__(
        self,
        seed: int,
        scenario: str,
        representation: str,
        rewards: str,
        time_limit: int | None,
        n_agents: int | None,
    ) -> None:
        import gfootball_engine as engine
        from gfootball.env import config, football_action_set, scenario_builder

        _check_name("scenario", scenario, scenario_builder.all_scenarios())
        _check_name("representation", representation, REPRESENTATIONS)
        _check_name("rewards", rewards, REWARDS)
        if time_limit is not None and (not isinstance(time_limit, int) or time_limit < 1):
            raise ValueError(f"env.time_limit={time_limit!r} must be a number of steps, or null")
        self._lib, self._random = engine, random.Random(seed)
        probe = config.Config({"level": scenario}).ScenarioConfig()
        most = probe.controllable_left_players
        # All but the keeper, as far as CDS had them: 3 in 3_vs_1, 4 in the counterattacks.
        self._n = n_agents if n_agents is not None else _team(scenario, most)
        if not isinstance(self._n, int) or not 1 <= self._n <= most:
            raise ValueError(f"env.n_agents={n_agents!r} must be 1 to {most} in {scenario}")
        first = self._draw()
        self._config = config.Config(
            {
                "level": scenario,
                "players": [f"agent:left_players={self._n},right_players=0"],
                "game_engine_random_seed": first,
                # gfootball takes it from the seed of its first scenario, and keeps it.
                "reverse_team_processing": bool(first % 2),
            }
        )
        self._actions = [
            action._backend_action for action in football_action_set.get_action_set(self._config)
        ]
        self._short_pass = football_action_set.action_short_pass._backend_action
        self._engine = engine.GameEnv()
        self._engine.game_config.physics_steps_per_frame = self._config["physics_steps_per_frame"]
        self._representation, self._rewards, self._limit = representation, rewards, time_limit
        self._now: Reading
        self._restart(0)  # gfootball does so, too; the engine's state may depend on it
        seen = self._view(self._now)
        # The engine may play on for a step after its time is up.
        own = self._engine.config.game_duration + 1
        limit = own if time_limit is None else min(time_limit, own)
        self.spec = Spec(self._n, N_ACTIONS, seen.obs.shape[1], len(seen.state), limit, RESULTS)

    def reset(self) -> View:
        """Kick off."""
        self._config["game_engine_random_seed"] = self._draw()
        self._restart(1)
        return self._view(self._now)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Everybody acts, and the game goes on for a tenth of a second."""
        for i, chosen in enumerate(self._moves(action)):
            self._engine.perform_action(chosen, True, i)
        before = self._now
        self._now = self._play_on()
        self._steps += 1
        ended, late = self._end(before)
        goals = self._now.score[0] - self._now.score[1]
        reward = self._reward(goals - (before.score[0] - before.score[1]))
        if self._rewards == "cds":
            ended = ended or self._went_back()
            late = late and not ended
            reward = 100.0 if reward > 0 else -float(ended or late)
        results: dict[str, float] = {
            "win_rate": float(goals > 0),
            "loss_rate": float(goals < 0),
            "draw_rate": float(ended and goals == 0),
            "timeout_rate": float(late and goals == 0),
            "goal_difference": float(goals),
        }
        return self._view(self._now), Outcome(reward, ended, late, results)

    def _draw(self) -> int:
        """A seed for the engine, from the range that gfootball draws from."""
        return self._random.randint(0, 2_000_000_000)

    def _restart(self, increment: int) -> None:
        lib, engine = self._lib, self._engine
        self._config.NewScenario(inc=increment)
        if engine.state == lib.GameState.game_created:
            engine.start_game()
        engine.state = lib.GameState.game_running
        engine.reset(self._config.ScenarioConfig(), False)
        self._steps = 0
        self._last_mode, self._last_team = -1, -1
        self._collected = [0] * self._n
        self._now = self._read() or self._play_on()

    def _play_on(self) -> Reading:
        """Step the engine until the ball is in play."""
        while True:
            self._engine.step()
            now = self._read()
            if now is not None:
                return now

    def _read(self) -> Reading | None:
        """None: the ball is not in play, and nobody is asked for an action."""
        info = self._engine.get_info()
        if not info.is_in_play:
            return None
        left, left_speed = _places(info.left_team)
        right, right_speed = _places(info.right_team)
        at, to = info.ball_position, info.ball_direction
        return Reading(
            left, left_speed, right, right_speed,
            np.array([at[0], at[1], at[2]]), np.array([to[0], to[1], to[2]]),
            (info.ball_owned_team, info.ball_owned_player),
            [info.left_controllers[i].controlled_player for i in range(self._n)],
            int(info.game_mode), (info.left_goals, info.right_goals), info.step,
        )  # fmt: skip

    def _moves(self, action: np.ndarray) -> list[Any]:
        """The actions for the engine; a team that holds up a restart too long is played for."""
        waited = self._engine.waiting_for_game_count
        if waited < PATIENCE:
            return [self._actions[int(a)] for a in action]
        if waited == PATIENCE:
            return [self._short_pass] * self._n
        idle, left, right = self._actions[0], self._actions[1], self._actions[5]
        run = right if waited < PATIENCE + 10 else left
        team, player = self._now.owner
        return [run if team == 0 and c == player else idle for c in self._now.controlled]

    def _end(self, before: Reading) -> tuple[bool, bool]:
        """`(the game is over, its time is up)`, by the rules of the scenario."""
        now, rules = self._now, self._engine.config
        scored = rules.end_episode_on_score and max(now.score) > 0
        out = rules.end_episode_on_out_of_play and now.mode != NORMAL and self._last_mode == NORMAL
        team = now.owner[0]
        lost = (
            rules.end_episode_on_possession_change
            and team != -1
            and self._last_team not in (-1, team)
        )
        self._last_mode = now.mode
        self._last_team = self._last_team if team == -1 else team
        engine = self._engine
        engine.waiting_for_game_count = engine.waiting_for_game_count + 1 if now.mode else 0
        ended = bool(scored or out or lost)
        late = now.step >= rules.game_duration or self._steps == self._limit
        if ended or now.step >= rules.game_duration:
            engine.state = self._lib.GameState.game_done
        return ended, bool(late and not ended)

    def _reward(self, goals: int) -> float:
        """Of the team: the mean over players of what gfootball rewards each with."""
        if self._rewards != "scoring,checkpoints":
            return float(goals)
        return float(np.mean([self._with_checkpoints(i, goals) for i in range(self._n)]))

    def _with_checkpoints(self, i: int, goals: int) -> float:
        """Of one player: circles around the goal, collected by whoever carries the ball inwards."""
        now, had = self._now, self._collected[i]
        if goals == 1:
            self._collected[i] = N_CHECKPOINTS
            return 1 + CHECKPOINT * (N_CHECKPOINTS - had)
        if now.owner == (0, now.controlled[i]):
            distance = float(np.hypot(now.ball[0] - 1, now.ball[1]))
            gap = 0.8 / (N_CHECKPOINTS - 1)  # from 0.99 to 0.19 of half a pitch
            while self._collected[i] < N_CHECKPOINTS:
                if distance > 0.99 - gap * self._collected[i]:
                    break
                self._collected[i] += 1
        return goals + CHECKPOINT * (self._collected[i] - had)

    def _went_back(self) -> bool:
        """CDS: the ball or one of the last n players is in our own half."""
        return bool(self._now.ball[0] < 0 or (self._now.left[-self._n :, 0] < 0).any())

    def _view(self, now: Reading) -> View:
        avail = np.ones((self._n, N_ACTIONS), bool)
        if self._representation == "simple115v2":
            obs, state = _simple115(now)
        else:
            last = range(len(now.left) - self._n, len(now.left))
            of = list(last) if self._representation == "cds" else now.controlled
            obs, state = _relative(now, np.array(of))
        return View(obs, state, avail)


def _check_name(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"env.{option}={value!r} is unknown; choose one of {', '.join(known)}")


def _team(scenario: str, most: int) -> int:
    """How many players are ours where nobody says: as CDS has it, else all but the keeper."""
    known = {"academy_counterattack_easy": 4, "academy_counterattack_hard": 4}
    return known.get(scenario, max(most - 1, 1))


def _places(team: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions and directions `[n, 2]` of a team."""
    numbers = []
    for player in team:
        at, to = player.position, player.direction
        numbers.append((at[0], at[1], to[0], to[1]))
    every = np.array(numbers)
    return every[:, :2], every[:, 2:]


def _relative(now: Reading, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CDS's observations of the players `of` [A], relative to each, and its world state."""
    n = len(of)
    others = np.array([[j for j in range(n) if j != i] for i in range(n)], int).reshape(n, n - 1)
    at, speed = now.left[of], now.left_speed[of]
    right, right_speed = now.right[:OPPONENTS], now.right_speed[:OPPONENTS]
    obs = np.concatenate(
        [
            at,
            (at[others] - at[:, None]).reshape(n, -1),
            speed,
            speed[others].reshape(n, -1),
            (right[None] - at[:, None]).reshape(n, -1),
            np.tile(right_speed.ravel(), (n, 1)),
            now.ball[:2] - at,
            np.tile(np.concatenate([now.ball[2:], now.ball_speed]), (n, 1)),
        ],
        axis=1,
    )
    parts = [at, speed, right, right_speed, now.ball, now.ball_speed]
    state = np.concatenate([part.ravel() for part in parts])
    return obs.astype(np.float32), state.astype(np.float32)


def _simple115(now: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Gfootball's simple115v2 for every agent; the state is the same without who is active."""
    whole = np.full(115, -1.0)
    for k, part in enumerate((now.left, now.left_speed, now.right, now.right_speed)):
        whole[22 * k : 22 * k + part.size] = part.ravel()
    whole[88:91], whole[91:94] = now.ball, now.ball_speed
    whole[94:] = 0
    whole[94 + 1 + now.owner[0]] = 1
    whole[108 + now.mode] = 1
    obs = np.tile(whole.astype(np.float32), (len(now.controlled), 1))
    for row, player in zip(obs, now.controlled):
        if player != -1:
            row[97 + player] = 1
    return obs, np.delete(whole, np.s_[97:108]).astype(np.float32)
