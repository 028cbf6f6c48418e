"""Contextual one-step matrix games: an episode draws one of many games and shows its features."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Codec, Env, EnvKind, EnvSpec, Outcome, Segment, View
from jaxvff.envs.matrix import one_step_plays
from jaxvff.envs.payoffs import GAMES, MAX_AGENTS

MIXED = ("a", "b", "random")  # a third of the contexts each
NAMED_SIZE = (2, 3)  # agents and actions of every game in GAMES
MAX_PAYOFFS = 1_000_000  # of all contexts together, 4 MB a seed


@dataclass(frozen=True, kw_only=True)
class Options:
    """How many games there are, and what their payoffs are."""

    game: str = option(
        "mixed",
        "what a context's payoffs are: Game A, Game B and random ones in equal shares (mixed), "
        "from U(-10, 10) (random), or a published game's; labels of published games are permuted",
        names=("mixed", "random", *GAMES),
    )
    states: int = option(192, "contexts, all equally likely", low=1)
    features: int = option(
        16, "entries of a context's feature vector, from N(0, 1)", low=1, high=10_000
    )
    noise: float = option(
        0.0,
        "standard deviation of the Gaussian noise of the reward",
        unit="env units",
        low=0,
        traced=True,
    )
    n_agents: int = option(
        2, "agents; published games have 2", low=2, high=MAX_AGENTS, needs={"game": ("random",)}
    )
    n_actions: int = option(
        3, "actions per agent; published games have 3", low=2, needs={"game": ("random",)}
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        if self.game != "random" and (self.n_agents, self.n_actions) != NAMED_SIZE:
            raise UserError(
                f"env.n_agents={self.n_agents}, env.n_actions={self.n_actions}: the games of "
                f"env.game={self.game} have 2 agents and 3 actions; other sizes need "
                "env.game=random"
            )
        # In logarithms: the power itself may be too large for any float.
        log_payoffs = math.log(self.states) + self.n_agents * math.log(self.n_actions)
        if log_payoffs > math.log(MAX_PAYOFFS):
            raise UserError(
                f"env.states={self.states} times env.n_actions={self.n_actions} to the power "
                f"env.n_agents={self.n_agents} exceeds {MAX_PAYOFFS} payoffs; take fewer"
            )


class Contexts(NamedTuple):
    """The C games of one seed: Env.params. NumPy arrays until the environment is made."""

    payoff: Array | np.ndarray  # [C] + [U] * A, expected rewards in env units
    features: Array | np.ndarray  # [C, F], what is observed; all features[:, 0] differ
    noise: Array | np.float32  # [], standard deviation of the reward, env units


class State(NamedTuple):
    """A play of one step."""

    context: Array  # [] int
    taken: Array  # [] bool, the step has been taken


class Stored(NamedTuple):
    """T slots in replay. A context is known by its first feature, which no other context has."""

    feature: Array  # [T]
    action: Array  # [T, A] unsigned int
    reward: Array  # [T]


def make(options: Options) -> Env:
    """A game whose payoffs depend on a context, drawn anew for each episode.

    All agents observe the features of the context, which are also the state; after the step they
    are zeros. Every seed has payoffs and features of its own.

    Results compare the expected payoff of the joint action with the largest one of its context:
    `win_rate` counts where they are equal, `regret` is how far they are apart. Noise changes
    neither.

    Returns:
      An Env whose `params` are Contexts.
    """
    spec = EnvSpec(
        n_agents=options.n_agents,
        n_actions=options.n_actions,
        obs_size=options.features,
        state_size=options.features,
        episode_limit=1,
    )
    draw = partial(_contexts, options)
    return _env(spec, draw(0))._replace(params_of=draw)


KIND = EnvKind(Options, make)


def _contexts(options: Options, seed: int) -> Contexts:
    """The contexts of a seed, as NumPy arrays."""
    rng, n_contexts = np.random.default_rng(seed), options.states
    payoff = np.empty((n_contexts, *(options.n_actions,) * options.n_agents), np.float32)
    games = MIXED if options.game == "mixed" else (options.game,)
    for i, game in enumerate(games):
        part = payoff[i :: len(games)]  # a view: filling it fills `payoff`
        if game == "random":
            part[:] = rng.uniform(-10, 10, part.shape)
        else:
            part[:] = _relabelled(rng, np.array(GAMES[game]), len(part))
    features = rng.normal(size=(n_contexts, options.features)).astype(np.float32)
    # Among a few hundred float32, two are equal once in some thousand seeds: draw those again.
    while len(first := np.unique(features[:, 0], return_index=True)[1]) < n_contexts:
        again = np.delete(np.arange(n_contexts), first)
        features[again, 0] = rng.normal(size=len(again))
    return Contexts(payoff, features, np.float32(options.noise))


def _relabelled(rng: np.random.Generator, table: np.ndarray, n: int) -> np.ndarray:
    """`n` copies `[n, U, U]` of a table `[U, U]`, rows and columns of each permuted at random.

    Labels of actions then say nothing about where the optimum is.
    """
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

    return Env(
        spec=spec,
        params=jax.tree.map(jnp.asarray, contexts),
        reset=reset,
        step=step,
        observe=observe,
        signature=("contextual", spec),
        codec=_codec(spec, observe),
    )


def _codec(spec: EnvSpec, observe: Callable[[State, Contexts], View]) -> Codec:
    """Ten bytes a slot for two agents; observations and state come from the context."""

    def pack(segment: Segment) -> Stored:
        action = segment.action.astype(spec.action_dtype)
        return Stored(feature=segment.state[:, 0], action=action, reward=segment.reward)

    def unpack(stored: Stored, params: Contexts) -> Segment:
        # [T]; in a slot after a step the features are zeros, and any context will do.
        context = jnp.argmax(stored.feature[:, None] == params.features[:, 0], axis=1)
        return one_step_plays(
            lambda final: jax.vmap(observe, (0, None))(State(context, jnp.asarray(final)), params),
            stored.action,
            stored.reward,
        )

    return Codec(pack, unpack)
