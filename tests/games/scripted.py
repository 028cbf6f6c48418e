"""Environments that a Plan describes, for tests/test_custom_fuzz.py.

A Story decides what happens: who comes, acts and leaves, what is seen and earned. It speaks no
API. Two faces, `Parallel` and `Tuples`, tell it as PettingZoo and as gymnasium have it, in all the
ways that environments are written. tests/oracles/team.py reads the Story itself.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from pettingzoo import ParallelEnv
from pettingzoo.utils.wrappers import BaseParallelWrapper


@dataclasses.dataclass(frozen=True)
class Plan:
    """What an environment is like; the names of the choices are in tests/test_custom_fuzz.py."""

    api: str
    obs_spaces: tuple[spaces.Space, ...]  # an agent each, without its mask
    action_spaces: tuple[spaces.Discrete, ...]
    longest: int  # steps of an episode
    # What happens
    leaving: float  # chance that an agent's episode ends in a step, before the last step
    joining: float  # chance that an absent agent comes
    ways: tuple[str, ...]  # how an agent's episode ends: terminated, truncated, both
    # How it is told
    mask: str  # "", or where it is: info, observation, undeclared, beside
    mask_key: str
    mask_type: str
    no_final_actions: bool  # masks of zeros in final observations
    zombies: bool  # agents whose episode has ended stay in env.agents while others go on
    keep_agents: bool  # env.agents is not emptied at the end
    chatter: bool  # observations, infos and flags of agents that are not there, and further keys
    no_last_words: bool  # an agent that was terminated has no observation in that step
    some_rewards: bool  # agents that earn 0 are missing from the rewards
    ghost_rewards: bool  # agents that are not there earn, too
    values: str  # what observations are made of
    rewards: str  # what rewards are made of
    flags: str  # what flags are made of
    state: str  # "", "vector", "image", "empty", "other" (needs arguments), "attribute"
    wrappers: tuple[str, ...]
    spaces_as: str  # methods, or dicts
    one_for_all: bool  # one reward and one flag for the team (gymnasium)


class Story:
    """One team; agents are numbers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.agents = range(len(plan.obs_spaces))
        self.obs_spaces = copy.deepcopy(plan.obs_spaces)
        self.received: list[dict[int, int]] = []
        self.rng = np.random.default_rng(0)

    def reset(self, seed: int | None = None) -> None:
        if seed is not None:
            self.rng = np.random.default_rng(seed)
            for i, space in enumerate(self.obs_spaces):
                space.seed(seed % 2**31 + i)
        plan, everyone = self.plan, list(self.agents)
        self.t, self.length = 0, int(self.rng.integers(1, plan.longest + 1))
        self.listed = everyone
        if plan.api == "pettingzoo" and plan.joining:
            first = int(self.rng.integers(len(everyone)))
            self.listed = [i for i in everyone if i == first or self.rng.random() < 0.5]
        self.acting: list[int] = []
        self.how: dict[int, str] = {}  # how the episode of an acting agent ended in this step
        self.over = False
        self.happen()

    def step(self, actions: dict[int, int]) -> None:
        assert not self.over
        for i, u in actions.items():
            assert self.plan.action_spaces[i].contains(u), f"{u} is no action of agent {i}"
            u -= int(self.plan.action_spaces[i].start)
            assert self.masks[i][u] or not self.masks[i].any(), f"{u} is masked for agent {i}"
        assert sorted(actions) == self.listed
        self.received.append(dict(actions))
        self.t += 1
        self.acting, before = list(self.listed), self.how
        self.how = {i: way for i in self.acting if (way := self.end_of(i, before))}
        if self.plan.api == "gymnasium":
            self.over = len(self.how) == len(self.agents)
        else:
            self.come_and_go()
        self.happen()
        for i, u in actions.items():
            self.earned[i] += 0.25 * u

    def end_of(self, i: int, before: dict[int, str]) -> str:
        """How the episode of an agent ends in this step; empty: it goes on."""
        if self.plan.zombies and i in before:
            return before[i]
        rng, plan = self.rng, self.plan
        if self.t < self.length and not rng.random() < plan.leaving:
            return ""
        if plan.one_for_all:  # flagged together, or not at all
            return plan.ways[0] if self.t >= self.length else ""
        return str(rng.choice(plan.ways))

    def come_and_go(self) -> None:
        goes_on = [i for i in self.acting if i not in self.how]
        absent = [i for i in self.agents if i not in self.acting]
        new = [i for i in absent if self.t < self.length and self.rng.random() < self.plan.joining]
        self.over = not goes_on + new
        self.listed = sorted((self.acting if self.plan.zombies else goes_on) + new)

    def happen(self) -> None:
        """What is seen, may be done and is earned, by everyone, present or not."""
        rng = self.rng
        self.seen = {i: copy.deepcopy(space.sample()) for i, space in enumerate(self.obs_spaces)}
        self.masks = {}
        for i, space in enumerate(self.plan.action_spaces):
            mask = rng.random(int(space.n)) < 0.5
            mask[rng.integers(space.n)] = True
            if not self.plan.mask:
                mask[:] = True
            elif self.over and self.plan.no_final_actions:
                mask[:] = False
            self.masks[i] = mask
        self.earned = {i: float(rng.integers(-4, 5)) / 2 for i in self.agents}
        self.whole = rng.normal(size=5)


class Face:
    """What both APIs tell of a Story in the same way."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.story = plan, Story(plan)
        self.buffers: dict[int, Any] = {}
        state = {
            "vector": lambda: self.story.whole,
            "image": lambda: (self.story.whole[:4].reshape(2, 2) * 50 + 100).astype(np.uint8),
            "empty": lambda: np.zeros(0),
            "other": lambda agent: np.zeros(3),
            "attribute": np.zeros(3),
        }
        if plan.state:
            self.state = state[plan.state]

    def full_space(self, i: int) -> spaces.Space:
        """The observation space of an agent, with its mask if that is part of it."""
        inner, mask = self.plan.obs_spaces[i], spaces.MultiBinary(int(self.plan.action_spaces[i].n))
        if self.plan.mask == "observation":
            return spaces.Dict({"observation": inner, self.plan.mask_key: mask})
        if self.plan.mask == "beside" and isinstance(inner, spaces.Dict):
            return spaces.Dict({**inner.spaces, self.plan.mask_key: mask})
        return inner

    def mask_in_info(self, i: int) -> bool:
        """Whether an agent's mask is in its info."""
        inner = self.plan.obs_spaces[i]
        is_dict = isinstance(inner, spaces.Dict)
        elsewhere = {"observation": True, "beside": is_dict, "undeclared": not is_dict}
        return bool(self.plan.mask) and not elsewhere.get(self.plan.mask, False)

    def mask(self, i: int) -> Any:
        mask = self.story.masks[i]
        types = {"bool": bool, "int8": np.int8, "float": float, "list": int}
        typed = mask.astype(types[self.plan.mask_type])
        return typed.tolist() if self.plan.mask_type == "list" else typed

    def observation(self, i: int) -> Any:
        value = dressed(self.story.seen[i], self.plan.values)
        if self.plan.values == "buffer" and isinstance(value, np.ndarray):
            buffer = self.buffers.setdefault(i, np.empty_like(value))
            buffer[...] = value
            value = buffer
        if not self.plan.mask or self.mask_in_info(i):
            return value
        if self.plan.mask == "beside":
            return {**value, self.plan.mask_key: self.mask(i)}
        return {self.plan.mask_key: self.mask(i), "observation": value}

    def reward(self, value: float) -> Any:
        kinds = {
            "float": float,
            "int": lambda x: int(x) if x == int(x) else x,
            "float32": np.float32,
            "0-d": np.array,
            "list": lambda x: [x],
            "(1,)": lambda x: np.array([x]),
        }
        return kinds[self.plan.rewards](value)

    def flag(self, value: bool) -> Any:
        kinds = {"bool": bool, "numpy": np.bool_, "int": int, "(1,)": lambda x: np.array([x])}
        return kinds[self.plan.flags](value)


class Parallel(Face, ParallelEnv):
    """The Story as PettingZoo's parallel API has it."""

    metadata = {"name": "scripted"}  # noqa: RUF012

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.possible_agents = [f"agent_{i}" for i in self.story.agents]
        if plan.spaces_as == "dicts":
            self.observation_space = {n: self.full_space(i) for i, n in self.numbered()}
            self.action_space = {n: plan.action_spaces[i] for i, n in self.numbered()}

    def numbered(self):
        return enumerate(self.possible_agents)

    def observation_space(self, agent):
        return self.full_space(self.possible_agents.index(agent))

    def action_space(self, agent):
        return self.plan.action_spaces[self.possible_agents.index(agent)]

    def reset(self, seed=None, options=None):
        self.story.reset(seed)
        self.agents = self.names(self.story.listed)
        return self.told()[:2]

    def step(self, actions):
        self.story.step({self.possible_agents.index(n): u for n, u in actions.items()})
        story, plan = self.story, self.plan
        self.agents = self.names(story.listed)
        if story.over:
            self.agents = self.names(story.acting) if plan.keep_agents else []
        obs, infos = self.told()
        earning = story.agents if plan.ghost_rewards else story.acting
        rewards = {i: story.earned[i] for i in earning}
        if plan.some_rewards:
            rewards = {i: r for i, r in rewards.items() if r}
        flagged = story.agents if plan.chatter else sorted({*story.acting, *story.listed})
        ways = {i: story.how.get(i, "") for i in flagged}
        if plan.chatter:  # of agents that have left before, too
            ways |= {i: "both" for i in flagged if i not in {*story.acting, *story.listed}}
        return (
            obs,
            {self.possible_agents[i]: self.reward(r) for i, r in rewards.items()},
            {self.possible_agents[i]: self.flag(w in TERMINATED) for i, w in ways.items()},
            {self.possible_agents[i]: self.flag(w in TRUNCATED) for i, w in ways.items()},
            infos,
        )

    def names(self, agents):
        return [self.possible_agents[i] for i in agents]

    def told(self):
        """Observations and infos."""
        story, plan = self.story, self.plan
        whose = {*story.listed, *story.acting}
        if plan.no_last_words:
            ended = {i for i, way in story.how.items() if way in TERMINATED}
            whose -= ended - (set() if story.over else set(story.listed))
        whose = list(story.agents) if plan.chatter and not plan.no_last_words else sorted(whose)
        obs = {self.possible_agents[i]: self.observation(i) for i in whose}
        infos = {
            self.possible_agents[i]: {plan.mask_key: self.mask(i)} if self.mask_in_info(i) else {}
            for i in whose
        }
        if plan.chatter:
            obs["common"], infos["common"] = np.zeros(2), {"weather": "fair"}
        return obs, infos


class Tuples(Face, gymnasium.Env):
    """The Story as gymnasium has it, with tuples."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.observation_space = spaces.Tuple([self.full_space(i) for i in self.story.agents])
        self.action_space = spaces.Tuple(plan.action_spaces)

    def reset(self, seed=None, options=None):
        super().reset(seed=seed)
        self.story.reset(seed)
        return self.told()

    def step(self, action):
        self.story.step(dict(enumerate(action)))
        story = self.story
        rewards = [self.reward(story.earned[i]) for i in story.agents]
        ended = [story.how.get(i, "") in TERMINATED for i in story.agents]
        cut = [story.how.get(i, "") in TRUNCATED for i in story.agents]
        obs, info = self.told()
        if self.plan.one_for_all:
            total = self.reward(sum(story.earned.values()))
            return obs, total, self.flag(all(ended)), self.flag(all(cut)), info
        return obs, rewards, [self.flag(x) for x in ended], [self.flag(x) for x in cut], info

    def told(self):
        """Observations and the info."""
        obs = tuple(self.observation(i) for i in self.story.agents)
        masks = [self.mask(i) if self.mask_in_info(i) else None for i in self.story.agents]
        return obs, {self.plan.mask_key: masks} if any(m is not None for m in masks) else {}


TERMINATED, TRUNCATED = ("terminated", "both"), ("truncated", "both")


def dressed(value: Any, how: str) -> Any:
    """The same value, made of other types."""
    if isinstance(value, dict):
        return {key: dressed(v, how) for key, v in value.items()}
    if isinstance(value, tuple):
        parts = [dressed(v, how) for v in value]
        return parts if how == "lists" else tuple(parts)
    if how == "lists":
        return np.asarray(value).tolist()
    if how == "float64":
        return np.asarray(value, np.float64)
    if how == "scalars" and np.size(value) == 1:
        return np.asarray(value).item()
    return value


class Blind(ParallelEnv):
    """A wrapper that hands on all but `state()`."""

    def __init__(self, env):
        self.env, self.metadata = env, env.metadata
        self.possible_agents = env.possible_agents
        self.observation_space, self.action_space = env.observation_space, env.action_space

    @property
    def agents(self):
        return self.env.agents

    def reset(self, seed=None, options=None):
        return self.env.reset(seed=seed, options=options)

    def step(self, actions):
        return self.env.step(actions)


class Opaque(Blind):
    """The same, which tells what it wraps in `unwrapped` alone."""

    def __init__(self, env):
        super().__init__(env)
        self._inner = env
        del self.env

    agents = property(lambda self: self._inner.agents)
    unwrapped = property(lambda self: self._inner.unwrapped)

    def reset(self, seed=None, options=None):
        return self._inner.reset(seed=seed, options=options)

    def step(self, actions):
        return self._inner.step(actions)


WRAPPERS = {"plain": BaseParallelWrapper, "blind": Blind, "opaque": Opaque}

STORIES: list[Story] = []  # of the environments that were made


def make(plan: Plan) -> Any:
    """The environment, in its wrappers."""
    env: Any = Parallel(plan) if plan.api == "pettingzoo" else Tuples(plan)
    STORIES.append(env.story)
    for name in plan.wrappers:
        env = WRAPPERS[name](env) if plan.api == "pettingzoo" else gymnasium.Wrapper(env)
    return env
