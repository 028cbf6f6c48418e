"""The shape legend, and every type that two modules share.

Shape letters: A agents, U actions per agent, O observation, S state, H hidden, T slots in a
segment, N parallel environments, B sampled segments, K lanes (a lane is one seed of one sweep
value). Functions are written for ONE step or ONE segment of ONE lane; callers vmap.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Params = Any  # a pytree of arrays
Metrics = dict[str, Array]


class UserError(ValueError):
    """A mistake in what the user asked for: says the value, the expectation and the remedy."""


class EnvSpec(NamedTuple):
    """The sizes of an environment, in the order of the shape legend."""

    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int  # env steps
    agent_state_size: int = 0  # the state starts with A blocks of so many entries; 0: it does not

    @property
    def action_dtype(self) -> Any:
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


class Segment(NamedTuple):
    """T slots that hold whole episodes back to back; the one currency of experience.

    An episode of L transitions takes L + 1 slots. The last one holds its final observation and
    the action that the policy would have taken there (SARSA bootstraps on it); its mask is False.
    `reward[t]` and `terminated[t]` belong to the transition t -> t+1.
    """

    obs: Array  # [T, A, O]
    state: Array  # [T, S]
    avail: Array  # [T, A, U] bool
    action: Array  # [T, A] int
    reward: Array  # [T]
    terminated: Array  # [T] bool
    is_first: Array  # [T] bool, the first slot of an episode
    mask: Array  # [T] bool, slots t -> t+1 are a real transition


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
    hidden: Array  # [A, H] features of the utility network
    state: Array  # [S]


class Env(NamedTuple):
    """An environment on the device, as pure functions.

    `params` are arrays that a sweep may vary without recompiling (a matrix game's payoffs); they
    are handed to every function, so that one program serves a batch of different environments.
    """

    spec: EnvSpec
    params: Any
    reset: Callable[[Array, Any], Any]  # (key, params) -> state
    step: Callable[[Array, Any, Array, Any], tuple[Any, Outcome]]  # (key, state, action, params)
    observe: Callable[[Any, Any], View]  # (state, params); apart from step, so that a rollout pays
    # for observations once per slot and not for those of a reset and of a step
    signature: Any  # what the functions depend on beside params; equal ones are the same program
    codec: Codec | None = None  # how segments are stored; None: every field as it is
    # (states [L + 1, ...] of one episode as NumPy arrays, the .gif to write, how it ended)
    render: Callable[[Any, Path, str], None] | None = None
    # seed -> the params of that seed, where every seed has an environment of its own
    params_of: Callable[[int], Any] | None = None

    def params_for(self, seed: int) -> Any:
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

    It has what an Env has but for its functions; jaxvff.bridge plays it.
    """

    spec: EnvSpec
    results: tuple[str, ...]  # names of the rates that an episode ends with
    game: str  # a module of jaxvff.envs.host, or the path of a file like one
    options: dict[str, Any]  # of the game
    crew: Crew
    signature: Any
    params: Any = ()
    codec: Codec | None = None
    # (state of every slot of one episode [L + 1, S], the .gif to write, how it ended)
    render: Callable[[Any, Path, str], None] | None = None

    def params_for(self, seed: int) -> Any:
        """Nothing is traced."""
        return self.params


class Codec(NamedTuple):
    """How a segment is stored in replay, and rebuilt from it.

    What `unpack` makes without looking at `stored` is the same for every sample of a batch, and a
    vmap over the batch then computes everything that follows from it once (see docs/design.md).
    """

    pack: Callable[[Segment], Any]
    unpack: Callable[[Any, Any], Segment]  # (stored, env params)
    # (a batch of stored segments [B], env params) -> (fewer of them [M], how often each counts [M])
    # with the same weighted mean of any loss, and for each the place in the batch of one that it
    # stands for (any place where the count is 0) [M]; None: nothing to merge.
    merge: Callable[[Any, Any], tuple[Any, Array, Array]] | None = None


class Hyper(NamedTuple):
    """The numbers that a sweep varies without recompiling; every field is a float scalar."""

    lr: Any
    lr_final: Any  # share of lr that is left after lr_steps
    lr_steps: Any  # env steps
    gamma: Any
    td_lambda: Any
    epsilon_start: Any
    epsilon_end: Any
    epsilon_steps: Any  # env steps
    temperature: Any  # of the softmax policy, in units of the utilities
    target_tau: Any  # share of the online parameters that a target sync takes over; 1 = copy
    init_scale: Any  # factor on all initial parameters
    bonus_beta: Any  # factor on the exploration bonus, which is in standard deviations
    rnd_lr: Any  # learning rate of RND's predictor


class TrainState(NamedTuple):
    """Every array of one lane that a checkpoint needs."""

    params: Params
    target_params: Params
    opt_state: Any
    bonus: Any  # of the exploration bonus; () without one
    replay: Any
    elites: Any  # replay.Elites of a method that searches; () of others
    env_steps: Array  # [] int, transitions collected
    stopped_at: Array  # [] int, env_steps when something was not finite and learning stopped; or -1
    key: Array
