"""A multi-agent environment of the user's: PettingZoo's parallel API, or gymnasium with tuples."""

from __future__ import annotations

import importlib
import inspect
import random
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .game import Game, Missing, Outcome, Refused, Spec, View, described
from .spaces import flattener, kind, numbers, short

STEP = ("observations", "rewards", "terminations", "truncations", "infos")  # what step() returns
MOST_LAYERS = 100  # of wrappers: one whose `env` is itself ends nowhere
MASKS = ("action_mask", "avail_actions", "available_actions")  # keys of an observation or an info


def make(seed: int, *, entry: str, time_limit: int, api: str, kwargs: dict[str, Any]) -> Game:
    """The environment that `entry` makes; options as in jaxvff/envs/custom.py.

    Raises:
      Missing: there is nothing at `entry`.
      Refused: an unknown `api`, or an environment that no value-based team can play.
    """
    if api not in APIS:
        raise Refused(f"env.api={api!r} is unknown; choose one of {', '.join(APIS)}")
    if not isinstance(time_limit, int) or isinstance(time_limit, bool) or time_limit < 1:
        raise Refused(f"env.time_limit={time_limit!r} must be a number of steps, such as 100")
    factory = _imported(entry)
    _seed_globally(seed)
    env = _made(entry, factory, kwargs)
    try:
        return APIS[api](env, seed, time_limit)
    except Refused:
        raise
    except (Exception, SystemExit) as error:
        raise Refused(
            f"env.entry={entry!r} returned an environment that broke before its first step:"
            f" {described(error)}; mend it, or choose the env.api that it has"
        ) from error


def _seed_globally(seed: int) -> None:
    """For environments that draw from the global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002


def _imported(entry: str) -> Any:
    """What is at `package.module:name`."""
    wanted = "write package.module:function, such as my_package.my_module:make"
    if not isinstance(entry, str) or ":" not in entry:
        raise Missing(f"env.entry={entry!r} has no module and function; {wanted}")
    path, _, name = entry.partition(":")
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        missing = str(error.name)
        if path == missing or path.startswith(f"{missing}."):
            raise Missing(
                f"env.entry={entry!r}: {error}; {wanted}, and put its folder into PYTHONPATH, or"
                " install it for env.python"
            ) from error
        raise Missing(
            f"env.entry={entry!r}: {path} imports {missing!r}, which is not there; install it for"
            " env.python"
        ) from error
    except (Exception, SystemExit) as error:
        raise Missing(
            f"env.entry={entry!r}: importing {path} raised {described(error)}; mend it: try"
            f" {sys.executable} -c 'import {path}'"
        ) from error
    if not hasattr(module, name):
        raise Missing(f"env.entry={entry!r}: {path} has no attribute {name!r}; {wanted}")
    return getattr(module, name)


def _made(entry: str, factory: Any, kwargs: Mapping[str, Any]) -> Any:
    """What the user's function returns."""
    if not callable(factory):
        raise Refused(
            f"env.entry={entry!r} is {short(factory)}, which cannot be called; name a function or a"
            " class that makes the environment"
        )
    if not isinstance(kwargs, Mapping):
        raise Refused(f"env.kwargs={kwargs!r} must be a mapping, such as {{size: 5}}")
    misfit = _misfit(factory, **kwargs)
    if misfit:
        raise Refused(
            f"env.kwargs={dict(kwargs)} does not fit {entry}{inspect.signature(factory)}: {misfit};"
            " give its arguments by name"
        )
    try:
        env = factory(**kwargs)
    except (Exception, SystemExit) as error:
        raise Refused(
            f"env.entry={entry!r} with env.kwargs={dict(kwargs)} raised {described(error)};"
            " mend it, or give it other arguments"
        ) from error
    if env is None or isinstance(env, type):
        raise Refused(f"env.entry={entry!r} returned {env}; it must return the environment")
    return env


class _Team(Game):
    """Agents in a fixed order, which an API's subclass talks to.

    An agent that is not there, because it has left or has not come yet, observes zeros and has
    action 0 alone. So has an agent without an available action in a final observation, where
    nobody acts. The state is the environment's `state()`, or all observations side by side where
    there is none. The reward of the team is the sum of those of its agents.
    """

    def __init__(
        self,
        env: Any,
        seed: int,
        time_limit: int,
        names: Sequence[Any],
        obs_spaces: Sequence[Any],
        action_spaces: Sequence[Any],
    ) -> None:
        misfit = _misfit(env.reset, seed=seed)
        if misfit:
            raise Refused(
                f"{type(env).__name__}.reset takes no seed ({misfit}); write it as"
                " reset(self, seed=None, options=None)"
            )
        self._env = env
        self._next_seed: int | None = seed  # of the next reset
        self._who = [f"agent {name!r}" for name in names]
        for who, space in zip(self._who, action_spaces):
            if kind(space) != "Discrete":
                raise Refused(
                    f"{who} has the action space {short(space)}, which is not Discrete; number its"
                    " actions in a wrapper of the environment"
                )
        self._first_actions = [int(getattr(space, "start", 0)) for space in action_spaces]
        self._action_counts = [int(space.n) for space in action_spaces]
        self._flatteners = [flattener(s, w, MASKS) for s, w in zip(obs_spaces, self._who)]
        self._sees_dict = [kind(space) == "Dict" for space in obs_spaces]
        # Methods need an input: a team that observes nothing at all observes a zero.
        self._obs_size = max([1, *(f.size for f in self._flatteners)])
        # The first episode begins here: only then is there a state.
        self._state: Callable[[], Any] | None = None
        self._state_size = self._obs_size * len(self._who)
        begun = self._begin()
        self._state = _state_method(env)
        if self._state is not None:
            self._state_size = numbers(self._state(), "state()").size
        self._begun: View | None = begun._replace(state=self._seen_state(begun.obs))
        self.spec = Spec(
            n_agents=len(self._who),
            n_actions=max(self._action_counts),
            obs_size=self._obs_size,
            state_size=self._state_size,
            episode_limit=time_limit,
            results=(),
        )

    def reseed(self, seed: int) -> None:
        """From the next reset on, play what an environment with this seed plays."""
        _seed_globally(seed)
        self._next_seed, self._begun = seed, None

    def reset(self) -> View:
        """A new episode, or the first one, which has begun already."""
        view, self._begun = self._begun, None
        return self._begin() if view is None else view

    def _begin(self) -> View:
        """A new episode."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the environment. An error there is printed and costs no episode."""
        try:
            getattr(self._env, "close", bool)()
        except (Exception, SystemExit) as error:
            print(f"{type(self._env).__name__}.close raised {described(error)}", file=sys.stderr)

    def _reset_arguments(self) -> dict[str, int]:
        """The seed, once: later episodes follow from it."""
        seed, self._next_seed = self._next_seed, None
        return {} if seed is None else {"seed": seed}

    def _their_actions(self, action: np.ndarray) -> list[int]:
        """Actions as the environment counts them, from each Discrete's `start`."""
        return [first + int(u) for first, u in zip(self._first_actions, action)]

    def _view(self, obs: Sequence[Any], masks: Sequence[Any], final: bool = False) -> View:
        """Padded arrays.

        Args:
          obs: an observation for each agent; None: it is not there.
          masks: an action mask for each agent; None: it may take all its actions.
          final: whether the episode ends with it.
        """
        rows = np.zeros((len(self._who), self._obs_size), np.float32)
        avail = np.zeros((len(self._who), max(self._action_counts)), bool)
        for i, (seen, mask) in enumerate(zip(obs, masks)):
            if seen is None:
                avail[i, 0] = True
                continue
            if isinstance(seen, Mapping):
                inner = _mask(seen)
                mask = mask if inner is None else inner
                if not self._sees_dict[i] and "observation" in seen:
                    seen = seen["observation"]
            flat = self._flatteners[i].flat(seen, self._who[i])
            rows[i, : len(flat)] = flat
            avail[i, : self._action_counts[i]] = self._available(i, mask)
            avail[i, 0] |= final and not avail[i].any()
        return View(rows, self._seen_state(rows), avail)

    def _seen_state(self, rows: np.ndarray) -> np.ndarray:
        """The state `[S]` as it is now, beside the observations `rows[A, O]`."""
        if self._state is None:
            return rows.ravel()
        state = numbers(self._state(), "state()")
        if state.size != self._state_size:
            raise Refused(
                f"state() has {state.size} numbers, and had {self._state_size} before; it must"
                " always have as many: fill it up with zeros"
            )
        return state.astype(np.float32)

    def _available(self, i: int, mask: Any) -> np.ndarray:
        """Which of its own actions agent i may take."""
        if mask is None:
            return np.ones(self._action_counts[i], bool)
        flat = numbers(mask, f"the action mask of {self._who[i]}")
        if flat.size != self._action_counts[i] or not np.isin(flat, (0, 1)).all():
            raise Refused(
                f"the action mask of {self._who[i]} is {short(mask)}; expected"
                f" {self._action_counts[i]} entries of 0 and 1, one for each of its actions"
            )
        return flat.astype(bool)


class PettingZoo(_Team):
    """The parallel API: dicts by agent. Agents may come and leave one after the other.

    Who is in `env.agents` acts. The episode ends when nobody is there whose episode goes on,
    whether or not `env.agents` still lists those that ended. An agent that is terminated and
    truncated at once is terminated. Of the agents that acted in the last step:
    - if one was truncated, the team is truncated, because rewards would have followed: the value
      of the final observation counts. There, agents that terminated are seen as having left.
    - else the team is terminated, whatever became of agents that had left before.
    """

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        self._names = _possible_agents(env)
        super().__init__(
            env,
            seed,
            time_limit,
            self._names,
            obs_spaces=[_space(env, "observation_space", name) for name in self._names],
            action_spaces=[_space(env, "action_space", name) for name in self._names],
        )

    def _begin(self) -> View:
        answer = self._env.reset(**self._reset_arguments())
        obs, infos = _dicts("reset", ("observations", "infos"), answer)
        present = self._present()
        if not present:
            raise Refused("env.agents is empty after reset(); it must list the agents that act")
        return self._seen(obs, infos, present)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Agents that are there act; the episode ends when all are through."""
        acting = self._present()
        theirs = zip(self._names, self._their_actions(action))
        answer = self._env.step({name: u for name, u in theirs if name in acting})
        obs, rewards, terminations, truncations, infos = _dicts("step", STEP, answer)
        for part, given in zip(STEP[1:4], (rewards, terminations, truncations)):
            self._check_known(given, part)
        reward = sum(_number(r, f"the reward of agent {a!r}") for a, r in rewards.items())
        ended = {name for name in acting if terminations.get(name)}
        cut = {name for name in acting if truncations.get(name)} - ended
        present = self._present()
        if set(present) - ended - cut:
            return self._seen(obs, infos, present), Outcome(reward, False, False)
        if not ended | cut:
            raise Refused(
                "env.agents is empty although nobody was terminated or truncated; say of each"
                " agent which it was"
            )
        # A final observation is there although its agent has left.
        shown = [a for a in acting if a in cut or (not cut and obs.get(a) is not None)]
        view = self._seen(obs, infos, shown, final=True)
        return view, Outcome(reward, terminated=not cut, truncated=bool(cut))

    def _present(self) -> list[Any]:
        """Who is there now."""
        present = list(self._env.agents)
        self._check_known(present, "env.agents")
        return present

    def _check_known(self, agents: Collection[Any], where: str) -> None:
        """Refuse agents of which no space is known."""
        for name in agents:
            if name not in self._names:
                raise Refused(
                    f"{where} has {name!r}, which is not in possible_agents={self._names}; list"
                    " there all agents that may ever come"
                )

    def _seen(
        self,
        obs: Mapping[Any, Any],
        infos: Mapping[Any, Any],
        present: list[Any],
        final: bool = False,
    ) -> View:
        """What the agents in `present` observe, and zeros for the others."""
        for name in present:
            if obs.get(name) is None:
                raise Refused(
                    f"agent {name!r} has no observation"
                    + (" although it was truncated" if final else " although it is in env.agents")
                    + "; the environment must return one"
                )
        seen = [obs[name] if name in present else None for name in self._names]
        masks = [_mask(infos.get(name) or {}) for name in self._names]
        return self._view(seen, masks, final)


class Gymnasium(_Team):
    """Tuples of spaces, observations and actions, an entry an agent; one reward, or a list.

    `terminated` and `truncated` are one for the team, or a list. The episode ends when every agent
    is terminated or truncated; it is a truncation if one agent is truncated and not terminated.
    """

    def __init__(self, env: Any, seed: int, time_limit: int) -> None:
        obs_spaces = _tuple(env, "observation_space")
        action_spaces = _tuple(env, "action_space")
        if len(obs_spaces) != len(action_spaces) or not obs_spaces:
            raise Refused(
                f"{len(obs_spaces)} agents observe and {len(action_spaces)} act; both Tuples need"
                " one space for each agent"
            )
        super().__init__(env, seed, time_limit, range(len(obs_spaces)), obs_spaces, action_spaces)

    def _begin(self) -> View:
        answer = self._env.reset(**self._reset_arguments())
        obs, info = _parts("reset", ("observations", "info"), answer)
        return self._seen(obs, info)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """All agents act."""
        answer = self._env.step(tuple(self._their_actions(action)))
        obs, reward, terminations, truncations, info = _parts("step", STEP, answer)
        ended = self._per_agent(terminations, "terminated")
        cut = self._per_agent(truncations, "truncated") & ~ended
        over, truncated = bool(np.all(ended | cut)), bool(np.any(cut))
        rewards = numbers(reward, "the reward")
        if rewards.size not in (1, len(self._who)):
            raise Refused(f"the reward has {rewards.size} entries; expected 1 or {len(self._who)}")
        total = float(np.sum(rewards, dtype=float))
        outcome = Outcome(total, terminated=over and not truncated, truncated=over and truncated)
        return self._seen(obs, info, final=over), outcome

    def _per_agent(self, flags: Any, what: str) -> np.ndarray:
        """One flag, or a list of them, as `[A]` bool."""
        flat = numbers(flags, what)
        if flat.size not in (1, len(self._who)):
            raise Refused(f"{what} has {flat.size} entries; expected 1 or {len(self._who)}")
        return np.broadcast_to(flat.astype(bool), len(self._who))

    def _seen(self, obs: Any, info: Any, final: bool = False) -> View:
        """What all agents observe."""
        a = len(self._who)
        if not isinstance(info, Mapping):
            raise Refused(
                f"the info is {short(info)}; expected a dict: reset() must return (observations,"
                " info), and step() the info last"
            )
        if not _is_list_of(a, obs):
            raise Refused(f"the observations are {short(obs)}; expected a tuple with {a} entries")
        masks = _mask(info)
        if masks is not None and not _is_list_of(a, masks):
            raise Refused(f"the action masks in the info are {short(masks)}; expected {a} of them")
        return self._view(list(obs), [None] * a if masks is None else masks, final)


APIS = {"pettingzoo": PettingZoo, "gymnasium": Gymnasium}


def _possible_agents(env: Any) -> list[Any]:
    """The names of all agents, in the order that the learner knows them by."""
    whose = type(env).__name__
    if hasattr(env, "agent_iter"):
        raise Refused(
            f"{whose} is an AEC environment, whose agents take turns; return"
            " pettingzoo.utils.conversions.aec_to_parallel(env), if its agents can act at once"
        )
    listed = getattr(env, "possible_agents", None)
    if not isinstance(listed, Collection) or isinstance(listed, str):
        raise Refused(
            f"{whose} has no possible_agents, the list of all agents that may ever come, as"
            " PettingZoo's parallel API has it; for tuples of spaces set env.api=gymnasium"
        )
    names = list(listed)
    if not names or len(set(names)) != len(names):
        raise Refused(f"{whose}.possible_agents={names} must name at least one agent, each once")
    return names


def _space(env: Any, which: str, name: Any) -> Any:
    """A space of an agent: from a method, or from a dict by agent."""
    spaces = getattr(env, which, None)
    try:
        space = spaces(name) if callable(spaces) else spaces[name]  # type: ignore[index]
    except (KeyError, TypeError, AttributeError, NotImplementedError) as error:
        raise Refused(
            f"{type(env).__name__}.{which} knows no agent {name!r} ({described(error)}); it must"
            " return a space for each of possible_agents"
        ) from error
    return space


def _tuple(env: Any, which: str) -> list[Any]:
    """The spaces of all agents."""
    space: Any = getattr(env, which, None)
    if kind(space) != "Tuple":
        raise Refused(
            f"{type(env).__name__}.{which} is a {kind(space) or type(space).__name__}, which is no"
            " Tuple with a space for each agent; for PettingZoo's parallel API set"
            " env.api=pettingzoo"
        )
    return list(space.spaces)


def _parts(method: str, names: Sequence[str], answer: Any) -> Sequence[Any]:
    """What `reset` or `step` returned, if it is as many things as it should be."""
    if not isinstance(answer, (tuple, list)) or len(answer) != len(names):
        kind_of_answer = type(answer).__name__
        many = f"{len(answer)} values" if isinstance(answer, tuple) else f"a {kind_of_answer}"
        raise Refused(
            f"{method}() returned {many}; expected ({', '.join(names)}): update the environment"
            " to gymnasium's API of 2022 and later, or wrap it"
        )
    return answer


def _dicts(method: str, names: Sequence[str], answer: Any) -> Sequence[Mapping[Any, Any]]:
    """The same, if each is a dict by agent."""
    for name, part in zip(names, _parts(method, names, answer)):
        if not isinstance(part, Mapping):
            raise Refused(
                f"{method}() returned {name} that are a {type(part).__name__}; expected a dict by"
                " agent, as PettingZoo's parallel API has it"
            )
    return answer


def _is_list_of(n: int, value: Any) -> bool:
    """Whether it has n entries in an order."""
    return isinstance(value, (tuple, list, np.ndarray)) and len(value) == n


def _number(value: Any, what: str) -> float:
    """A number, however it is wrapped."""
    flat = numbers(value, what)
    if flat.size != 1:
        raise Refused(f"{what} has {flat.size} entries; expected one number")
    return float(flat[0])


def _mask(info: Mapping[str, Any]) -> Any:
    """The action mask in an observation or an info, if there is one."""
    return next((info[name] for name in MASKS if name in info), None)


def _misfit(function: Callable[..., Any], **kwargs: Any) -> str:
    """Why a function cannot be called with these arguments; empty: it can."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # a function in C tells nothing
        return ""
    try:
        signature.bind(**kwargs)
    except TypeError as error:
        return str(error)
    return ""


def _state_method(env: Any) -> Callable[[], Any] | None:
    """The `state()` of the environment, or of the first one that it wraps and that has one.

    It can only be asked after a reset. A state without any number is none.

    Raises:
      Refused: the innermost environment has one, which breaks.
    """
    broken: Exception | None = None
    for layer in _layers(env):
        method, broken = getattr(layer, "state", None), None
        if not callable(method) or _misfit(method):
            continue
        try:
            state = method()
        except NotImplementedError:  # PettingZoo's base class
            continue
        except Exception as error:  # a wrapper that hands on to a `state` that is no method
            broken = error
            continue
        if state is not None and np.size(state):
            return method
    if broken is not None:
        raise Refused(f"state() raised {described(broken)}; mend it, or leave it out") from broken
    return None


def _layers(env: Any) -> Iterator[Any]:
    """An environment and those that it wraps, from the outside in."""
    layer = env
    for _ in range(MOST_LAYERS):
        if not hasattr(layer, "action_space"):
            break
        yield layer
        layer = getattr(layer, "env", None)
    yield getattr(env, "unwrapped", env)
