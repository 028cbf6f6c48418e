"""One-step matrix games: any payoff tensor, for any number of agents and actions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import yaml

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

GAMES: dict[str, list[list[float]]] = {
    # Table 1 of the paper, after Son et al. (2019).
    "a": [[12, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "b": [[12, 0, 10], [0, 0, 10], [10, 10, 10]],
    # Their negatives: an unconstrained mixer that solves a game fails on these (docs/theory.md).
    "minus_a": [[-12, 12, 12], [12, 0, 0], [12, 0, 0]],
    "minus_b": [[-12, 0, -10], [0, 0, -10], [-10, -10, -10]],
    # Claus & Boutilier (1998): climbing as printed there, penalty with k = -100.
    "climbing": [[11, -30, 0], [-30, 7, 6], [0, 0, 5]],
    "penalty": [[10, 0, -100], [0, 2, 0], [-100, 0, 10]],
}
STATE_SIZE = 2  # one-hot: before the joint action, after it
MAX_PAYOFFS = 100_000  # every joint action is evaluated at every report

Stored = tuple[Array, Array]  # of a segment in replay: actions [T, A] unsigned int, rewards [T]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which game: exactly one of `game`, `payoff` and `file` is set."""

    game: str | None = option(
        None, "a published game, or random: payoffs from U(-10, 10)", names=(*GAMES, "random")
    )
    payoff: object = option(None, "the payoff tensor itself: nested lists, an axis per agent")
    # A number as well: the command line reads a path such as 3 as a number.
    file: str | float | None = option(
        None, "path of a .npy, .yaml or .json file with the payoff tensor", file=True
    )
    n_agents: int = option(2, "agents of a random game", low=2)
    n_actions: int = option(3, "actions per agent of a random game", low=2)
    game_seed: int | None = option(
        0, "draws a random game; null: each seed plays the game of its own number", low=0
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        if sum(x is not None for x in (self.game, self.payoff, self.file)) != 1:
            raise UserError("a matrix game needs exactly one of env.game, env.payoff and env.file")
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
    draw = partial(_random_payoff, options.n_agents, options.n_actions)
    if options.game_seed is None:
        return _env(draw(0))._replace(params_of=draw)
    return _env(draw(options.game_seed))


KIND = EnvKind(Options, make)


def check_payoff(payoff: object, source: str) -> np.ndarray:
    """The payoff as a float32 tensor `[U] * A`.

    Args:
      payoff: nested lists or an array.
      source: where it came from, for the message.

    Raises:
      UserError: it is no finite tensor with axes of equal length, or has too many entries.
    """
    try:
        table = np.asarray(payoff, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{source}: the payoff has ragged rows or entries that are no numbers; "
            "give nested lists of equal length"
        ) from error
    if table.ndim < 2 or len(set(table.shape)) != 1 or table.shape[0] < 2:
        raise UserError(
            f"{source}: the payoff has shape {table.shape}; expected one axis per agent (two or "
            "more) of the same length (two or more actions); pad unequal action sets"
        )
    if table.size > MAX_PAYOFFS:
        raise UserError(f"{source}: {table.size} payoffs are too many; at most {MAX_PAYOFFS}")
    if not np.isfinite(table).all():
        joint = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise UserError(
            f"{source}: payoff{list(joint)} is {table[joint]}; every payoff must be finite"
        )
    return table


def _given_payoff(options: Options) -> np.ndarray:
    """The payoff tensor that the options give or name."""
    if options.file is not None:
        return check_payoff(_read(Path(str(options.file))), str(options.file))
    if options.payoff is not None:
        return check_payoff(options.payoff, "env.payoff")
    assert options.game is not None
    return check_payoff(GAMES[options.game], options.game)


def _read(path: Path) -> object:
    """What a file holds: an array or nested lists."""
    if not path.is_file():
        raise UserError(f"env.file={str(path)!r} does not exist; give a .npy or .yaml file")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix == ".json":
            return json.loads(path.read_text())
        if path.suffix in (".yaml", ".yml"):
            return yaml.safe_load(path.read_text())
    except (ValueError, OSError, EOFError, yaml.YAMLError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"env.file={str(path)!r} cannot be read: {reason}") from error
    raise UserError(f"env.file={str(path)!r} is of no known kind; give a .npy, .yaml or .json file")


def _random_payoff(n_agents: int, n_actions: int, seed: int) -> np.ndarray:
    """Payoffs `[U] * A` from U(-10, 10)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(-10, 10, (n_actions,) * n_agents).astype(np.float32)


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
    count = jnp.zeros(params.size, reward.dtype).at[cell].add(1)
    example = jnp.zeros(params.size, jnp.int32).at[cell].max(jnp.arange(n_stored))
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
