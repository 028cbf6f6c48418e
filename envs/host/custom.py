"""A multi-agent environment of the user's: PettingZoo's parallel API, or gymnasium with tuples."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from .game import Game, Missing, Outcome, Spec, View

MASKS = ("action_mask", "avail_actions", "available_actions")


def make(seed: int, *, entry: str, time_limit: int, api: str, kwargs: dict[str, Any]) -> Game:
    """The environment that `entry` makes.

    Raises:
      Missing: there is nothing at `entry`.
      ValueError: an unknown `api`, or spaces that no value-based team can play.
    """
    module, _, name = entry.partition(":")
    try:
        factory = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise Missing(f"env.entry={entry!r}: {error}; write package.module:function") from error
    if api not in APIS:
        raise ValueError(f"env.api={api!r} is unknown; choose one of {', '.join(APIS)}")
    if not isinstance(time_limit, int) or time_limit < 1:
        raise ValueError(f"env.time_limit={time_limit!r} must be a number of steps")
    return APIS[api](factory(**kwargs), seed, time_limit)


class _Team(Game):
    """Agents in a fixed order. One that has left sees zeros and has action 0 alone.

    The state is the environment's `state()`, or all observations side by side. The reward of the
    team is the sum of those of its agents.
    """

    def __init__(self, env: Any, seed: int, time_limit: int, obs: list[Any], acts: list[Any]):
        for space in acts:
            if not hasattr(space, "n"):
                raise ValueError(f"{space} is no Discrete action space")
        self._env = env
        self._first: int | None = seed
        self._has_state: bool | None = None
        self._sizes = [int(np.prod(_box(space).shape)) for space in obs]
        self._acts = [int(space.n) for space in acts]
        # The first episode, begun early: only then is the size of the state known.
        self._begun: View | None = self._begin()
        sizes = (len(acts), max(self._acts), max(self._sizes), len(self._begun.state))
        self.spec = Spec(*sizes, time_limit, ())

    def reset(self) -> View:
        """A new episode."""
        view, self._begun = self._begun, None
        return self._begin() if view is None else view

    def _begin(self) -> View:
        raise NotImplementedError

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _seeded(self) -> dict[str, int]:
        """The arguments of a reset: the seed once, then what follows from it."""
        seed, self._first = self._first, None
        return {} if seed is None else {"seed": seed}

    def _view(self, obs: list[Any], masks: list[Any]) -> View:
        """`None` in the place of an agent that has left."""
        rows = np.zeros((len(self._sizes), max(self._sizes)), np.float32)
        avail = np.zeros((len(self._acts), max(self._acts)), bool)
        for i, (seen, mask) in enumerate(zip(obs, masks)):
            if seen is None:
                avail[i, 0] = True
                continue
            if isinstance(seen, dict):
                mask = seen.get("action_mask", mask)
                seen = seen["observation"]
            flat = np.ravel(np.asarray(seen, np.float32))
            rows[i, : len(flat)] = flat
            avail[i, : self._acts[i]] = True if mask is None else np.asarray(mask, bool)
        if self._has_state is None:
            self._has_state = _has_state(self._env)
        whole = np.ravel(np.asarray(self._env.state(), np.float32)) if self._has_state else rows
        return View(rows, whole.ravel(), avail)


class PettingZoo(_Team):
    """The parallel API: dicts by agent, who may leave one after the other."""

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        self._names = list(env.possible_agents)
        spaces = [(env.observation_space(a), env.action_space(a)) for a in self._names]
        super().__init__(env, seed, time_limit, [o for o, _ in spaces], [u for _, u in spaces])

    def _begin(self) -> View:
        return self._seen(*self._env.reset(**self._seeded()))

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Those who are still there act; it ends when nobody is."""
        acts = {a: int(u) for a, u in zip(self._names, action) if a in self._env.agents}
        obs, rewards, _ends, cuts, infos = self._env.step(acts)
        over = not self._env.agents
        # All have gone: it was cut if anybody was cut, and ended if all came to an end.
        cut = over and any(cuts.values())
        # A final observation is there although its agent has left.
        view = self._seen(obs, infos, present=obs if over else None)
        return view, Outcome(float(sum(rewards.values())), over and not cut, cut)

    def _seen(self, obs: Any, infos: Any, present: Any = None) -> View:
        here = self._env.agents if present is None else present
        seen = [obs.get(a) if a in here else None for a in self._names]
        return self._view(seen, [_mask(infos.get(a, {})) for a in self._names])


class Gymnasium(_Team):
    """Tuples of spaces, observations and actions, an entry an agent; one reward, or a list."""

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        spaces = (getattr(env.observation_space, "spaces", None), env.action_space)
        if spaces[0] is None or not hasattr(spaces[1], "spaces"):
            raise ValueError(f"{env.action_space} is no Tuple with a space for each agent")
        super().__init__(env, seed, time_limit, list(spaces[0]), list(spaces[1].spaces))

    def _begin(self) -> View:
        obs, info = self._env.reset(**self._seeded())
        return self._seen(obs, info)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """All act."""
        obs, reward, ended, cut, info = self._env.step(tuple(int(a) for a in action))
        ended, cut = bool(np.all(ended)), bool(np.all(cut))
        return self._seen(obs, info), Outcome(float(np.sum(reward)), ended, cut and not ended)

    def _seen(self, obs: Any, info: Any) -> View:
        masks = _mask(info)
        return self._view(list(obs), [None] * len(obs) if masks is None else list(masks))


APIS = {"pettingzoo": PettingZoo, "gymnasium": Gymnasium}


def _box(space: Any) -> Any:
    """The part of an observation space that holds numbers."""
    inner = getattr(space, "spaces", None)
    box = inner["observation"] if inner else space
    if getattr(box, "shape", None) is None:
        raise ValueError(f"{space} is no Box of numbers")
    return box


def _mask(info: Any) -> Any:
    return next((info[name] for name in MASKS if name in info), None)


def _has_state(env: Any) -> bool:
    """Whether there is a `state()` that tells something; it can only be asked after a reset."""
    try:
        env.state()
    except (NotImplementedError, AttributeError, TypeError):  # PettingZoo's base class; no method
        return False
    return True
