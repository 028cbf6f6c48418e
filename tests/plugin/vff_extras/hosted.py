"""A game that is no JAX program, in worker processes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs.hosted import WorkerOptions, host_env


class Discrete:
    """A set of actions; gymnasium's spaces are known by their names."""

    n = 2


class Box:
    """An array."""

    shape = (1,)


class Coin:
    """PettingZoo's parallel API: two agents are paid for saying which side they both see."""

    possible_agents = ("a", "b")

    def __init__(self) -> None:
        self.agents: list[str] = []
        self._rng, self._side, self._t = np.random.default_rng(0), 0, 0

    def observation_space(self, agent: str) -> Box:
        """The side."""
        return Box()

    def action_space(self, agent: str) -> Discrete:
        """Heads or tails."""
        return Discrete()

    def _seen(self) -> dict:
        return {a: np.array([self._side], np.float32) for a in self.possible_agents}

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """A throw."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        self._side, self._t = int(self._rng.integers(2)), 0
        self.agents = [*self.possible_agents]
        return self._seen(), {a: {} for a in self.possible_agents}

    def step(self, actions: dict) -> tuple[dict, dict, dict, dict, dict]:
        """Another throw."""
        right = float(all(actions[a] == self._side for a in self.possible_agents))
        self._side, self._t = int(self._rng.integers(2)), self._t + 1
        over = self._t >= 4
        if over:
            self.agents = []
        all_get = lambda x: dict.fromkeys(self.possible_agents, x)
        return self._seen(), all_get(right), all_get(over), all_get(False), all_get({})

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """How long an episode is at most."""

    time_limit: int = option(5, "longest episode", unit="env steps", low=1)


def make(options: Options) -> HostEnv:
    """Coins, thrown by workers."""
    arguments = {
        "entry": "vff_extras.hosted:Coin",
        "api": "pettingzoo",
        "time_limit": options.time_limit,
        "kwargs": {},
    }
    return host_env("custom", arguments, options.crew())


KIND = EnvKind(Options, make)
