"""Games on the device: one with options and traced params, one by its arguments, two by classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Env, EnvKind, EnvSpec, Outcome, View


@dataclass(frozen=True, kw_only=True)
class Options:
    """A light, and who has to see it."""

    agents: int = option(2, "agents", low=2)
    bright: float = option(1.0, "reward for all at the light", low=0, traced=True)

    def __post_init__(self) -> None:
        check(self, "env.")


def lit(options: Options) -> Env:
    """A game of one step: who all choose the lit side earn."""

    def reset(key: Array, params: Array) -> Array:
        return jax.random.bernoulli(key).astype(jnp.int32)

    def step(key: Array, side: Array, action: Array, params: Array) -> tuple[Array, Outcome]:
        reward = jnp.all(action == side) * params
        return side, Outcome(reward=reward, terminated=jnp.array(True), truncated=jnp.array(False))

    def observe(side: Array, params: Array) -> View:
        seen = jax.nn.one_hot(side, 2)
        obs = jnp.tile(seen, (options.agents, 1))
        return View(obs=obs, state=seen, avail=jnp.ones((options.agents, 2), bool))

    spec = EnvSpec(n_agents=options.agents, n_actions=2, obs_size=2, state_size=2, episode_limit=1)
    return Env(
        spec=spec,
        params=jnp.float32(options.bright),
        reset=reset,
        step=step,
        observe=observe,
        signature=("light", spec),
    )


KIND = EnvKind(Options, lit)


def make(agents: int = 2, *, bright: float = 1.0) -> Env:
    """The same, from plain arguments."""
    return lit(Options(agents=agents, bright=bright))


class Space(NamedTuple):
    """Actions, as JaxMARL and gymnax have them."""

    n: int


class Walk(NamedTuple):
    """A walk along a line."""

    place: Array
    step: Array


class Line:
    """JaxMARL's interface: two agents are paid where they meet; no end, and no max_steps."""

    def __init__(self, cells: int = 4) -> None:
        self.agents, self.cells = ["left", "right"], cells

    def action_space(self, agent: str) -> Space:
        """Left, stay, right."""
        return Space(3)

    def _seen(self, state: Walk) -> dict[str, Array]:
        both = jax.nn.one_hot(state.place, self.cells).ravel()
        return dict.fromkeys(self.agents, both)

    def reset(self, key: Array) -> tuple[dict[str, Array], Walk]:
        """At the ends."""
        state = Walk(jnp.array([0, self.cells - 1]), jnp.array(0))
        return self._seen(state), state

    def step_env(self, key: Array, state: Walk, actions: dict[str, Array]) -> tuple:
        """One move each."""
        moves = jnp.stack([actions[a] for a in self.agents]) - 1
        state = Walk(jnp.clip(state.place + moves, 0, self.cells - 1), state.step + 1)
        reward = (state.place[0] == state.place[1]).astype(jnp.float32)
        done = jnp.array(False)
        both = dict.fromkeys(self.agents, reward)
        return self._seen(state), state, both, {"__all__": done}, {}

    step = step_env


MARKS = jnp.zeros(2)


class Timed(Line):
    """A line that ends by itself, after its own `max_steps`."""

    def __init__(self, max_steps: int = 7, marks: Array = MARKS) -> None:
        super().__init__()
        self.max_steps, self.marks = max_steps, marks

    def step_env(self, key: Array, state: Walk, actions: dict[str, Array]) -> tuple:
        """One move each, until the time is up."""
        obs, state, reward, _, info = super().step_env(key, state, actions)
        return obs, state, reward, {"__all__": state.step >= self.max_steps}, info


class Params(NamedTuple):
    """Of gymnax."""

    max_steps_in_episode: int = 5


class Count(NamedTuple):
    """A state of gymnax."""

    time: Array


class Alone:
    """gymnax's interface: the right one of two actions alternates."""

    default_params = Params()

    def action_space(self, params: Params) -> Space:
        """Two."""
        return Space(2)

    def reset(self, key: Array, params: Params) -> tuple[Array, Count]:
        """At the start."""
        return jnp.zeros(1), Count(jnp.array(0))

    def step_env(self, key: Array, state: Count, action: Array, params: Params) -> tuple:
        """Paid for the parity of the clock."""
        reward = (action == state.time % 2).astype(jnp.float32)
        state = Count(state.time + 1)
        obs = jnp.array([state.time % 2], jnp.float32)
        return obs, state, reward, state.time >= params.max_steps_in_episode, {}
