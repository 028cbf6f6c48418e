"""Multi-step matrix games: a graph of tables, in which the joint action chooses what comes next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Codec, Env, EnvKind, EnvSpec, Outcome, Segment, View
from jaxvff.envs import matrix

END = -1  # the node after the last step; as an index, the last of M + 1 rows
MAX_LENGTH = 500  # steps of an episode


class Graph(NamedTuple):
    """A game of two agents on M nodes, without cycles; node 0 is the start of every episode."""

    reward: np.ndarray  # [M, U, U] env units
    successor: np.ndarray  # [M, U, U] int, the next node, or END
    shown: np.ndarray  # [M + 1, O] what all agents observe in a node; the last row, after the end


class Tables(NamedTuple):
    """What games of the same size and observations differ in: Env.params."""

    reward: Array  # [M, U, U] env units
    successor: Array  # [M, U, U] int
    best: Array  # [], the largest return that can be reached, env units, undiscounted


class State(NamedTuple):
    """A game in progress."""

    node: Array  # [] int, or END
    return_: Array  # [] rewards so far, env units


class Stored(NamedTuple):
    """T slots in replay: all else follows from these."""

    node: Array  # [T] unsigned int, M after the end
    action: Array  # [T, A] uint8


def two_step(length: int) -> Graph:
    """Agent 1's first action chooses the table of the second step; the first step earns nothing.

    One table earns 7 whatever the agents do. The other earns up to 8, if they coordinate.

    Args:
      length: always 2.

    Source: Rashid et al. (2018), §5.
    """
    second = [[[7, 7], [7, 7]], [[0, 1], [1, 8]]]  # 2A and 2B, nodes 1 and 2
    reward = np.array([np.zeros((2, 2)), *second])
    successor = np.full((3, 2, 2), END)
    successor[0] = [[1, 1], [2, 2]]
    return Graph(reward, successor, np.eye(4))


def maven(length: int) -> Graph:
    """The first joint action, if the agents agree, is the one to repeat until the end.

    A repetition earns 1, and anything else ends the episode with 0. The branch of agreement on
    action 0 has another last step: every joint action earns 1 there, and (1, 1), which was never
    right on this branch, earns 4. Repeating earns `length`; the best is `length` + 3. Agents
    observe the step and the branch.

    Args:
      length: steps of the longest episode.

    Source: Mahajan et al. (2019), the n-step matrix game with two good branches.
    Differs from the authors' code: at the start no branch is shown.
    """
    n = length - 1  # nodes of a branch: branch b at step t is node b·n + t
    reward, successor = np.zeros((1 + 2 * n, 2, 2)), np.full((1 + 2 * n, 2, 2), END)
    shown = np.zeros((2 + 2 * n, length + 2))  # one-hot step, then one-hot branch
    shown[0, 0] = 1
    for branch in (0, 1):
        for step in range(length):
            node = branch * n + step if step else 0
            reward[node, branch, branch] = 1
            if step < length - 1:
                successor[node, branch, branch] = branch * n + step + 1
            if step:
                shown[node, [step, length + branch]] = 1
    reward[n] = [[1, 1], [1, 4]]  # branch 0, last step
    return Graph(reward, successor, shown)


def chain(length: int) -> Graph:
    """Game A over 12, `length` times in a row; only its best joint action leads to the next one.

    The best return is `length`; agents that settle for Game A's safe actions end with 0.

    Args:
      length: steps of the longest episode.

    Source: ours.
    """
    table = np.array(matrix.GAMES["a"]) / 12
    successor = np.full((length, *table.shape), END)
    successor[:-1, 0, 0] = np.arange(1, length)
    return Graph(np.tile(table, (length, 1, 1)), successor, np.eye(length + 1))


# name -> (length -> Graph, its usual length in env steps)
GAMES: dict[str, tuple[Callable[[int], Graph], int]] = {
    "two_step": (two_step, 2),
    "maven": (maven, 10),
    "chain": (chain, 5),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which game, and how long it is."""

    game: str = option("two_step", "the game", names=GAMES)
    length: int | None = option(
        None,
        "steps of the longest episode; null: the usual length of the game",
        unit="env steps",
        low=2,
        high=MAX_LENGTH,
    )
    label_seed: int | None = option(
        None,
        "permutes the actions of every agent in every node, so that labels say nothing; "
        "null: labels as published",
        low=0,
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        if self.game == "two_step" and self.length not in (None, 2):
            raise UserError(f"env.length={self.length}: two_step has 2 steps; leave env.length out")


def make(options: Options) -> Env:
    """A cooperative game of several steps, in which all agents observe where they are.

    `win_rate` counts the episodes with the largest return that can be reached.

    Returns:
      An Env whose `params` are Tables; its state is the one-hot node.
    """
    build, usual_length = GAMES[options.game]
    graph = build(usual_length if options.length is None else options.length)
    if options.label_seed is not None:
        graph = relabelled(graph, options.label_seed)
    return _env(options.game, graph)


KIND = EnvKind(Options, make)


def relabelled(graph: Graph, seed: int) -> Graph:
    """The same game with the actions of every agent permuted, node by node."""
    n_nodes, n_actions, _ = graph.reward.shape
    labels = np.tile(np.arange(n_actions), (2, n_nodes, 1))
    rows, columns = np.random.default_rng(seed).permuted(labels, axis=-1)
    at = (np.arange(n_nodes)[:, None, None], rows[:, :, None], columns[:, None, :])
    return graph._replace(reward=graph.reward[at], successor=graph.successor[at])


def largest_return(reward: np.ndarray, successor: np.ndarray) -> float:
    """The largest sum of rewards from node 0 to the end, by dynamic programming.

      V(m) = max_u [r(m, u) + V(successor(m, u))], V(END) = 0

    With rewards of 1 it is the length of the longest episode.

    Args:
      reward: `[M, U, U]`.
      successor: `[M, U, U]` int, without cycles.
    """
    value = np.zeros(len(reward) + 1)  # [M + 1]; the last entry is that of END
    for _ in reward:  # M rounds suffice: a path visits a node once
        value[:-1] = np.max(reward + value[successor], axis=(1, 2))
    return float(value[0])


def _env(game: str, graph: Graph) -> Env:
    n_nodes, n_actions, _ = graph.reward.shape
    spec = EnvSpec(
        n_agents=2,
        n_actions=n_actions,
        obs_size=graph.shown.shape[1],
        state_size=n_nodes + 1,
        episode_limit=int(largest_return(np.ones_like(graph.reward), graph.successor)),
    )
    shown = np.asarray(graph.shown, np.float32)

    def reset(key: Array, params: Tables) -> State:
        return State(jnp.array(0, jnp.int32), jnp.zeros(()))

    def step(key: Array, state: State, action: Array, params: Tables) -> tuple[State, Outcome]:
        at = (state.node, *action)
        reward, node = params.reward[at], params.successor[at]
        return_ = state.return_ + reward
        ended = node == END
        won = ended & (return_ >= params.best)  # sums of small whole numbers are exact
        results = {"win_rate": won.astype(jnp.float32)}
        return State(node, return_), Outcome(reward, ended, jnp.array(False), results)

    def observe(state: State, params: Tables) -> View:
        return View(
            obs=jnp.tile(jnp.asarray(shown)[state.node], (2, 1)),
            state=jnp.eye(n_nodes + 1)[state.node],
            avail=jnp.ones((2, n_actions), bool),
        )

    return Env(
        spec=spec,
        params=Tables(
            reward=jnp.asarray(graph.reward, jnp.float32),
            successor=jnp.asarray(graph.successor, jnp.int32),
            best=jnp.float32(largest_return(graph.reward, graph.successor)),
        ),
        reset=reset,
        step=step,
        observe=observe,
        signature=("matrix_steps", game, spec),
        codec=_codec(n_nodes, observe),
    )


def _codec(n_nodes: int, observe: Callable[[State, Tables], View]) -> Codec:
    """Three bytes a slot: the node and the actions, from which the tables make the rest.

    Games of 256 nodes or more take a fourth byte.
    """
    dtype = jnp.uint8 if n_nodes < 256 else jnp.uint16

    def pack(segment: Segment) -> Stored:
        node = jnp.argmax(segment.state, axis=-1)
        return Stored(node.astype(dtype), segment.action.astype(jnp.uint8))

    def unpack(stored: Stored, params: Tables) -> Segment:
        node, action = stored.node.astype(jnp.int32), stored.action.astype(jnp.int32)
        node = jnp.where(node == n_nodes, END, node)
        at = (node, action[:, 0], action[:, 1])
        # A step whose successor lies beyond the end of the segment is no transition.
        mask = (node != END) & (np.arange(len(node)) < len(node) - 1)
        seen = jax.vmap(observe, (0, None))(State(node, jnp.zeros(len(node))), params)
        return Segment(
            obs=seen.obs,
            state=seen.state,
            avail=seen.avail,
            action=action,
            reward=jnp.where(mask, params.reward[at], 0.0),
            terminated=(params.successor[at] == END) & mask,
            is_first=node == 0,
            mask=mask,
        )

    return Codec(pack, unpack)
