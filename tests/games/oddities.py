"""Environments as users write them, each with one oddity, for tests/test_custom.py.

Two agents play four steps; everybody earns 1 a step and observes the step three times.
"""

from __future__ import annotations

import atexit
import os
import sys

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec


class Plain(ParallelEnv):
    """Without any oddity."""

    metadata = {"name": "plain_v0"}  # noqa: RUF012
    possible_agents = ["left", "right"]  # noqa: RUF012
    ways = (True, False)  # terminated and truncated, at the end

    def observation_space(self, agent):
        return spaces.Box(-10, 10, (3,), np.float32)

    def action_space(self, agent):
        return spaces.Discrete(3)

    def obs(self):
        return {a: np.full(3, self.t, np.float32) for a in self.agents}

    def rewards(self):
        return dict.fromkeys(self.agents, 1.0)

    def infos(self):
        return {a: {} for a in self.agents}

    def reset(self, seed=None, options=None):
        self.agents, self.t, self.got = list(self.possible_agents), 0, []
        return self.obs(), self.infos()

    def step(self, actions):
        self.got.append(actions)
        self.t += 1
        end = self.t >= 4
        flags = [dict.fromkeys(self.agents, end and way) for way in self.ways]
        out = self.obs(), self.rewards(), *flags, self.infos()
        if end:
            self.agents = []
        return out


def oddity(**attributes):
    """A Plain with other attributes."""
    return type("Odd", (Plain,), attributes)


# What cannot be made
number = 5
nothing = lambda: None
a_class = lambda: Plain
needs_size = lambda size: Plain()


def raises():
    raise RuntimeError("no map\nat all")


def exits():
    sys.exit(0)


def exits_hard():
    os._exit(0)


def prints():
    """Prints as it pleases, in this process and in another, now and when the process ends."""
    print("hello")
    os.system("echo hello from a child")
    atexit.register(os.write, 1, b"bye\n")
    atexit.register(print, '{"failed": "no"}')
    return Plain()


# What no team can play
nobody = oddity(possible_agents=[])
twice = oddity(possible_agents=["left", "left"])
unlisted = oddity(possible_agents=None)
aec = lambda: parallel_to_aec(Plain())
cartpole = lambda: gymnasium.make("CartPole-v1")
one_box = oddity(observation_space=spaces.Box(0, 1))
multi_binary = oddity(action_space=lambda self, agent: spaces.MultiBinary(3))
continuous = oddity(action_space=lambda self, agent: spaces.Box(-1, 1, (2,)))
text = oddity(observation_space=lambda self, agent: spaces.Text(5))
words = oddity(obs=lambda self: {a: ["a", "b", "c"] for a in self.agents})
ragged = oddity(obs=lambda self: {a: [[1, 2], [3]] for a in self.agents})
wrong_size = oddity(obs=lambda self: {a: np.zeros((2, 2)) for a in self.agents})
out_of_range = oddity(
    observation_space=lambda self, agent: spaces.Discrete(3, start=1),
    obs=lambda self: dict.fromkeys(self.agents, 0),
)
missing_part = oddity(
    observation_space=lambda self, agent: spaces.Dict(
        {"map": spaces.Box(0, 1), "hp": spaces.Box(0, 1)}
    ),
    obs=lambda self: {a: {"map": [0.0]} for a in self.agents},
)
unseen = oddity(obs=lambda self: {"left": np.zeros(3)})
no_seed = oddity(reset=lambda self: Plain.reset(self))
old_reset = oddity(reset=lambda self, seed=None: Plain.reset(self)[0])
old_step = oddity(step=lambda self, actions: Plain.step(self, actions)[:4])
list_rewards = oddity(rewards=lambda self: [1.0, 1.0])
long_mask = oddity(infos=lambda self: {a: {"action_mask": [1, 1, 1, 1]} for a in self.agents})
log_mask = oddity(infos=lambda self: {a: {"action_mask": [0, -9e9, 0]} for a in self.agents})
two_rewards = oddity(rewards=lambda self: {a: [1.0, 2.0] for a in self.agents})
no_reward = oddity(rewards=lambda self: dict.fromkeys(self.agents))
strange_reward = oddity(rewards=lambda self: {"team": 1.0})
no_flags = oddity(ways=(False, False))
growing_state = oddity(state=lambda self: np.zeros(2 + self.t))
broken_state = oddity(state=lambda self: self.nowhere)


class Stranger(Plain):
    def reset(self, seed=None, options=None):
        out = super().reset(seed)
        self.agents.append("third")
        return out


class CutUnseen(Plain):
    ways = (False, True)

    def obs(self):
        return {} if self.t >= 4 else super().obs()


class Tuples(gymnasium.Env):
    """Two agents with tuples of spaces."""

    observation_space = spaces.Tuple([spaces.Box(-10, 10, (3,))] * 2)
    action_space = spaces.Tuple([spaces.Discrete(3)] * 2)
    outcome = (1.0, False, False)

    def reset(self, seed=None, options=None):
        return (np.zeros(3), np.zeros(3)), {}

    def step(self, action):
        return (np.zeros(3), np.zeros(3)), *self.outcome, {}


def tuples(**attributes):
    """Tuples with other attributes."""
    return type("OddTuples", (Tuples,), attributes)


old_tuples = tuples(reset=lambda self, seed=None: (np.zeros(3), np.zeros(3)))
fewer_spaces = tuples(observation_space=spaces.Tuple([spaces.Box(-10, 10, (3,))]))
three_rewards = tuples(outcome=([1, 1, 1], False, False))
dict_flags = tuples(outcome=(1, {0: True, 1: True}, False))
dict_obs = tuples(reset=lambda self, seed=None: ({0: np.zeros(3), 1: np.zeros(3)}, {}))

# What can be played
starts_at_minus_1 = oddity(action_space=lambda self, agent: spaces.Discrete(3, start=-1))
ends_twice = oddity(ways=(True, True))
ends_twice_in_tuples = tuples(outcome=(1.0, True, True))
box_rewards = oddity(rewards=lambda self: {a: np.array([0.5]) for a in self.agents})
no_state = oddity(state=lambda self: np.zeros(0))
sees_nothing = oddity(
    observation_space=lambda self, agent: spaces.Box(0, 1, (0,)),
    obs=lambda self: {a: np.zeros(0) for a in self.agents},
)
turns_at_once = lambda: aec_to_parallel(parallel_to_aec(Plain()))


class KeepsAgents(Plain):
    def step(self, actions):
        out = super().step(actions)
        self.agents = list(self.possible_agents)
        return out


class NoFinalActions(Plain):
    def observation_space(self, agent):
        return spaces.Dict({"observation": super().observation_space(agent),
                            "action_mask": spaces.MultiBinary(3)})  # fmt: skip

    def obs(self):
        mask = np.full(3, self.t < 4, np.int8)
        return {a: {"observation": o, "action_mask": mask} for a, o in super().obs().items()}


class OneEndsOneIsCut(Plain):
    def step(self, actions):
        obs, rewards, _, _, infos = super().step(actions)
        end = self.t >= 4
        return obs, rewards, {"left": end, "right": 0}, {"left": 0, "right": end}, infos


class DrawsFromTheGlobalGenerator(Plain):
    def obs(self):
        return {a: np.random.random(3).astype(np.float32) for a in self.agents}  # noqa: NPY002


class BreaksInClose(Plain):
    def close(self):
        raise RuntimeError("the window is gone")
