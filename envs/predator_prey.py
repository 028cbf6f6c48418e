"""Predator-prey with a penalty for hunting alone: grid worlds of relative overgeneralisation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Codec, Env, EnvKind, EnvSpec, Outcome, Segment, View

# Actions, in the reference's order: 0 to 3 move right, down, left and up, then these.
STAY, CATCH, N_ACTIONS = 4, 5, 6
ACTIONS = ("right", "down", "left", "up", "stay", "catch")
CATCHERS = 2  # predators that it takes to capture a prey
REWARD = 10.0  # of a capture, env units
GONE = -1  # the cell of an animal that left the game
MAX_SIZE = 100  # cells along a side


@dataclass(frozen=True, kw_only=True)
class Options:
    """The board, who is on it, and what hunting alone costs."""

    n_agents: int = option(8, "predators", low=CATCHERS)
    n_prey: int = option(8, "prey", low=1)
    size: int = option(10, "length of a side of the board", unit="cells", low=2, high=MAX_SIZE)
    radius: int = option(
        2,
        "how far a predator sees in each direction; 2 is a square of 5 x 5; at most size",
        unit="cells",
        low=1,
    )
    penalty: float = option(
        0.0,
        "reward of a prey that a single predator tries to catch",
        unit="env units",
        high=0,
        traced=True,
    )
    time_limit: int = option(200, "longest episode", unit="env steps", low=1)

    def __post_init__(self) -> None:
        check(self, "env.")
        if self.radius > self.size:
            raise UserError(
                f"env.radius={self.radius} is out of range; expected a whole number of at most "
                f"env.size={self.size}"
            )
        n_animals = self.n_agents + self.n_prey
        if n_animals > self.size**2:
            raise UserError(
                f"env.size={self.size} has {self.size**2} cells for {self.n_agents} predators and "
                f"{self.n_prey} prey; set env.size={math.ceil(math.sqrt(n_animals))} or more"
            )


class Field(NamedTuple):
    """Where all animals are. Cells are numbers of a Board."""

    predators: Array  # [A] int, a cell or GONE
    prey: Array  # [P] int, a cell or GONE
    time: Array  # [] int, env steps so far


def make(options: Options) -> Env:
    """Predators hunt prey that walks at random; it takes two of them to catch one.

    A step goes as in the reference:
      1. The predators move one after the other, in random order. A move into a cell that is taken,
         or into a wall, fails.
      2. The prey have their turns one after the other, in random order. If two or more predators
         beside a prey chose to catch, they and the prey leave the game, for a reward of 10. If a
         single predator did, the penalty is due. A prey that was not caught then moves to a random
         free cell beside it, if there is one.

    A predator observes the square around it: per cell, whether a predator and whether a prey is
    there, 0 or 1. After it left the game it observes zeros. The state is the whole board in the
    same form.

    Episodes end when no prey or no predator is left, or, truncated, at the time limit. A capture
    costs two predators, so that 8 of them catch at most 4 prey, for a return of 40. The result
    `caught` is the share of the prey that can be caught at all; `win_rate` counts the episodes in
    which it is 1.

    Differs from the reference: no channels for hares and walls, because its task has no hares and
    shows no walls; an episode whose last capture is at the time limit is terminated, not truncated.

    Returns:
      An Env whose `params` are the penalty `[]`, in env units.

    Source: Boehmer et al. (2020), "Deep coordination graphs", and Rashid et al. (2020), section
    6.1; rules as in src/envs/stag_hunt/stag_hunt.py of WQMIX (commit 1d140d8). Son et al. (2019)
    have a relative of it, with other rewards.
    """
    board = Board(options.size, options.radius)
    spec = EnvSpec(
        n_agents=options.n_agents,
        n_actions=N_ACTIONS,
        obs_size=2 * len(board.window),
        state_size=2 * len(board.cells),
        episode_limit=options.time_limit,
    )
    return _env(spec, options.n_prey, board, float(options.penalty))


KIND = EnvKind(Options, make)


class Board:
    """Cells as numbers, with a rim of walls that is as wide as predators see.

    A neighbour of a cell, or a cell that is seen from it, is then a constant away and never out of
    bounds.
    """

    def __init__(self, size: int, radius: int) -> None:
        """Tables of cells.

        Args:
          size: cells along a side, the rim left out.
          radius: cells that a predator sees in each direction.
        """
        self.size, self.radius = size, radius
        width = size + 2 * radius
        rows, columns = np.mgrid[:size, :size] + radius
        self.cells = (rows * width + columns).ravel()  # [size²] those within the walls
        self.inside = np.isin(np.arange(width**2), self.cells)  # [width²] bool
        self.beside = np.array([1, width, -1, -width])  # [4] right, down, left, up
        self.stride = np.append(self.beside, [0, 0])  # [U] by how much an action moves
        reach = np.arange(-radius, radius + 1)
        self.window = (reach[:, None] * width + reach).ravel()  # [W] what is seen, row by row

    def show(self, cells: Array, field: Field) -> Array:
        """Whether a predator and whether a prey is in a cell: `cells[...]` -> `[..., 2]` float."""
        animals = (field.predators, field.prey)
        is_there = [jnp.any(cells[..., None] == cell, axis=-1) for cell in animals]
        return jnp.stack(is_there, axis=-1).astype(jnp.float32)

    def move(self, field: Field, action: Array, order: Array) -> Field:
        """The field after the predators' moves, one after the other.

        Args:
          field: before the moves.
          action: `[A]` int.
          order: `[A]` int, the predators in the order of their turns.
        """
        alive, number = field.predators != GONE, jnp.arange(len(action))
        target = field.predators + jnp.where(alive, jnp.asarray(self.stride)[action], 0)
        open_ = jnp.asarray(self.inside)[target] & ~jnp.any(target[:, None] == field.prey, axis=-1)

        def turn(predators: Array, i: Array) -> tuple[Array, None]:
            to = jnp.sum(jnp.where(number == i, target, 0))
            free = ~jnp.any(predators == to)  # a predator that stays is in its own way
            return jnp.where((number == i) & open_ & free, to, predators), None

        return field._replace(predators=jax.lax.scan(turn, field.predators, order)[0])

    def hunt(
        self, field: Field, catching: Array, order: Array, draws: Array
    ) -> tuple[Field, Array, Array]:
        """The prey's turns, one after the other.

        Args:
          field: after the predators' moves.
          catching: `[A]` bool, the predators that try to catch.
          order: `[P]` int, the prey in the order of their turns.
          draws: `[P, 4]` random numbers of at least 0, a row for each turn and one for each cell
            beside the prey. It moves to the free cell with the largest.

        Returns:
          `(the field after the turns, captures [] int, attempts of a single predator [] int)`.
        """
        beside, inside = jnp.asarray(self.beside), jnp.asarray(self.inside)
        number = jnp.arange(len(order))

        def turn(field: Field, x: tuple[Array, Array]) -> tuple[Field, tuple[Array, Array]]:
            i, draw = x
            at = jnp.sum(jnp.where(number == i, field.prey, 0))
            here, near = at != GONE, at + beside
            # Who tries to catch this prey?
            catchers = catching & jnp.any(field.predators[:, None] == near, axis=-1) & here
            n = jnp.sum(catchers)
            caught = n >= CATCHERS
            # Where does it go if it is not caught?
            taken = jnp.concatenate([field.predators, field.prey])
            free = inside[near] & ~jnp.any(near[:, None] == taken, axis=-1) & here
            goes = free & (jnp.arange(4) == jnp.argmax(jnp.where(free, draw, -1.0)))
            to = jnp.where(caught, GONE, at + jnp.sum(jnp.where(goes, beside, 0)))
            after = field._replace(
                predators=jnp.where(caught & catchers, GONE, field.predators),
                prey=jnp.where(number == i, to, field.prey),
            )
            return after, (caught, (n > 0) & ~caught)

        field, (caught, lone) = jax.lax.scan(turn, field, (order, draws))
        return field, jnp.sum(caught), jnp.sum(lone)


def _env(spec: EnvSpec, n_prey: int, board: Board, penalty: float) -> Env:
    n_agents, limit = spec.n_agents, spec.episode_limit
    most_captures = min(n_prey, n_agents // CATCHERS)

    def reset(key: Array, params: Array) -> Field:
        # The cells with the largest of random numbers: a draw without replacement.
        bits = jax.random.bits(key, board.cells.shape)
        _, drawn = jax.lax.top_k(bits, n_agents + n_prey)
        cells = jnp.asarray(board.cells)[drawn]
        return Field(cells[:n_agents], cells[n_agents:], time=jnp.array(0, jnp.int32))

    def step(key: Array, field: Field, action: Array, params: Array) -> tuple[Field, Outcome]:
        predator_key, prey_key, walk_key = jax.random.split(key, 3)
        order = jax.random.permutation(predator_key, n_agents)
        field = board.move(field, action, order)
        order = jax.random.permutation(prey_key, n_prey)
        draws = jax.random.uniform(walk_key, (n_prey, 4))
        field, caught, lone = board.hunt(field, action == CATCH, order, draws)
        field = field._replace(time=field.time + 1)
        over = jnp.all(field.prey == GONE) | jnp.all(field.predators == GONE)
        total = jnp.sum(field.prey == GONE)  # captures of the episode so far
        return field, Outcome(
            reward=REWARD * caught + params * lone,
            terminated=over,
            truncated=(field.time >= limit) & ~over,
            results={
                "win_rate": (total == most_captures).astype(jnp.float32),
                "caught": (total / most_captures).astype(jnp.float32),
            },
        )

    def observe(field: Field, params: Array) -> View:
        at, alive = field.predators[:, None], (field.predators != GONE)[:, None]
        seen = board.show(at + board.window, field).reshape(n_agents, -1)
        near = at + board.beside
        prey_near = jnp.any(near[..., None] == field.prey, axis=(1, 2))[:, None]
        walks = jnp.asarray(board.inside)[near]  # taken cells included, as in the reference
        stays = jnp.ones((n_agents, 1), bool)
        return View(
            obs=jnp.where(alive, seen, 0.0),
            state=board.show(jnp.asarray(board.cells), field).ravel(),
            avail=jnp.concatenate([walks & alive, stays, prey_near & alive], axis=-1),
        )

    return Env(
        spec=spec,
        params=jnp.asarray(penalty, jnp.float32),
        reset=reset,
        step=step,
        observe=observe,
        signature=("predator_prey", n_agents, n_prey, board.size, board.radius, limit),
        codec=_codec(spec),
        action_names=ACTIONS,
        obs_parts=(("cells around it, row by row: predator, prey", spec.obs_size),),
    )


def _codec(spec: EnvSpec) -> Codec:
    """Bits for observations, states and available actions, which are all 0 or 1."""
    shapes = {
        "obs": (spec.n_agents, spec.obs_size),
        "state": (spec.state_size,),
        "avail": (spec.n_agents, spec.n_actions),
    }
    flags = ("terminated", "is_first", "mask")

    def pack(segment: Segment) -> dict[str, Array]:
        n_slots = len(segment.reward)
        bits = {k: getattr(segment, k).reshape(n_slots, -1) > 0 for k in shapes}
        bits["flags"] = jnp.stack([getattr(segment, k) for k in flags], axis=-1)
        packed = {k: jnp.packbits(x, axis=-1) for k, x in bits.items()}
        return packed | {"action": segment.action.astype(jnp.uint8), "reward": segment.reward}

    def unpack(stored: dict[str, Array], params: Array) -> Segment:
        n_slots = len(stored["reward"])
        n_bits = {k: math.prod(shape) for k, shape in shapes.items()} | {"flags": len(flags)}
        bits = {k: jnp.unpackbits(stored[k], axis=-1, count=n) for k, n in n_bits.items()}
        obs, state, avail = (bits[k].reshape(n_slots, *shape) for k, shape in shapes.items())
        terminated, is_first, mask = bits["flags"].astype(bool).T
        return Segment(
            obs=obs.astype(jnp.float32),
            state=state.astype(jnp.float32),
            avail=avail.astype(bool),
            action=stored["action"].astype(jnp.int32),
            reward=stored["reward"],
            terminated=terminated,
            is_first=is_first,
            mask=mask,
        )

    return Codec(pack, unpack)
