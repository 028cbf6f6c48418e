"""Predator-prey with a penalty for hunting alone: grid worlds of relative overgeneralisation."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.envs.checks import whole
from jaxvff.types import Array, Codec, Env, EnvSpec, Outcome, Segment, UserError, View

# Actions, in the reference's order: right, down, left and up, then these.
STAY, CATCH, N_ACTIONS = 4, 5, 6
CATCHERS = 2  # predators that a capture takes
REWARD = 10.0  # of a capture
GONE = -1  # the cell of whoever left the game
MAX_SIZE = 100


class Field(NamedTuple):
    """Who is where. Cells are numbers of a Board."""

    predators: Array  # [A] int, a cell or GONE
    prey: Array  # [P] int, a cell or GONE
    time: Array  # [] int, env steps so far


def make(
    *,
    n_agents: int = 8,
    n_prey: int = 8,
    size: int = 10,
    radius: int = 2,
    penalty: float = 0.0,
    time_limit: int = 200,
) -> Env:
    """Predators hunt prey that walks at random; it takes two of them to catch one.

    A step goes as in the reference. The predators move one after the other, in random order, to
    where nobody is. Then it is every prey's turn, again in random order: if two or more predators
    next to it chose to catch, they and the prey leave the game, for a reward of 10; if one did,
    the penalty is due; a prey that was not caught moves to a free cell next to it, if there is
    one. Predators see the square around them (predators, then prey, 0 or 1 per cell), and nothing
    after they left; the state is the whole board in the same form. All of it is bounded by walls.

    Episodes end when no prey or no predator is left, or, truncated, at the time limit. A capture
    costs two predators, so that 8 of them catch 4 prey at most, for a return of 40: `caught` is the
    share of the prey that can be caught at all, and `win_rate` counts episodes where it is 1.

    Differs from the reference: no channel for hares and no walls seen, because its task has no
    hares and shows no walls; and what ends at the limit with the last capture is terminated.

    Args:
      n_agents: predators.
      n_prey: prey.
      size: cells along a side of the board.
      radius: cells that a predator sees in each direction; 2 is a square of 5 x 5.
      penalty: reward of a prey that a single predator tries to catch, 0 or below. It is traced.
      time_limit: env steps.

    Returns:
      An Env whose `params` are the penalty `[]`.

    Raises:
      UserError: a number out of range, or a board too small for everybody.

    Source: Boehmer et al. (2020), "Deep coordination graphs", and Rashid et al. (2020), section
    6.1; rules as in src/envs/stag_hunt/stag_hunt.py of WQMIX (commit 1d140d8). Son et al. (2019)
    have a relative of it, with other rewards.
    """
    whole("n_agents", n_agents, CATCHERS)
    whole("n_prey", n_prey, 1)
    whole("size", size, 2, MAX_SIZE)
    whole("radius", radius, 1, size)
    whole("time_limit", time_limit, 1)
    if isinstance(penalty, bool) or not isinstance(penalty, int | float):
        raise UserError(f"env.penalty={penalty!r} must be a number, 0 or below, such as -2")
    if not -np.inf < penalty <= 0:
        remedy = f"try {-penalty}" if 0 < penalty < np.inf else "try -2"
        raise UserError(f"env.penalty={penalty} must be finite and 0 or below; {remedy}")
    if n_agents + n_prey > size**2:
        raise UserError(
            f"env.size={size} has {size**2} cells for {n_agents} predators and {n_prey} prey; set "
            f"env.size={int(np.ceil(np.sqrt(n_agents + n_prey)))} or more"
        )
    return _env(n_agents, n_prey, Board(size, radius), time_limit, float(penalty))


class Board:
    """Cells as numbers, with a rim of walls that is as wide as predators see.

    A neighbour or a cell of somebody's window is then a constant away, and never out of bounds.
    """

    def __init__(self, size: int, radius: int) -> None:
        """Tables of cells."""
        self.size, self.radius = size, radius
        width = size + 2 * radius
        rows, columns = np.mgrid[:size, :size] + radius
        self.cells = (rows * width + columns).ravel()  # [size²] those within the walls
        self.inside = np.isin(np.arange(width**2), self.cells)  # [width²] bool
        self.beside = np.array([1, width, -1, -width])  # right, down, left, up
        self.stride = np.append(self.beside, [0, 0])  # [U] what an action moves
        reach = np.arange(-radius, radius + 1)
        self.window = (reach[:, None] * width + reach).ravel()  # [W] row by row

    def show(self, cells: Array, field: Field) -> Array:
        """`[..., 2]` float: is a predator, is a prey in each of `cells[...]`."""
        here = [jnp.any(cells[..., None] == who, axis=-1) for who in (field.predators, field.prey)]
        return jnp.stack(here, axis=-1).astype(jnp.float32)

    def move(self, field: Field, action: Array, order: Array) -> Field:
        """The predators' moves, one after the other in the `order[A]` of their numbers."""
        alive, me = field.predators != GONE, jnp.arange(len(action))
        target = field.predators + jnp.where(alive, jnp.asarray(self.stride)[action], 0)
        open_ = jnp.asarray(self.inside)[target] & ~jnp.any(target[:, None] == field.prey, axis=-1)

        def turn(predators: Array, i: Array) -> tuple[Array, None]:
            to = jnp.sum(jnp.where(me == i, target, 0))
            free = ~jnp.any(predators == to)  # whoever stays is in its own way
            return jnp.where((me == i) & open_ & free, to, predators), None

        return field._replace(predators=jax.lax.scan(turn, field.predators, order)[0])

    def hunt(
        self, field: Field, catching: Array, order: Array, luck: Array
    ) -> tuple[Field, Array, Array]:
        """The prey's turns: `(the field after them, captures [], lone attempts [])`.

        Args:
          field: after the predators' moves.
          catching: `[A]` bool, who tries to catch.
          order: `[P]` numbers of the prey.
          luck: `[P, 4]` at least 0; whose turn it is moves to the free cell with the most of it.
        """
        beside, inside = jnp.asarray(self.beside), jnp.asarray(self.inside)
        me = jnp.arange(len(order))

        def turn(field: Field, x: tuple[Array, Array]) -> tuple[Field, tuple[Array, Array]]:
            i, luck = x
            at = jnp.sum(jnp.where(me == i, field.prey, 0))
            here, near = at != GONE, at + beside
            catchers = catching & jnp.any(field.predators[:, None] == near, axis=-1) & here
            n = jnp.sum(catchers)
            caught = n >= CATCHERS
            taken = jnp.concatenate([field.predators, field.prey])
            free = inside[near] & ~jnp.any(near[:, None] == taken, axis=-1) & here
            goes = free & (jnp.arange(4) == jnp.argmax(jnp.where(free, luck, -1.0)))
            to = jnp.where(caught, GONE, at + jnp.sum(jnp.where(goes, beside, 0)))
            after = field._replace(
                predators=jnp.where(caught & catchers, GONE, field.predators),
                prey=jnp.where(me == i, to, field.prey),
            )
            return after, (caught, (n > 0) & ~caught)

        field, (caught, lone) = jax.lax.scan(turn, field, (order, luck))
        return field, jnp.sum(caught), jnp.sum(lone)


def _env(n_agents: int, n_prey: int, board: Board, limit: int, penalty: float) -> Env:
    spec = EnvSpec(
        n_agents=n_agents,
        n_actions=N_ACTIONS,
        obs_size=2 * len(board.window),
        state_size=2 * len(board.cells),
        episode_limit=limit,
    )
    most = min(n_prey, n_agents // CATCHERS)  # captures

    def reset(key: Array, params: Array) -> Field:
        _, places = jax.lax.top_k(jax.random.bits(key, board.cells.shape), n_agents + n_prey)
        cells = jnp.asarray(board.cells)[places]
        return Field(cells[:n_agents], cells[n_agents:], jnp.array(0, jnp.int32))

    def step(key: Array, field: Field, action: Array, params: Array) -> tuple[Field, Outcome]:
        predator_key, prey_key, luck_key = jax.random.split(key, 3)
        order = jax.random.permutation(predator_key, n_agents)
        field = board.move(field, action, order)
        order = jax.random.permutation(prey_key, n_prey)
        luck = jax.random.uniform(luck_key, (n_prey, 4))
        field, caught, lone = board.hunt(field, action == CATCH, order, luck)
        field = field._replace(time=field.time + 1)
        over = jnp.all(field.prey == GONE) | jnp.all(field.predators == GONE)
        total = jnp.sum(field.prey == GONE)
        return field, Outcome(
            reward=REWARD * caught + params * lone,
            terminated=over,
            truncated=(field.time >= limit) & ~over,
            results={
                "win_rate": (total == most).astype(jnp.float32),
                "caught": (total / most).astype(jnp.float32),
            },
        )

    def observe(field: Field, params: Array) -> View:
        at, alive = field.predators[:, None], (field.predators != GONE)[:, None]
        seen = board.show(at + board.window, field).reshape(n_agents, -1)
        near = at + board.beside
        prey_near = jnp.any(near[..., None] == field.prey, axis=(1, 2))[:, None]
        walks = jnp.asarray(board.inside)[near]  # as in the reference, somebody may be there
        stays = jnp.ones((n_agents, 1), bool)
        return View(
            obs=jnp.where(alive, seen, 0.0),
            state=board.show(jnp.asarray(board.cells), field).ravel(),
            avail=jnp.concatenate([walks & alive, stays, prey_near & alive], axis=-1),
        )

    signature = ("predator_prey", n_agents, n_prey, board.size, board.radius, limit)
    params = jnp.asarray(penalty, jnp.float32)
    return Env(spec, params, reset, step, observe, signature, _codec(spec))


def _codec(spec: EnvSpec) -> Codec:
    """Bits for observations, states and available actions, which are all 0 or 1."""
    shapes = {
        "obs": (spec.n_agents, spec.obs_size),
        "state": (spec.state_size,),
        "avail": (spec.n_agents, spec.n_actions),
    }
    flags = ("terminated", "is_first", "mask")

    def pack(s: Segment) -> dict[str, Array]:
        bits = {k: getattr(s, k).reshape(len(s.reward), -1) > 0 for k in shapes}
        bits["flags"] = jnp.stack([getattr(s, k) for k in flags], axis=-1)
        packed = {k: jnp.packbits(x, axis=-1) for k, x in bits.items()}
        return packed | {"action": s.action.astype(jnp.uint8), "reward": s.reward}

    def unpack(x: dict[str, Array], params: Array) -> Segment:
        t = len(x["reward"])
        count = {k: int(np.prod(shape)) for k, shape in shapes.items()} | {"flags": len(flags)}
        bits = {k: jnp.unpackbits(x[k], axis=-1, count=n) for k, n in count.items()}
        obs, state, avail = (bits[k].reshape(t, *shape) for k, shape in shapes.items())
        terminated, is_first, mask = bits["flags"].astype(bool).T
        return Segment(
            obs=obs.astype(jnp.float32),
            state=state.astype(jnp.float32),
            avail=avail.astype(bool),
            action=x["action"].astype(jnp.int32),
            reward=x["reward"],
            terminated=terminated,
            is_first=is_first,
            mask=mask,
        )

    return Codec(pack, unpack)
