"""Host environments for tests: the toy game in worker processes."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from jaxvff import config
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


def on_toy(env: HostEnv, *overrides: str) -> Group:
    """The group that trains with a config in an environment that is in no table."""
    one = dataclasses.replace(config.load(["seeds=1", *overrides]), env={"kind": "test"})
    return Group([Value({}, one, env)])
