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
REPRESENTATIONS = ("relative", "cds", "simple115v2", "scaled")
REWARDS = ("scoring", "scoring,checkpoints", "cds")
RESULTS = ("win_rate", "loss_rate", "draw_rate", "timeout_rate", "goal_difference")
# The options that make another task of the published one, as published: defaults of envs/grf.py.
PUBLISHED = {
    "bind_players": False,
    "mask_actions": False,
    "action_repeat": 1,
    "terminate_late": False,
    "reverse_team_processing": None,
}
N_ACTIONS = 19  # gfootball's default action set: idle, 8 directions, and these
LONG_PASS, HIGH_PASS, SHORT_PASS, SHOT, SPRINT = 9, 10, 11, 12, 13
RELEASE_DIRECTION, RELEASE_SPRINT, SLIDING, DRIBBLE, RELEASE_DRIBBLE = 14, 15, 16, 17, 18
STICKY = (*range(1, 9), SPRINT, DRIBBLE)  # actions that go on until another one ends them
# With env.mask_actions: never of use in attack, and a shot from farther than this hits nothing.
NEVER = (LONG_PASS, HIGH_PASS, RELEASE_DIRECTION, SLIDING, DRIBBLE, RELEASE_DRIBBLE)
SHOOTING_RANGE = 0.64  # of the ball along the pitch: the front of the penalty area is at 0.7
# What brings positions and speeds of an attack to about 1 (representation=scaled).
ATTACK = np.array([0.8, 0.0])  # the middle of an attack, in gfootball's coordinates
PER_POSITION, PER_SPEED, PER_BALL_SPEED, CLIP = 3.0, 50.0, 20.0, 6.0
N_CHECKPOINTS, CHECKPOINT = 10, 0.1  # gfootball's checkpoints, and the reward of each
# The distances of the ball to the goal at which they are collected: from 0.99 to 0.19 of half a
# pitch.
FARTHEST, GAP = 0.99, 0.8 / (N_CHECKPOINTS - 1)
OPPONENTS = 3  # that CDS shows, if there are as many
PATIENCE = 20  # steps that a team may hold up a restart, before gfootball plays on for it
NORMAL = 0  # game mode: the ball is in play
# Players that act in CDS, where it is not all but the keeper.
CDS_TEAMS = {"academy_counterattack_easy": 4, "academy_counterattack_hard": 4}


class Reading(NamedTuple):
    """What one reading of the engine tells.

    Coordinates are gfootball's: -1 to 1 along the pitch, -0.42 to 0.42 across. Speeds are its
    "directions", which have the same scale.
    """

    left: np.ndarray  # [n, 2] positions
    left_speed: np.ndarray  # [n, 2]
    right: np.ndarray  # [m, 2]
    right_speed: np.ndarray  # [m, 2]
    ball: np.ndarray  # [3]
    ball_speed: np.ndarray  # [3]
    owner: tuple[int, int]  # the team (-1: none) and the player that has the ball
    controlled: list[int]  # the player of each agent; the engine may change them at any step
    mode: int  # gfootball's game mode
    score: tuple[int, int]  # goals of the left and of the right team
    step: int  # of the engine's clock

    @property
    def lead(self) -> int:
        """Our goals less theirs."""
        return self.score[0] - self.score[1]

    @property
    def has_ball(self) -> np.ndarray:
        """Whether each agent's player has the ball: `[A]` bool."""
        return np.array([self.owner == (0, player) for player in self.controlled])


def make(seed: int, **options: Any) -> Game:
    """A scenario, for the left team; options as in jaxvff/envs/grf.py.

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
        *,
        scenario: str,
        representation: str,
        rewards: str,
        time_limit: int | None,
        n_agents: int | None,
        bind_players: bool = False,
        mask_actions: bool = False,
        action_repeat: int = 1,
        terminate_late: bool = False,
        reverse_team_processing: bool | None = None,
    ) -> None:
        """Begin, and reset once to know the sizes.

        Args:
          seed: of the generator that draws a seed for each episode.
          scenario: a name in gfootball/scenarios.
          representation: a name in REPRESENTATIONS.
          rewards: a name in REWARDS.
          time_limit: steps of the longest episode; None: the scenario's own.
          n_agents: players that act; None: as many as CDS has, else all but the keeper.
          bind_players: an agent keeps its player, one of the team's last; the keeper stands still.
          mask_actions: only what can be of use in attack is available.
          action_repeat: steps of the engine that an action lasts, unless another gets the ball.
          terminate_late: time that is up is a terminal state.
          reverse_team_processing: the order in which the engine moves the teams; None: drawn.
        """
        import gfootball_engine as engine
        from gfootball.env import config, football_action_set, scenario_builder

        _check_name("scenario", scenario, scenario_builder.all_scenarios())
        _check_name("representation", representation, REPRESENTATIONS)
        _check_name("rewards", rewards, REWARDS)
        if time_limit is not None and (not isinstance(time_limit, int) or time_limit < 1):
            raise ValueError(f"env.time_limit={time_limit!r} must be a number of steps, or null")
        self._representation, self._rewards, self._limit = representation, rewards, time_limit
        self._lib = engine
        players = config.Config({"level": scenario}).ScenarioConfig().controllable_left_players
        self._n = _team_size(scenario, players, n_agents)
        self._idle = _idle_players(players, self._n) if bind_players else 0
        self._mask, self._repeat, self._terminate_late = mask_actions, action_repeat, terminate_late
        self._reverse = reverse_team_processing
        self._config = config.Config(
            {
                "level": scenario,
                "players": [f"agent:left_players={self._idle + self._n},right_players=0"],
            }
        )
        self.reseed(seed)
        action_set = football_action_set.get_action_set(self._config)
        self._actions = [action._backend_action for action in action_set]
        self._short_pass = football_action_set.action_short_pass._backend_action
        self._engine = engine.GameEnv()
        self._engine.game_config.physics_steps_per_frame = self._config["physics_steps_per_frame"]
        self._now: Reading
        self._restart(0)  # gfootball does so, too; the engine's state may depend on it
        self.spec = self._sizes()

    def _sizes(self) -> Spec:
        """The sizes of the game, from the first reading."""
        seen = self._view(self._now)
        # The engine may play on for a step after its time is up.
        own_limit = self._engine.config.game_duration + 1
        return Spec(
            n_agents=self._n,
            n_actions=N_ACTIONS,
            obs_size=seen.obs.shape[1],
            state_size=len(seen.state),
            episode_limit=own_limit if self._limit is None else min(self._limit, own_limit),
            results=RESULTS,
        )

    def reseed(self, seed: int) -> None:
        """From the next kick-off on, play what a game made with this seed plays."""
        self._random = random.Random(seed)
        first = self._config["game_engine_random_seed"] = self._draw_seed()
        # gfootball takes it from the seed of its first scenario, and keeps it.
        drawn = bool(first % 2)
        self._config["reverse_team_processing"] = drawn if self._reverse is None else self._reverse

    def reset(self) -> View:
        """Kick off."""
        self._config["game_engine_random_seed"] = self._draw_seed()
        self._restart(1)
        return self._view(self._now)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """All agents act, and the game goes on for a tenth of a second, or `action_repeat` of them.

        An action ends early where another player gets the ball, where it is out of play, or where
        the game is over.
        """
        reward, ended, late = 0.0, False, False
        for _ in range(self._repeat):
            before, holder = self._now, self._holder
            self._act(action)
            self._now = self._play_on()
            ended, late = self._end()
            reward += self._reward(self._now.lead - before.lead)
            if ended or late or self._now.mode != NORMAL or self._holder != holder:
                break
        self._steps += 1
        late = late or (self._steps == self._limit and not ended)
        if self._rewards == "cds":
            ended = ended or self._went_back()
            late = late and not ended
            reward = 100.0 if reward > 0 else -float(ended or late)
        goals = self._now.lead
        results: dict[str, float] = {
            "win_rate": float(goals > 0),
            "loss_rate": float(goals < 0),
            "draw_rate": float(ended and goals == 0),
            "timeout_rate": float(late and goals == 0),
            "goal_difference": float(goals),
        }
        if self._terminate_late:
            ended, late = ended or late, False
        return self._view(self._now), Outcome(reward, ended, late, results)

    def _act(self, action: np.ndarray) -> None:
        """Tell the engine what all players under control do; those without an agent idle."""
        for i in range(self._idle):
            self._engine.perform_action(self._actions[0], True, i)
        for i, chosen in enumerate(self._engine_actions(action)):
            self._engine.perform_action(chosen, True, self._idle + i)

    def _draw_seed(self) -> int:
        """A seed for the engine, from the range that gfootball draws from."""
        return self._random.randint(0, 2_000_000_000)

    def _restart(self, increment: int) -> None:
        """Begin an episode; `increment` of gfootball's count of episodes."""
        lib, engine = self._lib, self._engine
        self._config.NewScenario(inc=increment)
        if engine.state == lib.GameState.game_created:
            engine.start_game()
        engine.state = lib.GameState.game_running
        engine.reset(self._config.ScenarioConfig(), False)
        self._steps = 0
        self._last_mode, self._holder = -1, (-1, -1)
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
        """What the engine tells; None: the ball is not in play, and no action is asked for."""
        info = self._engine.get_info()
        if not info.is_in_play:
            return None
        left, left_speed = _positions_and_speeds(info.left_team)
        right, right_speed = _positions_and_speeds(info.right_team)
        at, to = info.ball_position, info.ball_direction
        return Reading(
            left=left,
            left_speed=left_speed,
            right=right,
            right_speed=right_speed,
            ball=np.array([at[0], at[1], at[2]]),
            ball_speed=np.array([to[0], to[1], to[2]]),
            owner=(info.ball_owned_team, info.ball_owned_player),
            controlled=[
                info.left_controllers[self._idle + i].controlled_player for i in range(self._n)
            ],
            mode=int(info.game_mode),
            score=(info.left_goals, info.right_goals),
            step=info.step,
        )

    def _engine_actions(self, action: np.ndarray) -> list[Any]:
        """The engine's actions, one an agent.

        A team that holds up a restart too long is played for, as gfootball does it: it passes, and
        if that does not help, whoever has the ball runs.

        Args:
          action: `[A]` int, what the agents chose.
        """
        waited = self._engine.waiting_for_game_count
        if waited < PATIENCE:
            return [self._actions[int(a)] for a in action]
        if waited == PATIENCE:
            return [self._short_pass] * self._n
        idle, left, right = self._actions[0], self._actions[1], self._actions[5]
        run = right if waited < PATIENCE + 10 else left
        team, player = self._now.owner
        return [run if team == 0 and c == player else idle for c in self._now.controlled]

    def _end(self) -> tuple[bool, bool]:
        """`(the game is over, the scenario's time is up)`, by its rules."""
        now, rules = self._now, self._engine.config
        scored = rules.end_episode_on_score and max(now.score) > 0
        out = rules.end_episode_on_out_of_play and now.mode != NORMAL and self._last_mode == NORMAL
        team = now.owner[0]
        lost = (
            rules.end_episode_on_possession_change
            and team != -1
            and self._holder[0] not in (-1, team)
        )
        self._last_mode = now.mode
        self._holder = self._holder if team == -1 else now.owner
        engine = self._engine
        engine.waiting_for_game_count = engine.waiting_for_game_count + 1 if now.mode else 0
        ended = bool(scored or out or lost)
        late = now.step >= rules.game_duration
        if ended or late:
            engine.state = self._lib.GameState.game_done
        return ended, bool(late and not ended)

    def _reward(self, goals: int) -> float:
        """Of the team: the mean over players of what gfootball rewards each with."""
        if self._rewards != "scoring,checkpoints":
            return float(goals)
        return float(np.mean([self._with_checkpoints(i, goals) for i in range(self._n)]))

    def _with_checkpoints(self, i: int, goals: int) -> float:
        """The reward of agent i with checkpoints.

        Checkpoints are circles around the goal. The player that carries the ball inwards collects
        each of them once an episode; a goal collects what is left.
        """
        now, had = self._now, self._collected[i]
        if goals == 1:
            self._collected[i] = N_CHECKPOINTS
            return 1 + CHECKPOINT * (N_CHECKPOINTS - had)
        if now.owner == (0, now.controlled[i]):
            distance = float(np.hypot(now.ball[0] - 1, now.ball[1]))
            while self._collected[i] < N_CHECKPOINTS:
                if distance > FARTHEST - GAP * self._collected[i]:
                    break
                self._collected[i] += 1
        return goals + CHECKPOINT * (self._collected[i] - had)

    def _went_back(self) -> bool:
        """CDS: the ball or one of the last n players is in our own half."""
        return bool(self._now.ball[0] < 0 or (self._now.left[-self._n :, 0] < 0).any())

    def _view(self, now: Reading) -> View:
        """What agents observe, in the representation that was asked for."""
        scaled = self._representation == "scaled"
        sticky = self._sticky() if self._mask or scaled else np.empty(0)
        avail = _of_use(now, sticky) if self._mask else np.ones((self._n, N_ACTIONS), bool)
        if scaled:
            clock = self._steps / (self._limit or self._engine.config.game_duration)
            obs, state = _scaled(now, sticky, clock)
        elif self._representation == "simple115v2":
            obs, state = _simple115(now)
        else:
            last = range(len(now.left) - self._n, len(now.left))
            players = list(last) if self._representation == "cds" else now.controlled
            obs, state = _relative(now, np.array(players))
        return View(obs, state, avail)

    def _sticky(self) -> np.ndarray:
        """Whether each agent's player still does what it was told before: `[A, len(STICKY)]`."""
        state, actions = self._engine.sticky_action_state, [self._actions[a] for a in STICKY]
        agents = range(self._idle, self._idle + self._n)
        return np.array([[state(a, True, i) for a in actions] for i in agents], np.float32)


def _check_name(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"env.{option}={value!r} is unknown; choose one of {', '.join(known)}")


def _team_size(scenario: str, players: int, n_agents: int | None) -> int:
    """How many of the `players` act; by default as many as CDS has, else all but the keeper."""
    if n_agents is None:
        n_agents = CDS_TEAMS.get(scenario, max(players - 1, 1))
    if not isinstance(n_agents, int) or not 1 <= n_agents <= players:
        raise ValueError(f"env.n_agents={n_agents!r} must be 1 to {players} in {scenario}")
    return n_agents


def _idle_players(players: int, n_agents: int) -> int:
    """How many players stand still where all others are bound to agents.

    The engine hands an agent to another player only where a player is left for it.
    """
    if players - n_agents > 1:
        raise ValueError(
            f"env.bind_players=true would leave {players - n_agents} players standing still; set "
            f"env.n_agents={players - 1} or {players}, or env.bind_players=false"
        )
    return players - n_agents


def _of_use(now: Reading, sticky: np.ndarray) -> np.ndarray:
    """The actions that can be of use in attack: `[A, U]` bool.

    Passing and shooting are for who has the ball, shooting for near the goal, and sprinting is
    begun and ended in turns.

    Args:
      now: the game.
      sticky: `[A, len(STICKY)]`, see Football._sticky.
    """
    avail = np.ones((len(sticky), N_ACTIONS), bool)
    avail[:, NEVER] = False
    sprints = sticky[:, STICKY.index(SPRINT)] > 0
    avail[:, SPRINT], avail[:, RELEASE_SPRINT] = ~sprints, sprints
    avail[:, SHORT_PASS] = now.has_ball
    avail[:, SHOT] = now.has_ball & (now.ball[0] >= SHOOTING_RANGE)
    return avail


def _positions_and_speeds(team: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions and directions `[n, 2]` of a team."""
    numbers = []
    for player in team:
        at, to = player.position, player.direction
        numbers.append((at[0], at[1], to[0], to[1]))
    rows = np.array(numbers)
    return rows[:, :2], rows[:, 2:]


def _others(n: int) -> np.ndarray:
    """For each of n agents the numbers of the others: `[n, n - 1]`."""
    return np.array([[j for j in range(n) if j != i] for i in range(n)], int).reshape(n, n - 1)


def _relative(now: Reading, players: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """CDS's observations and state: `([A, O], [S])`.

    Args:
      now: what is shown.
      players: `[A]` int, the player of each agent; positions are relative to it.
    """
    n = len(players)
    others = _others(n)
    at, speed = now.left[players], now.left_speed[players]
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


def _scaled(now: Reading, sticky: np.ndarray, clock: float) -> tuple[np.ndarray, np.ndarray]:
    """What CDS's observations say, all at a scale of about 1, and more: `([A, O], [S])`.

    More: the way to the goal, the ball once more at close range, who has it (the agent, each of
    its mates; a team or none), what the agent's player still does, and the time.

    Args:
      now: what is shown.
      sticky: `[A, len(STICKY)]`, see Football._sticky.
      clock: the share of the longest episode that has passed.
    """
    n, goal = len(now.controlled), np.array([1.0, 0.0])
    players = np.array(now.controlled)
    others = _others(n)
    at, speed = now.left[players], PER_SPEED * now.left_speed[players]
    right, right_speed = now.right[:OPPONENTS], PER_SPEED * now.right_speed[:OPPONENTS]
    ball, height, ball_speed = now.ball[:2], now.ball[2:], PER_BALL_SPEED * now.ball_speed
    has_ball = now.has_ball.astype(float)
    team = np.array([now.owner[0] == side for side in (0, 1, -1)], float)
    obs = np.concatenate(
        [
            PER_POSITION * (at - ATTACK),
            speed,
            PER_POSITION * (at[others] - at[:, None]).reshape(n, -1),
            speed[others].reshape(n, -1),
            PER_POSITION * (right[None] - at[:, None]).reshape(n, -1),
            np.tile(right_speed.ravel(), (n, 1)),
            PER_POSITION * (ball - at),
            np.tanh(10 * (ball - at)),  # a tenth of half a pitch away: a dribble
            np.tile(np.concatenate([height, ball_speed, team, [clock]]), (n, 1)),
            PER_POSITION * (goal - at),
            PER_POSITION * np.linalg.norm(goal - at, axis=1, keepdims=True),
            has_ball[:, None],
            has_ball[others],
            sticky,
        ],
        axis=1,
    )
    parts = [
        PER_POSITION * (at - ATTACK),
        speed,
        PER_POSITION * (right - ATTACK),
        right_speed,
        PER_POSITION * (ball - ATTACK),
        height,
        ball_speed,
        has_ball,
        team,
        sticky,
        [clock],
    ]
    state = np.concatenate([np.ravel(part) for part in parts])
    obs, state = (np.clip(x, -CLIP, CLIP).astype(np.float32) for x in (obs, state))
    return obs, state


def _simple115(now: Reading) -> tuple[np.ndarray, np.ndarray]:
    """Gfootball's simple115v2 for every agent, and a state: `([A, 115], [104])`.

    The state is the same without the one-hot of the active player, which differs between agents.
    """
    shown = np.full(115, -1.0)  # players that a scenario lacks stay at -1
    for k, part in enumerate((now.left, now.left_speed, now.right, now.right_speed)):
        shown[22 * k : 22 * k + part.size] = part.ravel()
    shown[88:91], shown[91:94] = now.ball, now.ball_speed
    shown[94:] = 0
    shown[94 + 1 + now.owner[0]] = 1  # one-hot: no team, left, right
    shown[108 + now.mode] = 1  # one-hot game mode; 97 to 107 are for the active player
    obs = np.tile(shown.astype(np.float32), (len(now.controlled), 1))
    for row, player in zip(obs, now.controlled):
        if player != -1:
            row[97 + player] = 1
    return obs, np.delete(shown, np.s_[97:108]).astype(np.float32)
