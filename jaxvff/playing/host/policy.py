"""The policy on the host: one compiled call chooses actions for the games of all lanes."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core import actions
from jaxvff.core.types import Array, Draw, Params, Traced, Tree
from jaxvff.envs.host.shared import Arrays
from jaxvff.losses.contract import Model
from jaxvff.networks.utility import Utility
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.explore import Explorer
from jaxvff.playing.rollout import Act, Memory


class Seen(NamedTuple):
    """What the games show; leaves `[K, N, ...]`, zeros for games that do not wait."""

    obs: Array  # [K, N, A, O]
    state: Array | None  # [K, N, S], where the method draws from it
    avail: Array  # [K, N, A, U] bool
    is_first: Array  # [K, N] bool, the newest slot is the first of an episode
    waiting: Array  # [K, N] bool, the game waits for actions


class LaneInput(NamedTuple):
    """What decides the actions of one lane, beside a key; leaves `[K, ...]` outside of a vmap."""

    params: Params  # {"utility"}, and "context" if the method draws
    memory: Memory  # [N, ...]
    seen: Seen
    traced: Traced
    env_steps: Array  # [] int


class BatchedPolicy:
    """Chooses actions in K lanes of N games each, and keeps what the agents remember.

    It runs on a CPU even where there is an accelerator: one step is little work, and would wait
    there for the learner.
    """

    def __init__(
        self,
        model: Model,
        explorer: Explorer | None,
        traced: Traced,
        *,
        n_games: int,
        seed: list[int],
    ) -> None:
        """Nothing is compiled before the first call of `act`.

        Args:
          model: networks.
          explorer: how actions are picked from utilities; None: the best ones, and of what the
            method draws for an episode the best, too.
          traced: options of all lanes, leaves `[K]`.
          n_games: N.
          seed: entropy for the random numbers.
        """
        utility = model.utility
        n_lanes, n_agents = len(jax.tree.leaves(traced)[0]), utility.spec.n_agents
        self._shape = shape = (n_lanes, n_games, n_agents)
        self._device = jax.local_devices(backend="cpu")[-1]
        self._traced = jax.device_put(traced, self._device)
        blank = Memory(
            carry=jnp.zeros((*shape, utility.net.hidden_dim)),
            last_action=jnp.zeros(shape, jnp.int32),
            context=jnp.zeros((*shape[:2], utility.context_size)) if utility.context_size else None,
        )
        self._memory = jax.device_put(blank, self._device)
        self.context_size = utility.context_size  # C, what is drawn for an episode; 0: nothing
        self._act = jax.jit(partial(_act_in_lanes, model, explorer))
        self.begin_anew(seed)

    def begin_anew(self, seed: list[int]) -> None:
        """Choose from here on as a new policy would; all games have to begin an episode."""
        self._seed, self._n_calls = np.random.SeedSequence(seed).generate_state(1), 0

    def copy_params(self, params: Params) -> Params:
        """Copy for `act` what it needs of a learner's parameters, leaves `[K, ...]`.

        The copy stays valid when the learner's next update donates the original.

        Args:
          params: from `Learner.acting`.
        """
        acting = {name: params[name] for name in ("utility", "context") if name in params}
        return jax.device_put(acting, self._device, may_alias=False)

    def act(self, params: Params, env_steps: np.ndarray, staged: Arrays, games: np.ndarray) -> None:
        """Write the next actions of some games into the pool's arrays.

        The compiled program takes all K * N games, whichever wait, so that it is compiled once.

        Args:
          params: from `copy_params`, leaves `[K, ...]`.
          env_steps: `[K]` int, of the lanes.
          staged: of the pool; its K * N games stand lane by lane.
          games: `[n]` int, those that wait for actions, from Pool.wait_for_half.
        """
        if not games.size:
            return
        steps: Tree = env_steps  # jit takes NumPy arrays, though its functions are typed for JAX's
        lanes = LaneInput(params, self._memory, self._see(staged, games), self._traced, steps)
        self._memory = self._act(lanes, self._seed, self._n_calls)
        self._n_calls += 1
        action = np.asarray(self._memory.last_action).reshape(-1, self._shape[-1])
        staged.action[games, staged.slot[games]] = action[games]

    def context(self, game: int) -> np.ndarray | None:
        """What was drawn for the episode that a game plays, `[C]`; None: nothing is drawn."""
        context = self._memory.context
        return None if context is None else np.asarray(context).reshape(-1, context.shape[-1])[game]

    def _see(self, staged: Arrays, games: np.ndarray) -> Seen:
        """The newest slots of some games, with a leading `[K, N]` instead of the pool's `[E]`."""

        def by_lane(x: np.ndarray) -> Tree:
            return x.reshape(self._shape[:2] + x.shape[1:])

        def newest(field: np.ndarray) -> Tree:
            return by_lane(newest_slots(field, staged.slot, games))

        waiting = np.zeros(len(staged.slot), bool)
        waiting[games] = True
        return Seen(
            obs=newest(staged.obs),
            state=newest(staged.state) if self.context_size else None,
            avail=newest(staged.avail),
            is_first=by_lane(staged.slot == 0),
            waiting=by_lane(waiting),
        )


def newest_slots(field: np.ndarray, slot: np.ndarray, games: np.ndarray) -> np.ndarray:
    """A staged field in the newest slot of some games.

    Args:
      field: `[E, L+1, ...]`, one of the staged arrays.
      slot: `[E]` int, the newest slot of every game.
      games: `[n]` int.

    Returns:
      `[E, ...]`, zeros for all other games.
    """
    newest = np.zeros((len(field), *field.shape[2:]), field.dtype)
    newest[games] = field[games, slot[games]]
    return newest


def _act_in_lanes(
    model: Model, explorer: Explorer | None, lanes: LaneInput, seed: Array, n_calls: Array
) -> Memory:
    """What the teams of all lanes remember after they have acted, leaves `[K, N, ...]`.

    Args:
      model: networks.
      explorer: how actions are picked; None: greedily.
      lanes: leaves `[K, ...]`.
      seed: `[1]` uint32, of the random numbers.
      n_calls: `[]` int, calls before this one, so that each draws other random numbers.
    """
    # With JAX's default generator a call would take a third longer on a CPU.
    key = jax.random.fold_in(jax.random.key(seed[0], impl="unsafe_rbg"), n_calls)
    keys = jax.random.split(key, len(lanes.env_steps))
    return jax.vmap(partial(_act_in_lane, model, explorer))(lanes, keys)


def _act_in_lane(model: Model, explorer: Explorer | None, lane: LaneInput, key: Array) -> Memory:
    """What the teams of one lane remember after they have acted, leaves `[N, ...]`."""

    def act(key: Array, q: Array, avail: Array) -> Array:
        if explorer is None:
            return actions.greedy(q, avail)
        return explorer(key, q, avail, lane.traced, lane.env_steps)

    draw = evaluate.drawing(model, lane.params, greedy=explorer is None)
    utility, params = model.utility, lane.params["utility"]
    in_game = partial(_act_in_game, utility=utility, act=act, draw=draw, params=params)
    return jax.vmap(in_game)(lane.memory, lane.seen, jax.random.split(key, len(lane.seen.waiting)))


def _act_in_game(
    memory: Memory,
    seen: Seen,
    key: Array,
    *,
    utility: Utility,
    act: Act,
    draw: Draw | None,
    params: Params,
) -> Memory:
    """What a team remembers after it has acted; unchanged where its game does not wait.

    Args:
      memory: of the slot before, or of the last episode.
      seen: the newest slot, without the axes K and N.
      key: PRNG key.
      utility: the utility networks.
      act: how actions are picked.
      draw: what the team draws for an episode; None: nothing.
      params: of the utility networks.
    """
    before = jax.tree.map(lambda x: jnp.where(seen.is_first, jnp.zeros_like(x), x), memory)
    after = rollout.decide(
        utility,
        params,
        before,
        act=act,
        obs=seen.obs,
        # A game that does not wait shows zeros: no action. Its choice is discarded below.
        avail=seen.avail | ~seen.waiting,
        is_first=seen.is_first,
        key=key,
        draw=draw and partial(draw, cast(Array, seen.state)),
    )
    return jax.tree.map(lambda a, b: jnp.where(seen.waiting, a, b), after, memory)
