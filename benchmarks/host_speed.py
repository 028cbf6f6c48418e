"""Env steps per second on Google Research Football: gfootball's own wrappers, and jaxvff in stages.

Five sides take turns, round after round, in one run for each of the paper's three tasks:

- wrappers: `gfootball.env.create_environment`, one environment in this process;
- serial: jaxvff's reading of the engine (envs/host/grf.py), one game in this process;
- workers: a pool of worker processes that play several games each, with random actions;
- inference: the same pool, with actions from the compiled policy;
- learning: the training loop of `jaxvff train`, with one update for about eight episodes.

All sides play uniformly random actions (the policy at ε = 1), so that all play the same kind of
episodes.

    uv run python benchmarks/host_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from jaxvff.core import machine
from jaxvff.training import sharding

sharding.use_all_cores()  # as the command line does, before JAX starts

import jax
import numpy as np
from _common import Record, about
from rich.console import Console
from rich.table import Table

from jaxvff.core.files import write_json
from jaxvff.core.types import HostEnv
from jaxvff.envs.host import game
from jaxvff.playing.host.policy import BatchedPolicy
from jaxvff.playing.host.pool import Pool
from jaxvff.playing.options import EXPLORERS
from jaxvff.runs import learned
from jaxvff.runs.plan import Job, plan
from jaxvff.settings import build
from jaxvff.training.lanes import Lane
from jaxvff.training.program import Program

TASKS = ("academy_3_vs_1_with_keeper", "academy_counterattack_easy", "academy_counterattack_hard")
SIDES = ("wrappers", "serial", "workers", "inference", "learning")
GAMES = 4  # two for each worker on two cores; more would share the caches (docs/host.md)
SEGMENT = 402  # slots: the longest episode
OVERRIDES = [
    "method=nmqmix",
    "env.representation=simple115v2",
    "env.rewards=scoring",
    "env.time_limit=null",
    f"n_envs={GAMES}",
    f"segment_length={SEGMENT}",
    "batch_size=8",
    "buffer_size=64",
    "learn_start=8",
    "epsilon_end=1.0",
    "total_steps=100000000",
]
EPISODES_PER_UPDATE = 8
MAX_STEPS = 10_000  # more than an episode of any task has


def random_actions(rng: np.random.Generator, env: HostEnv, n: int) -> np.ndarray:
    """Uniformly random actions `[n, A]` for n games."""
    return rng.integers(env.spec.n_actions, size=(n, env.spec.n_agents))


def wrappers(task: str, env: HostEnv) -> Callable[[], int]:
    """A function that plays an episode in gfootball's own environment; returns its env steps."""
    import gfootball.env

    football = gfootball.env.create_environment(
        env_name=task,
        representation="simple115v2",
        rewards="scoring",
        number_of_left_players_agent_controls=env.spec.n_agents,
    )
    rng = np.random.default_rng(0)

    def episode() -> int:
        football.reset()
        for n in range(1, MAX_STEPS):
            if football.step(random_actions(rng, env, 1)[0].tolist())[2]:
                return n
        raise AssertionError("an episode without an end")

    return episode


def serial(env: HostEnv) -> Callable[[], int]:
    """A function that plays an episode in jaxvff's environment; returns its env steps."""
    football = game.make("grf", env.options, 0)
    rng = np.random.default_rng(0)

    def episode() -> int:
        football.reset()
        for n in range(1, MAX_STEPS):
            outcome = football.step(random_actions(rng, env, 1)[0])[1]
            if outcome.terminated or outcome.truncated:
                return n
        raise AssertionError("an episode without an end")

    return episode


def workers(pool: Pool, env: HostEnv) -> Callable[[], int]:
    """A function that steps half of the games with random actions; returns the env steps."""
    rng, staged = np.random.default_rng(0), pool.staged

    def step() -> int:
        games = pool.wait_for_half()
        staged.action[games, staged.slot[games]] = random_actions(rng, env, len(games))
        transitions = int((~staged.ended[games]).sum())
        pool.step_half()
        return transitions

    return step


def inference(pool: Pool, job: Job) -> Callable[[], int]:
    """A function that steps half of the games with the policy's actions; returns the env steps."""
    model, explorer = build.model(job.config, job.env), EXPLORERS[job.config.explore]
    policy = BatchedPolicy(model, explorer, job.lanes().traced, n_games=GAMES, seed=[0])
    utility = jax.vmap(model.utility.init)(jax.random.split(jax.random.key(0), 1))
    params = policy.copy_params({"utility": utility})
    env_steps = np.zeros(1, np.int32)

    def step() -> int:
        games = pool.wait_for_half()
        policy.act(params, env_steps, pool.staged, games)
        transitions = int((~pool.staged.ended[games]).sum())
        pool.step_half()
        return transitions

    return step


class Learning:
    """The training loop: each call runs one iteration and returns its env steps."""

    def __init__(self, program: Program, lane: Lane) -> None:
        self._lane = lane
        self._carry = program.init(lane)
        self._advance = program.compile(self._carry, lane).advance
        self._iteration = 0
        for _ in range(3):  # until learning has started and the next batch is being collected
            self()
        self._counts_at_start = self._counts()

    def __call__(self) -> int:
        before = int(self._carry.state.env_steps[0])
        start = self._iteration
        carry = self._advance(self._carry, self._lane, start, start + 1)
        self._carry = jax.block_until_ready(carry)
        self._iteration += 1
        return int(self._carry.state.env_steps[0]) - before

    def _counts(self) -> tuple[float, float]:
        """Episodes, and iterations that learned, so far."""
        totals = self._carry.totals
        return float(totals["episodes"][0]), float(totals["learned"][0])

    def episodes_per_iteration(self) -> float:
        """The mean since the warm-up."""
        pairs = zip(self._counts_at_start, self._counts(), strict=True)
        episodes, learned = (now - at_start for at_start, now in pairs)
        return episodes / max(learned, 1)


def rate(play: Callable[[], int], seconds: float) -> float:
    """Env steps per second of repeated calls of `play`, over at least so many seconds."""
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        steps += play()
    return steps / (time.perf_counter() - began)


def job_of(task: str) -> Job:
    """The training job for a task, with one update for about EPISODES_PER_UPDATE episodes."""
    overrides = [f"env=grf/{task}", *OVERRIDES]
    env = plan(overrides)[0].env
    assert isinstance(env, HostEnv)
    episode = serial(env)
    slots = statistics.mean(episode() + 1 for _ in range(20))  # of an episode
    updates = max(1, round(GAMES * SEGMENT / slots / EPISODES_PER_UPDATE))
    (job,) = plan([*overrides, f"updates={updates}"])
    return job


def measure(task: str, rounds: int, seconds: float) -> Record:
    """The result of a task: the median rate of each side, and how the sides compare.

    Args:
      task: one of TASKS.
      rounds: in each, every side plays once.
      seconds: that each side plays in a round.
    """
    job = job_of(task)
    env, updates = job.env, job.config.updates
    assert isinstance(env, HostEnv)
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    with Pool(env, GAMES, [0]) as pool, learned.open_program(job) as program:
        learning = Learning(program, sharding.spread(job.lanes(), program.mesh))
        plays: dict[str, Callable[[], int]] = {
            "wrappers": wrappers(task, env),
            "serial": serial(env),
            "workers": workers(pool, env),
            "inference": inference(pool, job),
            "learning": learning,
        }
        plays["inference"]()  # compiles
        for _ in range(rounds):
            for side, play in plays.items():
                rates[side].append(rate(play, seconds))
        episodes = learning.episodes_per_iteration()
    medians = {side: statistics.median(x) for side, x in rates.items()}
    return {
        "task": task,
        "agents": env.spec.n_agents,
        "steps_per_s": medians,
        "all_rounds": rates,
        "ours_per_wrapper": medians["serial"] / medians["wrappers"],
        "workers_per_serial": medians["workers"] / medians["serial"],
        "inference_share": 1 - medians["inference"] / medians["workers"],
        "learning_share": 1 - medians["learning"] / medians["inference"],
        "updates_per_iteration": updates,
        "episodes_per_update": episodes / updates,
    }


def terminal(rows: list[Record]) -> Table:
    """A table for the terminal, with a row for each task."""
    table = Table(title="Env steps per second, medians")
    columns = ("task", *SIDES, "ours/wrapper", "workers/serial", "inference", "episodes/update")
    for name in columns:
        table.add_column(name, justify="left" if name == "task" else "right")
    for row in rows:
        table.add_row(
            row["task"].removeprefix("academy_"),
            *[f"{row['steps_per_s'][side]:,.0f}" for side in SIDES],
            f"{row['ours_per_wrapper']:.2f}",
            f"{row['workers_per_serial']:.2f}",
            f"{row['inference_share']:.1%}",
            f"{row['episodes_per_update']:.1f}",
        )
    return table


def main() -> None:
    """Measure, write the record after each task, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each side in each round")
    default = Path(__file__).parent / "results" / "host_speed.json"
    parser.add_argument("--out", type=Path, default=default)
    args = parser.parse_args()
    rows: list[Record] = []
    for task in args.tasks:
        rows.append(measure(task, args.rounds, args.seconds))
        record = {
            "what": "env steps per second on Google Research Football, random actions",
            "workers": machine.cores(),
            "games": GAMES,
            "rounds": args.rounds,
            "seconds": args.seconds,
            "overrides": OVERRIDES,
            **about(),
            "command": "python benchmarks/host_speed.py",
            "results": rows,
        }
        write_json(args.out, record)
    Console(width=140).print(terminal(rows))


if __name__ == "__main__":
    main()
