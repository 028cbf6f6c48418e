"""One-step matrix games: any payoff tensor, for any number of agents and actions."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import yaml

from jaxvff.envs.checks import whole
from jaxvff.types import Array, Codec, Env, EnvSpec, Outcome, Segment, UserError, View

GAMES: dict[str, list] = {
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
MAX_CELLS = 100_000  # every joint action is evaluated at every report


def make(
    *,
    game: str | None = None,
    payoff: Any = None,
    file: str | None = None,
    n_agents: int = 2,
    n_actions: int = 3,
    game_seed: int | None = 0,
) -> Env:
    """A one-step game; every agent observes only whether the step has been taken.

    Args:
      game: a name in GAMES, or "random".
      payoff: the tensor itself, nested lists `[U] * A`, in place of a name.
      file: a .npy or YAML file with the tensor, in place of a name.
      n_agents: of a random game.
      n_actions: of a random game.
      game_seed: of a random game, whose payoffs are drawn from U(-10, 10). None: every seed plays
        a game of its own, the one of its number.

    Returns:
      An Env whose `params` are the payoffs `[U] * A`.

    Raises:
      UserError: an unknown name, or a payoff that is no finite tensor of equal sides.
    """
    if sum(x is not None for x in (game, payoff, file)) != 1:
        raise UserError("a matrix game needs exactly one of env.game, env.payoff and env.file")
    if file is not None:
        table = check_payoff(_read(Path(str(file))), str(file))
    elif payoff is not None:
        table = check_payoff(payoff, "env.payoff")
    elif game == "random":
        table = _random(n_agents, n_actions, 0 if game_seed is None else game_seed)
        if game_seed is None:
            return _env(table)._replace(params_of=lambda seed: _random(n_agents, n_actions, seed))
    elif isinstance(game, str) and game in GAMES:
        table = check_payoff(GAMES[game], game)
    else:
        raise UserError(f"env.game={game!r} is unknown; choose one of {', '.join(GAMES)}, random")
    return _env(table)


def check_payoff(payoff: Any, where: str) -> np.ndarray:
    """The payoff as a float32 tensor `[U] * A`, or a UserError that says what is wrong with it."""
    try:
        table = np.asarray(payoff, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{where}: the payoff has ragged rows or entries that are no numbers; "
            "give nested lists of equal length"
        ) from error
    if table.ndim < 2 or len(set(table.shape)) != 1 or table.shape[0] < 2:
        raise UserError(
            f"{where}: the payoff has shape {table.shape}; expected one axis per agent (two or "
            "more) of the same length (two or more actions); pad unequal action sets"
        )
    if table.size > MAX_CELLS:
        raise UserError(f"{where}: {table.size} payoffs are too many; at most {MAX_CELLS}")
    if not np.isfinite(table).all():
        cell = tuple(int(i) for i in np.argwhere(~np.isfinite(table))[0])
        raise UserError(
            f"{where}: payoff{list(cell)} is {table[cell]}; every payoff must be finite"
        )
    return table


def _read(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"env.file={str(path)!r} does not exist; give a .npy or .yaml file")
    try:
        if path.suffix == ".npy":
            return np.load(path, allow_pickle=False)
        if path.suffix in (".yaml", ".yml", ".json"):
            text = path.read_text()
            return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, OSError, EOFError, yaml.YAMLError, zipfile.BadZipFile) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"env.file={str(path)!r} cannot be read: {reason}") from error
    raise UserError(f"env.file={str(path)!r} is of no known kind; give a .npy, .yaml or .json file")


def _random(n_agents: int, n_actions: int, game_seed: int) -> np.ndarray:
    whole("n_agents", n_agents, 2)
    whole("n_actions", n_actions, 2)
    whole("game_seed", game_seed, 0)
    if n_agents * np.log(n_actions) > np.log(MAX_CELLS):
        raise UserError(
            f"env.n_actions={n_actions} to the power env.n_agents={n_agents} exceeds {MAX_CELLS} "
            "payoffs; take fewer agents or actions"
        )
    rng = np.random.default_rng(game_seed)
    return rng.uniform(-10, 10, (n_actions,) * n_agents).astype(np.float32)


def _env(payoff: np.ndarray) -> Env:
    n_agents, n_actions = payoff.ndim, payoff.shape[0]
    spec = EnvSpec(n_agents, n_actions, STATE_SIZE, STATE_SIZE, episode_limit=1)

    def reset(key: Array, params: Array) -> Array:
        return jnp.array(0)

    def step(key: Array, state: Array, action: Array, params: Array) -> tuple[Array, Outcome]:
        return state + 1, Outcome(params[tuple(action)], jnp.array(True), jnp.array(False))

    def observe(taken: Array, params: Array) -> View:
        state = jnp.eye(STATE_SIZE)[taken]
        return View(
            obs=jnp.tile(state, (n_agents, 1)),
            state=state,
            avail=jnp.ones((n_agents, n_actions), bool),
        )

    signature = ("matrix", spec)
    return Env(spec, jnp.asarray(payoff), reset, step, observe, signature, _codec(spec, observe))


def _codec(spec: EnvSpec, observe: Any) -> Codec:
    """Stores what differs between samples, actions and rewards, and rebuilds the rest.

    The rest is the same for every sample, so a batch computes its utilities and hypernetworks
    once instead of once per sample.
    """

    def pack(segment: Segment) -> tuple[Array, Array]:
        return segment.action.astype(spec.action_dtype), segment.reward

    def unpack(stored: tuple[Array, Array], params: Array) -> Segment:
        action, reward = stored
        return one_step_plays(
            lambda final: jax.vmap(observe, (0, None))(jnp.asarray(final, jnp.int32), params),
            action,
            reward,
        )

    def merge(stored: tuple[Array, Array], params: Array) -> Any:
        # A batch of 128 plays of a 3x3 game is a histogram over 9 joint actions.
        action, reward = stored
        n_stored, n_slots = reward.shape
        if n_slots != 2 or params.size > n_stored:
            return stored, jnp.ones(n_stored), jnp.arange(n_stored)
        first = tuple(action[:, 0].T.astype(jnp.int32))
        cell = jnp.ravel_multi_index(first, params.shape, mode="clip")
        count = jnp.zeros(params.size, reward.dtype).at[cell].add(1)
        example = jnp.zeros(params.size, jnp.int32).at[cell].max(jnp.arange(n_stored))
        joint = np.indices(params.shape).reshape(params.ndim, -1).T  # every joint action once
        last = np.zeros_like(joint)  # nobody takes the action of a terminal slot
        rewards = jnp.stack([params.ravel(), jnp.zeros(params.size)], axis=1)
        return (jnp.asarray(np.stack([joint, last], axis=1)), rewards), count, example

    return Codec(pack, unpack, merge)


def one_step_plays(observe: Callable[[np.ndarray], View], action: Array, reward: Array) -> Segment:
    """The segment of a one-step game, whose slots alternate: the step, and what it led to.

    Args:
      observe: which of T slots are final `[T]` bool -> what is seen in each, leaves `[T, ...]`.
      action: `[T, A]`, as it was stored.
      reward: `[T]`.
    """
    final = np.arange(len(reward)) % 2 == 1
    # A last slot without a successor is cut by the segment's end: no transition.
    mask = jnp.asarray(~final & (np.arange(len(reward)) < len(reward) - 1))
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
