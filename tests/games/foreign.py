"""Environments of a user, for `env=custom`: a PettingZoo game whose agents leave, and oddities."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from pettingzoo import ParallelEnv


class Countdown(ParallelEnv):
    """Each agent starts at its own number and may take 1 or 2; it leaves at 0. Rewards are -1 a step.

    An agent that stands at 1 must not take 2: its mask says so.
    """

    metadata = {"name": "countdown"}  # noqa: RUF012

    def __init__(self, start=(3, 5), cut_after=None, with_state=False):
        self.possible_agents = ["slow", "fast"]
        self.start, self.cut_after = start, cut_after
        self.observation_spaces = {"slow": Box(0, 9, (1,)), "fast": Box(0, 9, (1, 2))}
        self.action_spaces = {"slow": Discrete(3), "fast": Discrete(2)}
        if with_state:
            self.state = lambda: np.array([*self.left.values(), 7.0])

    def observation_space(self, agent):
        return self.observation_spaces[agent]

    def action_space(self, agent):
        return self.action_spaces[agent]

    def reset(self, seed=None, options=None):
        if seed is not None:
            self.seed = seed
        self.agents = list(self.possible_agents)
        self.left = dict(zip(self.agents, self.start, strict=True))
        self.steps = 0
        return self.seen(), self.infos()

    def step(self, actions):
        self.steps += 1
        for agent, action in actions.items():
            take = int(action) if agent == "slow" else 1 + int(action)
            assert take <= self.left[agent], "not available"
            self.left[agent] -= take
        here = list(self.agents)
        cut = self.cut_after is not None and self.steps >= self.cut_after
        ends = {a: self.left[a] == 0 for a in here}
        cuts = {a: cut and not ends[a] for a in here}
        out = self.seen(), dict.fromkeys(here, -1.0), ends, cuts, self.infos()
        self.agents = [a for a in here if not ends[a] and not cut]
        return out

    def seen(self):
        shapes = {a: self.observation_spaces[a].shape for a in self.agents}
        return {a: np.full(shapes[a], self.left[a], np.float32) for a in self.agents}

    def infos(self):
        masks = {
            "slow": [1, self.left["slow"] >= 1, self.left["slow"] >= 2],
            "fast": [1, self.left["fast"] >= 2],
        }
        return {a: {"action_mask": np.array(masks[a], np.int8)} for a in self.agents}


def foraging(**kwargs):
    """Level-based foraging, a gymnasium environment with tuples."""
    import lbforaging  # noqa: F401  (registers it)

    return gymnasium.make("Foraging-5x5-2p-1f-v3", **kwargs)


def cartpole():
    """One agent: no team."""
    return gymnasium.make("CartPole-v1")
