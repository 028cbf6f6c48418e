"""Contextual one-step matrix games: an episode draws one of many games and shows its features."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.envs.checks import whole
from jaxvff.envs.matrix import GAMES, one_step_plays
from jaxvff.types import Array, Codec, Env, EnvSpec, Outcome, Segment, UserError, View

MIXED = ("a", "b", "random")  # a third of the contexts each
NAMES = ("mixed", "random", *GAMES)
NAMED_SIZE = (2, 3)  # agents and actions of every game in GAMES
MAX_PAYOFFS = 1_000_000  # of all contexts together, 4 MB a seed


class Contexts(NamedTuple):
    """The games of one seed, C of them: Env.params."""

    payoff: Any  # [C] + [U] * A, expected rewards in env units
    features: Any  # [C, F], what is observed; all features[:, 0] differ
    noise: Any  # [], standard deviation of the reward, env units


class State(NamedTuple):
    """A play of one step."""

    context: Array  # [] int
    taken: Array  # [] bool, the step has been taken


class Stored(NamedTuple):
    """T slots in replay; a context goes by its first feature, which no other one has."""

    feature: Array  # [T]
    action: Array  # [T, A] unsigned int
    reward: Array  # [T]


def make(
    *,
    game: str = "mixed",
    states: int = 192,
    features: int = 16,
    noise: float = 0.0,
    n_agents: int = 2,
    n_actions: int = 3,
) -> Env:
    """A game whose payoffs depend on a context, drawn anew for each episode.

    All agents observe the features of the context, which are also the state; after the step they
    are zeros. Every seed has payoffs and features of its own. What counts as a success is the
    expected payoff, whatever the noise did.

    Args:
      game: "mixed" (a third of the contexts is Game A, a third Game B, a third random), "random",
        or a name in GAMES. Payoffs of random games are drawn from U(-10, 10); in the others the
        actions of every agent are permuted, context by context, so that labels say nothing.
      states: number of contexts, all equally likely.
      features: entries of a context's feature vector, drawn from N(0, 1).
      noise: standard deviation of the Gaussian noise of the reward, env units, 0 or more. Traced.
      n_agents: of random games.
      n_actions: of random games.

    Returns:
      An Env whose `params` are Contexts.

    Raises:
      UserError: an unknown name, or a number out of range.
    """
    if game not in NAMES:
        raise UserError(f"env.game={game!r} is unknown; choose one of {', '.join(NAMES)}")
    whole("states", states, 1)
    whole("features", features, 1)
    whole("n_agents", n_agents, 2)
    whole("n_actions", n_actions, 2)
    if game != "random" and (n_agents, n_actions) != NAMED_SIZE:
        raise UserError(
            f"env.n_agents={n_agents}, env.n_actions={n_actions}: the games of env.game={game} "
            "have 2 agents and 3 actions; other sizes need env.game=random"
        )
    if math.log(states) + n_agents * math.log(n_actions) > math.log(MAX_PAYOFFS):
        raise UserError(
            f"env.states={states} times env.n_actions={n_actions} to the power "
            f"env.n_agents={n_agents} exceeds {MAX_PAYOFFS} payoffs; take fewer"
        )
    number = isinstance(noise, (int, float)) and not isinstance(noise, bool)
    if not number or not 0 <= noise < math.inf:
        raise UserError(
            f"env.noise={noise!r} must be a finite number, 0 or more: the standard deviation of "
            "the reward's noise, such as 1.0"
        )
    spec = EnvSpec(n_agents, n_actions, features, features, episode_limit=1)
    draw = partial(_contexts, game, states, features, noise, spec)
    return _env(spec, draw(0))._replace(params_of=draw)


def _contexts(
    game: str, states: int, n_features: int, noise: float, spec: EnvSpec, seed: int
) -> Contexts:
    rng = np.random.default_rng(seed)
    cells = (spec.n_actions,) * spec.n_agents
    payoff = np.empty((states, *cells), np.float32)
    kinds = MIXED if game == "mixed" else (game,)
    for i, kind in enumerate(kinds):
        part = payoff[i :: len(kinds)]
        if kind == "random":
            part[:] = rng.uniform(-10, 10, part.shape)
        else:
            part[:] = _relabelled(rng, np.array(GAMES[kind]), len(part))
    features = rng.normal(size=(states, n_features)).astype(np.float32)
    # Two float32 of a few hundred are the same once in some thousand seeds: draw those again.
    while len(first := np.unique(features[:, 0], return_index=True)[1]) < states:
        again = np.delete(np.arange(states), first)
        features[again, 0] = rng.normal(size=len(again))
    return Contexts(payoff, features, np.float32(noise))


def _relabelled(rng: np.random.Generator, table: np.ndarray, n: int) -> np.ndarray:
    """`n` copies `[n, U, U]` of a table, rows and columns of each one permuted."""
    labels = np.tile(np.arange(len(table)), (n, 2, 1))
    rows, columns = np.moveaxis(rng.permuted(labels, axis=-1), 1, 0)
    return table[rows[:, :, None], columns[:, None, :]]


def _env(spec: EnvSpec, contexts: Contexts) -> Env:
    def reset(key: Array, params: Contexts) -> State:
        return State(jax.random.randint(key, (), 0, len(params.payoff)), jnp.array(False))

    def step(key: Array, state: State, action: Array, params: Contexts) -> tuple[State, Outcome]:
        table = params.payoff[state.context]
        expected, largest = table[tuple(action)], jnp.max(table)
        outcome = Outcome(
            reward=expected + params.noise * jax.random.normal(key),
            terminated=jnp.array(True),
            truncated=jnp.array(False),
            results={
                "win_rate": (expected == largest).astype(jnp.float32),
                "regret": largest - expected,
            },
        )
        return state._replace(taken=jnp.array(True)), outcome

    def observe(state: State, params: Contexts) -> View:
        features = jnp.where(state.taken, 0.0, params.features[state.context])
        return View(
            obs=jnp.tile(features, (spec.n_agents, 1)),
            state=features,
            avail=jnp.ones((spec.n_agents, spec.n_actions), bool),
        )

    params = jax.tree.map(jnp.asarray, contexts)
    return Env(spec, params, reset, step, observe, ("contextual", spec), _codec(spec, observe))


def _codec(spec: EnvSpec, observe: Any) -> Codec:
    """Ten bytes a slot for two agents; observations and state come from the context."""

    def pack(segment: Segment) -> Stored:
        action = segment.action.astype(spec.action_dtype)
        return Stored(segment.state[:, 0], action, segment.reward)

    def unpack(stored: Stored, params: Contexts) -> Segment:
        context = jnp.argmax(stored.feature[:, None] == params.features[:, 0], axis=1)
        return one_step_plays(
            lambda final: jax.vmap(observe, (0, None))(State(context, jnp.asarray(final)), params),
            stored.action,
            stored.reward,
        )

    return Codec(pack, unpack)
