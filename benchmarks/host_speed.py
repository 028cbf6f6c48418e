"""Env steps per second on Google Research Football: gfootball's wrappers, ours, and what is added.

For each of the paper's three tasks, in one run and round after round:

- wrappers: `gfootball.env.create_environment`, one environment in this process;
- serial: our reading of the engine, one game in this process;
- workers: a pool of worker processes, several games each, nobody decides anything;
- inference: the pool, with the compiled policy deciding for all games;
- learning: `jaxvff train`'s own loop, at one update to about eight episodes.

All play uniformly random actions (the policy at ε = 1), so that all see the same kind of episodes.

    uv run python benchmarks/host_speed.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvff.core import machine
from jaxvff.settings import build
from jaxvff.training import sharding

sharding.use_all_cores()  # as the command line does, before JAX starts

import jax
import numpy as np
from _common import about
from rich.console import Console
from rich.table import Table

from jaxvff.core.files import write_json
from jaxvff.core.types import HostEnv
from jaxvff.envs.host import game
from jaxvff.playing import explore
from jaxvff.playing.host.play import Brain
from jaxvff.playing.host.pool import Pool
from jaxvff.runs import execute
from jaxvff.runs.plan import plan

TASKS = ("academy_3_vs_1_with_keeper", "academy_counterattack_easy", "academy_counterattack_hard")
SIDES = ("wrappers", "serial", "workers", "inference", "learning")
GAMES = 4  # two a worker on two cores; more share the caches (docs/host.md)
SEGMENT = 402  # slots: the longest episode
OVERRIDES = [
    "method=nmqmix", "env.representation=simple115v2", "env.rewards=scoring",
    "env.time_limit=null", f"n_envs={GAMES}", f"segment_length={SEGMENT}", "batch_size=8",
    "buffer_size=64", "learn_start=8", "epsilon_end=1.0", "total_steps=100000000",
]  # fmt: skip
EPISODES_PER_UPDATE = 8


def random_actions(rng: np.random.Generator, env: HostEnv, n: int) -> np.ndarray:
    """`[n, A]`."""
    return rng.integers(env.spec.n_actions, size=(n, env.spec.n_agents))


def wrappers(task: str, env: HostEnv) -> Callable[[], int]:
    """An episode of gfootball's own environment."""
    import gfootball.env

    theirs = gfootball.env.create_environment(
        env_name=task, representation="simple115v2", rewards="scoring",
        number_of_left_players_agent_controls=env.spec.n_agents,
    )  # fmt: skip
    rng = np.random.default_rng(0)

    def episode() -> int:
        theirs.reset()
        for n in range(1, 10_000):
            if theirs.step(random_actions(rng, env, 1)[0].tolist())[2]:
                return n
        raise AssertionError("an episode without an end")

    return episode


def serial(task: str, env: HostEnv) -> Callable[[], int]:
    """An episode of ours."""
    ours = game.make("grf", env.options, 0)
    rng = np.random.default_rng(0)

    def episode() -> int:
        ours.reset()
        for n in range(1, 10_000):
            outcome = ours.step(random_actions(rng, env, 1)[0])[1]
            if outcome.terminated or outcome.truncated:
                return n
        raise AssertionError("an episode without an end")

    return episode


def workers(pool: Pool, env: HostEnv) -> Callable[[], int]:
    """A step of a group of games."""
    rng, at = np.random.default_rng(0), pool.at

    def step() -> int:
        rows = pool.ready()
        at.action[rows, at.slot[rows]] = random_actions(rng, env, len(rows))
        transitions = int((~at.ended[rows]).sum())
        pool.go()
        return transitions

    return step


def inference(pool: Pool, group: Any) -> Callable[[], int]:
    """A step of a group of games, decided by the policy."""
    model = build.make_model(group.config, group.values[0].env)
    policy = explore.EXPLORERS[group.config.explore]
    brain = Brain(model.utility, policy, group.lanes().hyper, GAMES, 0)
    params = brain.take(jax.vmap(model.utility.init)(jax.random.split(jax.random.key(0), 1)))
    steps = np.zeros(1, np.int32)

    def step() -> int:
        rows = pool.ready()
        brain.decide(params, steps, pool, rows)
        transitions = int((~pool.at.ended[rows]).sum())
        pool.go()
        return transitions

    return step


class Learning:
    """An iteration of the training loop; it counts episodes as well."""

    def __init__(self, program: Any, lane: Any) -> None:
        self._program, self._lane = program, lane
        self._carry = program.init(lane)
        self._advance = program.compile(self._carry, lane)
        self._iteration = 0
        for _ in range(3):  # learning has started, the pipeline is full
            self()
        self.first = self._counts()

    def __call__(self) -> int:
        before = int(self._carry.state.env_steps[0])
        at = self._iteration
        self._carry = jax.block_until_ready(self._advance(self._carry, self._lane, at, at + 1))
        self._iteration += 1
        return int(self._carry.state.env_steps[0]) - before

    def _counts(self) -> tuple[float, float]:
        totals = self._carry.totals
        return float(totals["episodes"][0]), float(totals["learned"][0])

    def episodes_per_iteration(self) -> float:
        """Since the warm-up."""
        episodes, learned = (b - a for a, b in zip(self.first, self._counts(), strict=True))
        return episodes / max(learned, 1)


def rate(play: Callable[[], int], seconds: float) -> float:
    """Env steps per second over at least so long."""
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        steps += play()
    return steps / (time.perf_counter() - began)


def measure(task: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Medians over rounds in which the sides take turns."""
    overrides = [f"env=grf/{task}", *OVERRIDES]
    env = plan(overrides)[0].values[0].env
    assert isinstance(env, HostEnv)
    one = serial(task, env)
    slots = statistics.mean(one() + 1 for _ in range(20))  # of an episode
    updates = max(1, round(GAMES * SEGMENT / slots / EPISODES_PER_UPDATE))
    (group,) = plan([*overrides, f"updates={updates}"])
    seen: dict[str, list[float]] = {side: [] for side in SIDES}
    with Pool(env, GAMES, [0]) as pool, execute.open_program(group) as program:
        lane = sharding.place(group.lanes(), program.mesh)
        plays: dict[str, Callable[[], int]] = {
            "wrappers": wrappers(task, env), "serial": serial(task, env),
            "workers": workers(pool, env), "inference": inference(pool, group),
            "learning": Learning(program, lane),
        }  # fmt: skip
        plays["inference"]()  # compiles
        for _ in range(rounds):
            for side, play in plays.items():
                seen[side].append(rate(play, seconds))
        learning = plays["learning"]
        assert isinstance(learning, Learning)
        episodes = learning.episodes_per_iteration()
    row = {side: statistics.median(rates) for side, rates in seen.items()}
    return {
        "task": task,
        "agents": env.spec.n_agents,
        "steps_per_s": row,
        "all_rounds": seen,
        "ours_per_wrapper": row["serial"] / row["wrappers"],
        "workers_per_serial": row["workers"] / row["serial"],
        "inference_share": 1 - row["inference"] / row["workers"],
        "learning_share": 1 - row["learning"] / row["inference"],
        "updates_per_iteration": updates,
        "episodes_per_update": episodes / updates,
    }


def terminal(rows: list[dict[str, Any]]) -> Table:
    """A line per task."""
    table = Table(title="Env steps per second, medians")
    columns = ("task", *SIDES, "ours/wrapper", "workers/serial", "inference", "episodes/update")
    for name in columns:
        table.add_column(name, justify="left" if name == "task" else "right")
    for r in rows:
        table.add_row(
            r["task"].removeprefix("academy_"),
            *[f"{r['steps_per_s'][side]:,.0f}" for side in SIDES],
            f"{r['ours_per_wrapper']:.2f}", f"{r['workers_per_serial']:.2f}",
            f"{r['inference_share']:.1%}", f"{r['episodes_per_update']:.1f}",
        )  # fmt: skip
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
    rows: list[dict[str, Any]] = []
    for task in args.tasks:
        rows.append(measure(task, args.rounds, args.seconds))
        record = {
            "what": "env steps per second on Google Research Football, random actions",
            "workers": machine.cores(), "games": GAMES, "rounds": args.rounds,
            "seconds": args.seconds,
            "overrides": OVERRIDES, **about(),
            "command": "python benchmarks/host_speed.py", "results": rows,
        }  # fmt: skip
        write_json(args.out, record)
    Console(width=140).print(terminal(rows))


if __name__ == "__main__":
    main()
