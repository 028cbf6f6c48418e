"""Host environments for tests: the toy game in worker processes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff.core.types import Crew, HostEnv
from jaxvff.playing.host.pool import Pool
from jaxvff.runs.plan import Job, SweepValue
from jaxvff.settings import config
from tests.toy import SPEC

# A short run of the toy game, with small networks.
SMALL_RUN = (
    "n_envs=4",
    "segment_length=14",
    "batch_size=8",
    "buffer_size=64",
    "learn_start=8",
    "utility=gru",
    "hidden_dim=8",
    "last_action=true",
    "epsilon_steps=400",
    "eval_episodes=6",
    "total_steps=2080",
    "eval_interval=1040",
)
SMALL = (*SMALL_RUN, "method=qmix", "method.embed_dim=4", "method.hypernet_dim=8")
TOY = str(Path(__file__).parent / "games" / "toy_game.py")


def crew(**changes: Any) -> Crew:
    """The options of two workers, with some of them changed."""
    two = Crew(
        python=sys.executable, workers=2, step_timeout=60.0, max_restarts=10, restart_minutes=10.0
    )
    return two._replace(**changes)


def toy_game(workers: Crew | None = None, **faults: Any) -> HostEnv:
    """The toy game, with the faults of tests/games/toy_game.py."""
    return HostEnv(
        spec=SPEC,
        results=("win_rate",),
        game=TOY,
        options=faults,
        crew=workers or crew(),
        signature=("toy", str(faults)),
    )


def play(pool: Pool, n: int, action: int | None = None) -> int:
    """Step both halves `n` times; return how many episodes ended.

    All agents take the same action, or by default their first available one.
    """
    ends, staged = 0, pool.staged
    for _ in range(2 * n):
        games = pool.wait_for_half()
        ends += int(staged.ended[games].sum())
        first = np.argmax(staged.avail[games, staged.slot[games]], axis=-1)
        staged.action[games, staged.slot[games]] = first if action is None else action
        pool.step_half()
    return ends


def settle(pool: Pool) -> None:
    """Wait until the workers have stepped both halves, so that `staged` stands still."""
    for _ in range(2):
        pool.wait_for_half()
        pool._turn = 1 - pool._turn


def job_in(env: HostEnv, *overrides: str) -> Job:
    """The job that trains with a config in an environment that is in no table."""
    asked = config.load(["seeds=1", *overrides])
    return Job([SweepValue({}, dataclasses.replace(asked, env={"kind": "test"}), env)])
