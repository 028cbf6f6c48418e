"""Level-based foraging: agents with levels collect food that may be too heavy for one of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Env, EnvKind, EnvSpec, Outcome, View

# Actions, in the reference's order: nothing, north, south, west, east, load.
NONE, LOAD, N_ACTIONS = 0, 5, 6
ACTIONS = ("nothing", "north", "south", "west", "east", "load")
MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1), (0, 0)])  # [U, 2] rows, columns
HEAVIEST = 3  # no food is heavier than the levels of so many agents together
UNSEEN = -1.0  # both coordinates, in an observation, of what is out of sight


@dataclass(frozen=True, kw_only=True)
class Options:
    """The board, who is on it, and what a failed attempt costs."""

    n_agents: int = option(2, "agents", low=1, high=100)
    n_food: int = option(2, "pieces of food", low=1, high=100)
    size: int = option(8, "length of a side of the board", unit="cells", low=3, high=100)
    sight: int | None = option(
        None, "how far an agent sees in each direction; null: everything", unit="cells", low=1
    )
    max_level: int = option(2, "largest level of an agent; levels are drawn from 1 on", low=1)
    force_coop: bool = option(
        False, "every piece of food needs the levels of all agents, of three at most"
    )
    penalty: float = option(
        0.0,
        "what each agent loses that loads food too heavy for those who do",
        unit="env units",
        low=0,
        traced=True,
    )
    time_limit: int = option(50, "longest episode", unit="env steps", low=1)

    def __post_init__(self) -> None:
        check(self, "env.")
        room = (self.size - 2) ** 2
        if self.n_agents >= room:
            raise UserError(
                f"env.n_agents={self.n_agents} leave no place for food, which lies within the rim "
                f"of the board: env.size={self.size} has {room} such cells; raise env.size"
            )


class Field(NamedTuple):
    """Where everything is. Places are rows and columns."""

    agents: Array  # [A, 2] int
    level: Array  # [A] int, of the agents
    food: Array  # [F, 2] int, row by row
    weight: Array  # [F] int, the level that a piece needs; 0: it is gone
    spawned: Array  # [] int, the sum of the weights at the start
    time: Array  # [] int, env steps so far


def make(options: Options) -> Env:
    """Agents collect food; a piece needs agents beside it that load at once, with levels enough.

    A step goes as in the reference:
      1. Moves off the board or onto food fail, and so do those of all agents that would end in
         the same cell.
      2. A piece of food is collected if the levels of the agents beside it that load add up to its
         own. The team is rewarded with its share of all food of the episode, so that the largest
         return is 1. Where they do not, every one of these agents loses the penalty.

    An agent observes places and levels of the food, then its own, then those of the others, as far
    as it sees; what is gone or out of sight is (-1, -1, 0). The state is the same for the whole
    board. All actions are available, as in EPyMARL; one that makes no sense does nothing.

    Episodes end when all food is gone or, truncated, at the time limit. The result `eaten` is the
    share of the food that was collected; `win_rate` counts the episodes in which it is 1.

    Differs from the reference: rewards are summed over the agents, as in EPyMARL; a time-out
    truncates; places are drawn from those that are allowed instead of redrawn until one is. Where
    none is left, an episode has fewer pieces of food, as in the reference.

    Returns:
      An Env whose `params` are the penalty `[]`, in env units.

    Source: Christianos et al. (2020), Papoudakis et al. (2021); lbforaging 2.0.0,
    lbforaging/foraging/environment.py.
    """
    n, f = options.n_agents, options.n_food
    spec = EnvSpec(
        n_agents=n,
        n_actions=N_ACTIONS,
        obs_size=3 * (f + n),
        state_size=3 * (f + n),
        episode_limit=options.time_limit,
    )
    cells = np.argwhere(np.ones((options.size, options.size)))
    rules = _Rules(options, cells)

    def step(key: Array, field: Field, action: Array, params: Array) -> tuple[Field, Outcome]:
        field, reward = rules.load(rules.move(field, action), action, params)
        field = field._replace(time=field.time + 1)
        over = jnp.all(field.weight == 0)
        eaten = 1 - jnp.sum(field.weight) / field.spawned
        return field, Outcome(
            reward=reward,
            terminated=over,
            truncated=(field.time >= options.time_limit) & ~over,
            results={"win_rate": over.astype(jnp.float32), "eaten": eaten},
        )

    return Env(
        spec=spec,
        params=jnp.asarray(float(options.penalty), jnp.float32),
        reset=rules.reset,
        step=step,
        observe=rules.observe,
        signature=dataclasses.replace(options, penalty=0.0),
        action_names=ACTIONS,
        obs_parts=(
            *((f"food {i}: row, column, level", 3) for i in range(f)),
            ("itself: row, column, level", 3),
            *((f"other {i}: row, column, level", 3) for i in range(n - 1)),
        ),
    )


KIND = EnvKind(Options, make)


class _Rules(NamedTuple):
    """The rules on a board; methods are pure functions of a Field."""

    options: Options
    cells: np.ndarray  # [size², 2] all places, row by row

    def reset(self, key: Array, params: Array) -> Field:
        """Agents, then food, each in a random place of those that are left."""
        n, f, size = self.options.n_agents, self.options.n_food, self.options.size
        place_key, level_key, food_key, weight_key = jax.random.split(key, 4)
        cells = jnp.asarray(self.cells)
        _, drawn = jax.lax.top_k(jax.random.bits(place_key, (len(self.cells),)), n)
        agents = cells[drawn]
        level = jax.random.randint(level_key, (n,), 1, self.options.max_level + 1)

        # Food, piece by piece: within the rim, and apart from each other.
        within = np.all((self.cells > 0) & (self.cells < size - 1), axis=-1)
        free = jnp.asarray(within) & ~_any_equal(cells, agents)

        def spawn(free: Array, key: Array) -> tuple[Array, tuple[Array, Array]]:
            bits = jax.random.uniform(key, free.shape)
            chosen = cells[jnp.argmax(jnp.where(free, bits, -1.0))]
            away = jnp.abs(cells - chosen)
            beside = jnp.max(away, axis=-1) <= 1
            two_off = (jnp.sum(away, axis=-1) <= 2) & (jnp.min(away, axis=-1) == 0)
            return free & ~beside & ~two_off, (chosen, jnp.any(free))

        _, (food, found) = jax.lax.scan(spawn, free, jax.random.split(food_key, f))
        heaviest = jnp.sum(jnp.sort(level)[:HEAVIEST])
        weight = jax.random.randint(weight_key, (f,), 1, heaviest + 1)
        weight = jnp.where(self.options.force_coop, heaviest, weight) * found
        order = jnp.argsort(food @ jnp.array([size, 1]))
        return Field(
            agents=agents,
            level=level,
            food=food[order],
            weight=weight[order],
            spawned=jnp.sum(weight),
            time=jnp.array(0, jnp.int32),
        )

    def move(self, field: Field, action: Array) -> Field:
        """The field after the agents' moves, all at once."""
        to = field.agents + jnp.asarray(MOVES)[action]
        inside = jnp.all((to >= 0) & (to < self.options.size), axis=-1)
        on_food = jnp.any(_equal(to, field.food) & (field.weight > 0), axis=-1)
        to = jnp.where((inside & ~on_food)[:, None], to, field.agents)
        alone = jnp.sum(_equal(to, to), axis=-1) == 1
        return field._replace(agents=jnp.where(alone[:, None], to, field.agents))

    def load(self, field: Field, action: Array, penalty: Array) -> tuple[Field, Array]:
        """The field after the agents' attempts to load, and the reward of the team `[]`."""
        away = jnp.sum(jnp.abs(field.agents[:, None] - field.food), axis=-1)  # [A, F]
        loads = (away == 1) & (action == LOAD)[:, None] & (field.weight > 0)
        levels = field.level @ loads  # [F]
        collected = (levels >= field.weight) & (field.weight > 0)
        failed = jnp.sum(loads & ~collected)
        share = jnp.sum(jnp.where(collected, field.weight, 0)) / field.spawned
        left = jnp.where(collected, 0, field.weight)
        return field._replace(weight=left), share - penalty * failed

    def observe(self, field: Field, params: Array) -> View:
        """What all agents see."""
        n, size = self.options.n_agents, self.options.size
        sight = size if self.options.sight is None else self.options.sight
        agent = jnp.arange(n)

        def seen_by(i: Array) -> Array:
            here = field.agents[i]
            corner = jnp.maximum(here - sight, 0)
            near = jnp.all(jnp.abs(field.food - here) <= sight, axis=-1)
            food = _listed(field.food - corner, field.weight, near & (field.weight > 0))
            # As in the reference: agents are seen up to 2 · sight from the corner, food is not.
            mates = field.agents - corner
            near = jnp.all((mates >= 0) & (mates <= 2 * sight), axis=-1)
            # The agent itself, then the others in order.
            order = jnp.where(agent == 0, i, jnp.where(agent <= i, agent - 1, agent))
            others = _listed(mates[order], field.level[order], near[order])
            return jnp.concatenate([food, others])

        food = _listed(field.food, field.weight, field.weight > 0)
        agents = _listed(field.agents, field.level, jnp.ones(n, bool))
        return View(
            obs=jax.vmap(seen_by)(agent),
            state=jnp.concatenate([food, agents]),
            avail=jnp.ones((n, N_ACTIONS), bool),
        )


def _listed(place: Array, level: Array, seen: Array) -> Array:
    """Place and level of what is seen, one after the other; then what is not, as (-1, -1, 0).

    Args:
      place: `[n, 2]`.
      level: `[n]`.
      seen: `[n]` bool.

    Returns:
      `[3 n]` float.
    """
    order = jnp.argsort(~seen)  # stable
    blank = jnp.array([UNSEEN, UNSEEN, 0.0])
    rows = jnp.concatenate([place, level[:, None]], axis=-1).astype(jnp.float32)
    return jnp.where(seen[:, None], rows, blank)[order].ravel()


def _equal(places: Array, others: Array) -> Array:
    """Whether places `[n, 2]` are the others `[m, 2]`: `[n, m]`."""
    return jnp.all(places[:, None] == others, axis=-1)


def _any_equal(places: Array, others: Array) -> Array:
    """Whether places `[n, 2]` are among the others `[m, 2]`: `[n]`."""
    return jnp.any(_equal(places, others), axis=-1)
