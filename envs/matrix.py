"""One-step matrix games: any payoff tensor, for any number of agents and actions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.scores import score_table
from jaxvff.core.types import (
    Array,
    Codec,
    Env,
    EnvKind,
    EnvSpec,
    Judge,
    Outcome,
    Segment,
    TableScore,
    View,
)
from jaxvff.envs import payoffs
from jaxvff.envs.payoffs import GAMES, MAX_AGENTS, MAX_PAYOFFS

STATE_SIZE = 2  # one-hot: before the joint action, after it
_RANDOM = {"game": ("random",)}

Stored = tuple[Array, Array]  # of a segment in replay: actions [T, A] unsigned int, rewards [T]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which game: exactly one of `game`, `payoff` and `file` is set."""

    game: str | None = option(
        None, "a published game, or random: payoffs from U(-10, 10)", names=(*GAMES, "random")
    )
    payoff: object = option(None, "the payoff tensor itself: nested lists, an axis per agent")
    file: str | None = option(
        None, "path of a .npy, .yaml or .json file with the payoff tensor", file=True
    )
    n_agents: int = option(2, "agents", low=2, high=MAX_AGENTS, needs=_RANDOM)
    n_actions: int = option(3, "actions per agent", low=2, needs=_RANDOM)
    game_seed: int | None = option(
        0, "draws the game; null: each seed plays the game of its own number", low=0, needs=_RANDOM
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        sources = ("game", "payoff", "file")
        given = [f"env.{name}" for name in sources if getattr(self, name) is not None]
        if len(given) != 1:
            raise UserError(
                "a matrix game needs exactly one of env.game, env.payoff and env.file, and "
                f"{' and '.join(given) or 'none'} is set; write env=matrix/file env.file=<path>, "
                "or env=matrix/file 'env.payoff=[[5,0],[0,1]]'"
            )
        # In logarithms: the power itself may be too large for any float.
        too_many = self.n_agents * np.log(self.n_actions) > np.log(MAX_PAYOFFS)
        if self.game == "random" and too_many:
            raise UserError(
                f"env.n_actions={self.n_actions} to the power env.n_agents={self.n_agents} exceeds "
                f"{MAX_PAYOFFS} payoffs; take fewer agents or actions"
            )


def make(options: Options) -> Env:
    """A one-step game, in which an agent observes only whether the step has been taken.

    Returns:
      An Env whose `params` are the payoffs `[U] * A`, in env units.

    Raises:
      UserError: the payoff cannot be read, or is no finite tensor with axes of equal length.
    """
    if options.game != "random":
        return _env(_given_payoff(options))
    draw = partial(payoffs.random_payoff, options.n_agents, options.n_actions)
    if options.game_seed is None:
        return _env(draw(0))._replace(params_of=draw)
    return _env(draw(options.game_seed))


KIND = EnvKind(Options, make)


def _given_payoff(options: Options) -> np.ndarray:
    """The payoff tensor that the options give or name."""
    if options.file is not None:
        return payoffs.read(Path(options.file), "env.file")
    if options.payoff is not None:
        return payoffs.check_payoff(options.payoff, "env.payoff")
    assert options.game is not None
    return payoffs.check_payoff(GAMES[options.game], options.game)


def joint_actions(shape: tuple[int, ...]) -> np.ndarray:
    """Every joint action once, `[M, A]`, in the order of a raveled payoff tensor of this shape."""
    return np.indices(shape).reshape(len(shape), -1).T


def _env(payoff: np.ndarray) -> Env:
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    spec = EnvSpec(n_agents, n_actions, STATE_SIZE, STATE_SIZE, episode_limit=1)

    def reset(key: Array, params: Array) -> Array:
        return jnp.array(0)  # how many steps have been taken

    def step(key: Array, taken: Array, action: Array, params: Array) -> tuple[Array, Outcome]:
        return taken + 1, Outcome(params[tuple(action)], jnp.array(True), jnp.array(False))

    def observe(taken: Array, params: Array) -> View:
        state = jnp.eye(STATE_SIZE)[taken]
        return View(
            obs=jnp.tile(state, (n_agents, 1)),
            state=state,
            avail=jnp.ones((n_agents, n_actions), bool),
        )

    def score(judge: Judge, params: Array) -> TableScore:
        start = observe(reset(jax.random.key(0), params), params)
        judged = judge(start, jnp.asarray(joint_actions(params.shape)))
        return score_table(judged.q_tot.reshape(params.shape), judged.utilities, params)

    return Env(
        spec=spec,
        params=jnp.asarray(payoff),
        reset=reset,
        step=step,
        observe=observe,
        signature=("matrix", spec),
        codec=_codec(spec, observe),
        score=score,
        action_names=tuple(chr(ord("A") + i) for i in range(n_actions)) if n_actions <= 26 else (),
        obs_parts=(("whether it has been played, one-hot", STATE_SIZE),),
    )


def _codec(spec: EnvSpec, observe: Callable[[Array, Array], View]) -> Codec:
    """Stores actions and rewards; all else is rebuilt.

    What is rebuilt is the same for every sample. A batch therefore computes its utilities and
    hypernetworks once instead of once per sample.
    """

    def pack(segment: Segment) -> Stored:
        return segment.action.astype(spec.action_dtype), segment.reward

    def unpack(stored: Stored, params: Array) -> Segment:
        action, reward = stored
        return one_step_plays(
            lambda final: jax.vmap(observe, (0, None))(jnp.asarray(final, jnp.int32), params),
            action,
            reward,
        )

    return Codec(pack, unpack, _merge)


def _merge(stored: Stored, params: Array) -> tuple[Stored, Array, Array]:
    """A batch of plays as a histogram over joint actions: see Codec.merge.

    A batch of 128 plays of a 3 x 3 game becomes 9 weighted plays. There is nothing to gain where
    a segment holds several plays, or where there are more joint actions than plays.

    Args:
      stored: B segments; in one of two slots, the second shows what the play led to.
      params: payoffs `[U] * A`.
    """
    action, reward = stored
    n_stored, n_slots = reward.shape
    if n_slots != 2 or params.size > n_stored:
        return stored, jnp.ones(n_stored), jnp.arange(n_stored)
    taken = tuple(action[:, 0].T.astype(jnp.int32))
    cell = jnp.ravel_multi_index(taken, params.shape, mode="clip")  # [B]
    # By comparing: a TPU scatters one number after the other (docs/scale.md).
    here = cell[:, None] == jnp.arange(params.size)  # [B, cells]
    count = jnp.sum(here, axis=0, dtype=reward.dtype)
    example = jnp.max(jnp.where(here, jnp.arange(n_stored)[:, None], 0), axis=0)
    joint = joint_actions(params.shape)
    last = np.zeros_like(joint)  # no action is taken in the slot of a terminal state
    rewards = jnp.stack([params.ravel(), jnp.zeros(params.size)], axis=1)
    return (jnp.asarray(np.stack([joint, last], axis=1)), rewards), count, example


def one_step_plays(observe: Callable[[np.ndarray], View], action: Array, reward: Array) -> Segment:
    """The segment of a one-step game, whose slots alternate: the step, and what it led to.

    Args:
      observe: from `final` `[T]` bool, True for the slots after a step, to what is seen in each
        slot: a View with leaves `[T, ...]`.
      action: `[T, A]`, as it was stored.
      reward: `[T]`, env units.
    """
    slot = np.arange(len(reward))
    final = slot % 2 == 1
    # A step whose successor lies beyond the end of the segment is no transition.
    mask = jnp.asarray(~final & (slot < len(reward) - 1))
    seen = observe(final)
    return Segment(
        obs=seen.obs,
        state=seen.state,
        avail=seen.avail,
        action=action.astype(jnp.int32),
        reward=reward,
        terminated=mask,
        is_first=jnp.asarray(~final),
        mask=mask,
    )
