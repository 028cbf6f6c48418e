"""A trained team that acts greedily: each agent on what it sees and remembers, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from jaxvff.core import actions
from jaxvff.core.types import Array, Memory, Params
from jaxvff.networks.heads import Given
from jaxvff.networks.utility import Utility
from jaxvff.policies.layout import Layout


class Seen(NamedTuple):
    """What some agents see; a row each, of one game or of several."""

    agent: Array  # [R] int, which agent a row is
    obs: Array  # [R, O]
    avail: Array  # [R, U] bool
    is_first: Array  # [R] bool, the first step of an episode


class Chosen(NamedTuple):
    """What these agents do."""

    memory: Memory  # carry [R, H], last_action [R]: the actions
    q: Array  # [R, U] utilities


def choose(
    network: Utility, context: tuple[float, ...], params: Params, seen: Seen, memory: Memory
) -> Chosen:
    """The available action with the largest utility, of agents that share one set of parameters.

    Args:
      network: of the team.
      context: see Layout.
      params: of one set.
      seen: R rows.
      memory: of the step before, `[R, ...]`; not read where an episode begins.
    """
    first = seen.is_first[:, None]
    agent = jax.nn.one_hot(seen.agent, network.spec.n_agents)
    before = jnp.where(first, 0.0, memory.carry)
    x = network.inputs_of(agent, seen.obs, memory.last_action, first)
    given = None
    if context:
        rows = (*seen.agent.shape, len(context))  # not tile: an export has R as a symbol
        given = Given(jnp.broadcast_to(jnp.array(context), rows), agent)
    one_slot = (x[None], jnp.array([False]), jax.tree.map(lambda z: z[None], given))
    carry, q, _ = network.net.apply(params, before, *one_slot)  # type: ignore[misc]
    action = actions.greedy(q[0], seen.avail).astype(jnp.int32)
    return Chosen(Memory(carry[0], action), q[0])


class Policy:
    """Plays in a loop of your own.

        policy.reset(n)                    # n games begin
        action = policy.act(obs, avail)    # [n, A] of [n, A, O] and [n, A, U]

    Without n it plays one game, and arrays have no [n].
    """

    def __init__(
        self, network: Utility, params: Params, layout: Layout, about: Mapping[str, Any]
    ) -> None:
        """A team at the start of one game.

        Args:
          network: of the team.
          params: of the networks; with `shared=False` every leaf has a leading [A].
          layout: of the network.
          about: where it is from, as JSON values; and names of observations and actions, where
            they are known.
        """
        self.network, self.params, self.layout = network, params, layout
        self.about = dict(about)
        self._act = jax.jit(self._of_games)
        self.reset()

    def reset(self, n: int | None = None) -> None:
        """Begin `n` games at the same time; None: one game, of arrays without the axis [n].

        Raises:
          ValueError: n is less than 1.
        """
        if n is not None and n < 1:
            raise ValueError(f"n={n} games must be 1 or more; leave n out for one game")
        games, agents = n or 1, self.layout.n_agents
        self._n, self._begins = n, np.ones(games, bool)
        self._memory = Memory(
            carry=jnp.zeros((games, agents, self.layout.hidden_dim)),
            last_action=jnp.zeros((games, agents), jnp.int32),
        )
        # [n, A, U] of the last step
        self.utilities: np.ndarray | None = None

    def act(
        self,
        obs: npt.ArrayLike,
        avail: npt.ArrayLike | None = None,
        is_first: npt.ArrayLike | None = None,
    ) -> np.ndarray:
        """The actions of the team, which it remembers.

        Args:
          obs: what each agent sees, `[n, A, O]`.
          avail: the actions that it may take, `[n, A, U]` bool; None: all of them.
          is_first: `[n]` bool, games that begin anew in this step, of games that end at different
            times; None: none, but after `reset` all.

        Returns:
          `[n, A]` int.

        Raises:
          ValueError: an array of another shape, or an agent without an available action.
        """
        agents, n_actions = self.layout.n_agents, self.layout.n_actions
        games = () if self._n is None else (self._n,)
        seen = _array(obs, "obs", (*games, agents, self.layout.obs_size), np.float32)
        shape = (*games, agents, n_actions)
        free = np.ones(shape, bool) if avail is None else _array(avail, "avail", shape, bool)
        if not free.any(axis=-1).all():
            where = np.argwhere(~free.any(axis=-1))[0].tolist()
            raise ValueError(f"avail{where} has no available action; every agent needs one")
        begins = self._begins
        if is_first is not None:
            begins = begins | _array(is_first, "is_first", games, bool)
        if self._n is None:
            seen, free = seen[None], free[None]
        self._memory, q = self._act(self.params, seen, free, begins, self._memory)
        self._begins = np.zeros_like(begins)
        action, q = np.asarray(self._memory.last_action), np.asarray(q)
        self.utilities = q if self._n is not None else q[0]
        return action if self._n is not None else action[0]

    def _of_games(
        self, params: Params, obs: Array, avail: Array, is_first: Array, memory: Memory
    ) -> tuple[Memory, Array]:
        """`choose` for all agents: `(memory [n, A, ...], q [n, A, U])`."""
        n, n_agents = obs.shape[:2]

        def of_agent(params: Params, agent: Array, seen: Seen, memory: Memory) -> Chosen:
            seen = seen._replace(agent=jnp.full(n, agent))
            return choose(self.network, self.layout.context, params, seen, memory)

        agents = jnp.arange(n_agents)
        begins = jnp.tile(is_first[:, None], (1, n_agents))
        seen = Seen(jnp.tile(agents, (n, 1)), obs, avail, begins)
        over = jax.vmap(of_agent, (None if self.layout.shared else 0, 0, 1, 1), 1)
        chosen = over(params, agents, seen, memory)
        return chosen.memory, chosen.q

    def __repr__(self) -> str:
        what = ", ".join(
            f"{k}={self.about[k]}" for k in ("method", "env", "seed") if k in self.about
        )
        return f"Policy({what})"


def _array(x: npt.ArrayLike, name: str, shape: tuple[int, ...], kind: type) -> np.ndarray:
    """An argument as an array of a shape.

    Raises:
      ValueError: it has another.
    """
    array = np.asarray(x)
    if array.shape != shape:
        raise ValueError(
            f"{name} has the shape {list(array.shape)} and must have {list(shape)}; reset(n) says "
            "how many games are played"
        )
    return array.astype(kind)
