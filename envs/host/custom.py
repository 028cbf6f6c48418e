"""A multi-agent environment of the user's: PettingZoo's parallel API, or gymnasium with tuples."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .game import Game, Missing, Outcome, Spec, View

MASKS = ("action_mask", "avail_actions", "available_actions")  # keys of an info


def make(seed: int, *, entry: str, time_limit: int, api: str, kwargs: dict[str, Any]) -> Game:
    """The environment that `entry` makes; options as in jaxvff/envs/custom.py.

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
    """Agents in a fixed order. One that has left observes zeros and has action 0 alone.

    The state is the environment's `state()`, or all observations side by side. The reward of the
    team is the sum of those of its agents.
    """

    def __init__(
        self,
        env: Any,
        seed: int,
        time_limit: int,
        obs_spaces: Sequence[Any],
        action_spaces: Sequence[Any],
    ) -> None:
        for space in action_spaces:
            if not hasattr(space, "n"):
                raise ValueError(f"{space} is no Discrete action space")
        self._env = env
        self._next_seed: int | None = seed  # of the next reset
        self._has_state: bool | None = None  # known after the first reset
        self._obs_sizes = [int(np.prod(_box(space).shape)) for space in obs_spaces]
        self._action_counts = [int(space.n) for space in action_spaces]
        # The first episode begins here: only then is the size of the state known.
        self._begun: View | None = self._begin()
        self.spec = Spec(
            n_agents=len(action_spaces),
            n_actions=max(self._action_counts),
            obs_size=max(self._obs_sizes),
            state_size=len(self._begun.state),
            episode_limit=time_limit,
            results=(),
        )

    def reset(self) -> View:
        """A new episode, or the first one, which has begun already."""
        view, self._begun = self._begun, None
        return self._begin() if view is None else view

    def _begin(self) -> View:
        """A new episode."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _reset_arguments(self) -> dict[str, int]:
        """The seed, once: later episodes follow from it."""
        seed, self._next_seed = self._next_seed, None
        return {} if seed is None else {"seed": seed}

    def _view(self, obs: Sequence[Any], masks: Sequence[Any]) -> View:
        """Padded arrays.

        Args:
          obs: an observation for each agent; None: it has left.
          masks: an action mask for each agent; None: it may take all its actions.
        """
        rows = np.zeros((len(self._obs_sizes), max(self._obs_sizes)), np.float32)
        avail = np.zeros((len(self._action_counts), max(self._action_counts)), bool)
        for i, (seen, mask) in enumerate(zip(obs, masks)):
            if seen is None:
                avail[i, 0] = True
                continue
            if isinstance(seen, dict):
                mask = seen.get("action_mask", mask)
                seen = seen["observation"]
            flat = np.ravel(np.asarray(seen, np.float32))
            rows[i, : len(flat)] = flat
            avail[i, : self._action_counts[i]] = True if mask is None else np.asarray(mask, bool)
        if self._has_state is None:
            self._has_state = _has_state(self._env)
        state = np.asarray(self._env.state(), np.float32) if self._has_state else rows
        return View(rows, np.ravel(state), avail)


class PettingZoo(_Team):
    """The parallel API: dicts by agent. Agents may leave one after the other."""

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        self._names = list(env.possible_agents)
        super().__init__(
            env,
            seed,
            time_limit,
            obs_spaces=[env.observation_space(name) for name in self._names],
            action_spaces=[env.action_space(name) for name in self._names],
        )

    def _begin(self) -> View:
        obs, infos = self._env.reset(**self._reset_arguments())
        return self._seen(obs, infos, present=self._env.agents)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Agents that are still there act; the episode ends when none is."""
        joint = {a: int(u) for a, u in zip(self._names, action) if a in self._env.agents}
        obs, rewards, _terminations, truncations, infos = self._env.step(joint)
        over = not self._env.agents
        # All have left: truncated if any of them was, else terminated.
        truncated = over and any(truncations.values())
        # A final observation is there although its agent has left.
        view = self._seen(obs, infos, present=obs if over else self._env.agents)
        return view, Outcome(float(sum(rewards.values())), over and not truncated, truncated)

    def _seen(self, obs: dict[str, Any], infos: dict[str, Any], present: Any) -> View:
        """What the agents in `present` observe, and zeros for the others."""
        seen = [obs.get(name) if name in present else None for name in self._names]
        return self._view(seen, [_mask(infos.get(name, {})) for name in self._names])


class Gymnasium(_Team):
    """Tuples of spaces, observations and actions, an entry an agent; one reward, or a list."""

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        obs_spaces = getattr(env.observation_space, "spaces", None)
        if obs_spaces is None or not hasattr(env.action_space, "spaces"):
            raise ValueError(f"{env.action_space} is no Tuple with a space for each agent")
        action_spaces = list(env.action_space.spaces)
        super().__init__(env, seed, time_limit, list(obs_spaces), action_spaces)

    def _begin(self) -> View:
        obs, info = self._env.reset(**self._reset_arguments())
        return self._seen(obs, info)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """All agents act."""
        obs, reward, terminated, truncated, info = self._env.step(tuple(int(a) for a in action))
        terminated, truncated = bool(np.all(terminated)), bool(np.all(truncated))
        outcome = Outcome(float(np.sum(reward)), terminated, truncated and not terminated)
        return self._seen(obs, info), outcome

    def _seen(self, obs: Sequence[Any], info: dict[str, Any]) -> View:
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


def _mask(info: dict[str, Any]) -> Any:
    """The action masks in an info, if there are any."""
    return next((info[name] for name in MASKS if name in info), None)


def _has_state(env: Any) -> bool:
    """Whether `state()` returns something; it can only be asked after a reset."""
    try:
        env.state()
    except (NotImplementedError, AttributeError, TypeError):  # PettingZoo's base class; no method
        return False
    return True
