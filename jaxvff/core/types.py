"""The shape legend, and every type that two rooms share.

Shape letters: A agents, U actions per agent, O observation, S state, C context (what a team draws
for an episode), H features of the utility network, T slots in a segment, N parallel environments,
B sampled segments, K lanes (a lane is one seed of one sweep value), M joint actions. Functions are
written for ONE step or ONE segment of ONE lane; callers vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import jax
import jax.numpy as jnp

Array = jax.Array
Tree: TypeAlias = Any  # a pytree of arrays; whoever made it knows its structure
Params: TypeAlias = Tree  # of networks, as flax makes them
EnvState: TypeAlias = Tree  # of one game in progress
EnvParams: TypeAlias = Tree  # what a sweep may vary of an environment without recompiling
Metrics = dict[str, Array]
# What the team does instead of what its agents picked: (state [S], key, the actions picked [A],
# q [A, U], avail [A, U], features [A, H]) -> actions [A]
Revise = Callable[[Array, Array, Array, Array, Array, Array], Array]
# What the team draws at the start of an episode, and knows in all of it: (the first state [S],
# key) -> context [C]
Draw = Callable[[Array, Array], Array]


class Traced(Protocol):
    """The options that a sweep varies without recompiling, by the names of their keys.

    Each is a float scalar. Which ones there are follows from the `traced` of their fields
    (jaxvff.core.options); settings.config makes the tuple.
    """

    def __getattr__(self, name: str) -> Array: ...


class EnvSpec(NamedTuple):
    """The sizes of an environment, in the order of the shape legend."""

    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int  # env steps
    agent_state_size: int = 0  # the state starts with A blocks of so many entries; 0: it does not
    # [height, width, channels] of observations that are images; O is all of it, in this order.
    # Empty: they are no images
    obs_shape: tuple[int, ...] = ()

    @property
    def action_dtype(self) -> type[jnp.uint8] | type[jnp.uint16]:
        """The smallest unsigned integer that holds an action: what replay stores."""
        return jnp.uint8 if self.n_actions <= 256 else jnp.uint16


class View(NamedTuple):
    """What an environment shows in one state."""

    obs: Array  # [A, O] float
    state: Array  # [S] float
    avail: Array  # [A, U] bool, True = the action may be taken; at least one per agent


class Outcome(NamedTuple):
    """What one step of an environment brought."""

    reward: Array  # [] float, env units
    terminated: Array  # [] bool, the episode reached a terminal state
    truncated: Array  # [] bool, the episode was cut short, by a time limit for instance
    # How an episode went, as rates by name ("win_rate"), each [] float; read where it ends.
    results: dict[str, Array] = {}  # noqa: RUF012  (a default that nobody writes to)


class Memory(NamedTuple):
    """What a team remembers of its episode."""

    carry: Array  # [A, H] of the utility networks that act
    last_action: Array  # [A] int
    context: Array | None = None  # [C], drawn for the episode; None: the method draws nothing


class Segment(NamedTuple):
    """T slots that hold episodes back to back; the one currency of experience.

    An episode of L transitions takes L + 1 slots. The last one holds its final observation and
    the action that the policy would have taken there (SARSA bootstraps on it); its mask is False.
    `reward[t]` and `terminated[t]` belong to the transition t -> t+1. So the mask of a segment's
    last slot is False as well: where an episode goes on, the next segment begins with that slot.
    """

    obs: Array  # [T, A, O]
    state: Array  # [T, S]
    avail: Array  # [T, A, U] bool
    action: Array  # [T, A] int
    reward: Array  # [T]
    terminated: Array  # [T] bool
    is_first: Array  # [T] bool, the first slot of an episode
    mask: Array  # [T] bool, slots t -> t+1 are a real transition
    # What the team remembered before slot 0, where its episode began in an earlier segment; None:
    # slot 0 is the first of an episode
    before: Memory | None = None
    context: Array | None = None  # [T, C], drawn for the episode; None: the method draws nothing


class Episodes(NamedTuple):
    """Whole episodes seen in a rollout; entries count only where `ended` is True."""

    ended: Array  # [T] bool, the slot shows the final observation of an episode
    return_: Array  # [T] undiscounted return of the episode so far, env units
    length: Array  # [T] int, transitions of the episode so far
    results: dict[str, Array]  # [T] each: Outcome.results of the step that led here


class JointStep(NamedTuple):
    """What a mixer sees at one step."""

    q_taken: Array  # [A] utility of the action in `action`
    q_max: Array  # [A] largest utility among the available actions
    action: Array  # [A, U] one-hot float
    features: Array  # [A, H] of the utility network
    state: Array  # [S]
    context: Array | None = None  # [C], drawn for the episode; None: the method draws nothing


class Judged(NamedTuple):
    """What a learner makes of one state."""

    q_tot: Array  # [M] joint value of each joint action; NaN for a method without one
    utilities: Array  # [A, U]


# (what is seen at the start of an episode, joint actions [M, A] int) -> Judged
Judge = Callable[[View, Array], Judged]


class TableScore(NamedTuple):
    """How well a learner knows a game of one step, whose payoffs are a table."""

    max_error: Array  # [] largest |Q_tot - payoff|, env units; NaN if any is
    regret: Array  # [] largest payoff less the greedy one; NaN where no joint action is decided
    fit: Array  # [] bool, every payoff within a tolerance
    optimal: Array  # [] bool, the greedy joint action earns the largest payoff
    both: Array  # [] bool
    q_tot: Array  # [U] * A
    utilities: Array  # [A, U]


class Env(NamedTuple):
    """An environment on the device, as pure functions.

    `params` are arrays that a sweep may vary without recompiling (a matrix game's payoffs); they
    are handed to every function, so that one program serves a batch of different environments.
    """

    spec: EnvSpec
    params: EnvParams
    reset: Callable[[Array, EnvParams], EnvState]  # (key, params)
    step: Callable[[Array, EnvState, Array, EnvParams], tuple[EnvState, Outcome]]  # (key, state,
    # action [A], params)
    observe: Callable[[EnvState, EnvParams], View]  # apart from step, so that a rollout pays for
    # observations once per slot and not for those of a reset and of a step
    signature: object  # what the functions depend on beside params; equal ones: the same program
    codec: Codec | None = None  # how segments are stored; None: every field as it is
    # (states [L + 1, ...] of one episode as NumPy arrays, the .gif to write, how it ended)
    render: Callable[[EnvState, Path, str], None] | None = None
    # seed -> the params of that seed, where every seed has an environment of its own
    params_of: Callable[[int], EnvParams] | None = None
    # Of a game of one step: how well its payoffs are known. None: greedy episodes say it all.
    score: Callable[[Judge, EnvParams], TableScore] | None = None
    # For people who get a policy: the names of the U actions, and the parts of an observation in
    # order, with their sizes, which sum to O. Empty: nobody has named them.
    action_names: tuple[str, ...] = ()
    obs_parts: tuple[tuple[str, int], ...] = ()

    def params_for(self, seed: int) -> EnvParams:
        """The params that a seed plays with."""
        return self.params_of(seed) if self.params_of else self.params


class Crew(NamedTuple):
    """The worker processes of an environment on the host."""

    python: str  # the interpreter, which needs NumPy and the game
    workers: int | None  # processes; None: one per core
    step_timeout: float  # seconds; a step that takes longer is a fault
    max_restarts: int  # faults (lost workers, rejected episodes) that a run survives ...
    restart_minutes: float  # ... within so many minutes


class HostEnv(NamedTuple):
    """An environment on the host: a game that worker processes play, from jaxvff.envs.host.

    It has the same sizes, params, codec and renderer as an Env, and no functions: worker processes
    step it, and jaxvff.playing.host talks to them.
    """

    spec: EnvSpec
    results: tuple[str, ...]  # names of the rates that an episode ends with
    game: str  # a module of jaxvff.envs.host, or the path of a file like one
    options: dict[str, object]  # of the game
    crew: Crew
    signature: object
    params: EnvParams = ()
    codec: Codec | None = None
    # (state of every slot of one episode [L + 1, S], the .gif to write, how it ended)
    render: Callable[[EnvState, Path, str], None] | None = None
    score: None = None
    action_names: tuple[str, ...] = ()  # as of an Env
    obs_parts: tuple[tuple[str, int], ...] = ()

    def params_for(self, seed: int) -> EnvParams:
        """Nothing is traced."""
        return self.params


class EnvKind(NamedTuple):
    """A kind of environment: what a row of jaxvff.envs.ENVS refers to."""

    options: type  # a frozen dataclass of options (jaxvff.core.options), which checks itself
    make: Callable[[Any], Env | HostEnv]  # from an instance of `options`


class Codec(NamedTuple):
    """How a segment is stored in replay, and rebuilt from it.

    What `unpack` makes without looking at `stored` is the same for every sample of a batch, and a
    vmap over the batch then computes everything that follows from it once (see docs/decisions.md).
    """

    pack: Callable[[Segment], Tree]
    unpack: Callable[[Tree, EnvParams], Segment]  # (stored, env params)
    # (a batch of stored segments [B], env params) -> (fewer of them [M], how often each counts [M])
    # with the same weighted mean of any loss, and for each the row of the batch of one that it
    # stands for (any row where the count is 0) [M]; None: nothing to merge.
    merge: Callable[[Tree, EnvParams], tuple[Tree, Array, Array]] | None = None
