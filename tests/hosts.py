"""Host environments for tests: the toy game in worker processes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff import config
from jaxvff.bridge.pool import Pool
from jaxvff.plan import Group, Value
from jaxvff.types import Crew, HostEnv
from tests.toy import SPEC

TOY = str(Path(__file__).parent / "games" / "toy_game.py")


def crew(**changes: Any) -> Crew:
    """Two workers."""
    return Crew(sys.executable, 2, 60.0, 10, 10.0)._replace(**changes)


def toy_game(team: Crew | None = None, **faults: Any) -> HostEnv:
    """The toy game, with the faults of tests/games/toy_game.py."""
    return HostEnv(SPEC, ("win_rate",), TOY, faults, team or crew(), ("toy", str(faults)))


def play(pool: Pool, n: int, action: int | None = None) -> int:
    """`n` turns of both groups, with one action or the first available; episodes that ended."""
    ends, at = 0, pool.at
    for _ in range(2 * n):
        rows = pool.ready()
        ends += int(at.ended[rows].sum())
        first = np.argmax(at.avail[rows, at.slot[rows]], axis=-1)
        at.action[rows, at.slot[rows]] = first if action is None else action
        pool.go()
    return ends


def settle(pool: Pool) -> None:
    """Wait until nothing is owed to either group, so that `at` stands still."""
    for _ in range(2):
        pool.ready()
        pool._turn = 1 - pool._turn


def on_toy(env: HostEnv, *overrides: str) -> Group:
    """The group that trains with a config in an environment that is in no table."""
    one = dataclasses.replace(config.load(["seeds=1", *overrides]), env={"kind": "test"})
    return Group([Value({}, one, env)])
