"""What agents observe in a battle of SMAX, its state and its available actions.

The numbers are JaxMARL's. JaxMARL scatters one feature at a time, for one pair of units at a time.
Here all pairs are one gather with constant indices, which compiles and runs in a fraction of the
time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.actions import pick
from jaxvff.core.types import Array, EnvState

if TYPE_CHECKING:
    from jaxmarl.environments.smax.smax_env import SMAX
    from jaxmarl.environments.smax.smax_env import State as SmaxState

# Features of a unit, before the bits of its type. Its own: health, position (2), cooldown. Of
# another unit: health, offset (2), last movement (2), last target, cooldown.
OWN_FEATURES, OTHER_FEATURES = 4, 7


class Battle(NamedTuple):
    """The state of a battle: JaxMARL's, and what its heuristic remembers."""

    smax: SmaxState
    enemy: EnvState
    last: Array  # [n] int, the previous actions of all units


class Units(NamedTuple):
    """What observations are made of; n units, allies first. A dead unit has zeros."""

    health: Array  # [n] share of the full health
    position: Array  # [n, 2] map units
    cooldown: Array  # [n] seconds
    ready: Array  # [n] share of the full cooldown that is left, within [0, 1]
    type: Array  # [n] int, also of the dead
    last: Array  # [n] int, the previous action, also of the dead: 0-3 a move, 4 stop, then targets


class Observer:
    """Observations of SMAX as dense array operations.

    Shares are products with reciprocals, where JaxMARL divides. XLA divides by a number that it
    knows when it compiles in another way than by one that it does not, and replay has to rebuild
    what a rollout saw, bit for bit.
    """

    def __init__(self, smax: SMAX, scale_state: bool) -> None:
        """Tables of the units, and of the order in which they see each other.

        Args:
          smax: JaxMARL's environment.
          scale_state: whether the state shows positions and cooldowns within [0, 1].
        """
        self.smax, self.scale_state = smax, scale_state
        self.n_units, self.n_allies = smax.num_agents, smax.num_allies
        self.n_types = smax.unit_type_bits
        self.map_size = np.array([smax.map_width, smax.map_height], np.float32)
        self.first_attack = smax.num_movement_actions  # action ids from here on are attacks
        self.stop = self.first_attack - 1  # action id
        self.moves = smax._decode_discrete_actions(jnp.arange(self.first_attack))[0]  # [5, 2]
        self.random_types = smax.smacv2_unit_type_generation
        self.fixed_types = np.asarray(smax.scenario)  # [n], where they are not drawn anew
        # [n, n-1]: a unit sees the others in order, allies first; a unit of team 1 backwards.
        n = self.n_units
        ahead = np.array([[j for j in range(n) if j != i] for i in range(n)])
        self.others = np.where(np.arange(n)[:, None] < self.n_allies, ahead, ahead[:, ::-1])
        # The largest action id of a unit: its target is shown as a share of it.
        of_team = np.array([smax.num_ally_actions - 1, smax.num_enemy_actions - 1], np.float32)
        self.last_action = np.repeat(of_team, [self.n_allies, n - self.n_allies])  # [n]
        self.per_sight = 1 / np.asarray(smax.unit_type_sight_ranges)  # [types] 1 / map units
        self.per_cooldown = 1 / np.asarray(smax.unit_type_weapon_cooldowns)  # [types] 1 / seconds

    def units(self, battle: Battle) -> Units:
        """What there is to see of the units."""
        state, alive = battle.smax, battle.smax.unit_alive
        types = state.unit_types
        full = pick(self.smax.unit_type_health, types)
        return Units(
            health=jnp.where(alive, state.unit_health / full, 0.0),
            position=jnp.where(alive[:, None], state.unit_positions, 0.0),
            cooldown=jnp.where(alive, state.unit_weapon_cooldowns, 0.0),
            ready=jnp.where(alive, self.ready(state.unit_weapon_cooldowns, types), 0.0),
            type=types.astype(jnp.int32),
            last=battle.last,
        )

    def visible(self, state: SmaxState) -> Array:
        """`[n, n-1]` bool: unit i sees the k-th of the others."""
        alive, position = state.unit_alive, state.unit_positions
        offset = position[self.others] - position[:, None]
        sight = pick(self.smax.unit_type_sight_ranges, state.unit_types)
        near = _length(offset) < sight[:, None]
        return near & alive[:, None] & alive[self.others]

    def obs(self, units: Units, visible: Array) -> Array:
        """What the first m units observe: the others one after the other, then themselves.

        Args:
          units: all n of them.
          visible: `[m, n-1]` bool, whom each of the m sees.

        Returns:
          `[m, O]`, zeros for the dead and for whom a unit does not see.
        """
        m = len(visible)
        others = self.others[:m]
        target = jnp.where(units.last >= self.first_attack, units.last, 0) * (1 / self.last_action)
        way = jnp.minimum(units.last, self.stop)
        moved = jnp.stack([pick(z, way) for z in self.moves.T], axis=-1)
        bits = jax.nn.one_hot(units.type, self.n_types)
        per_sight = pick(jnp.asarray(self.per_sight), units.type)[:m, None, None]
        offset = (units.position[others] - units.position[:m, None]) * per_sight
        shared = jnp.concatenate([moved, target[:, None], units.ready[:, None], bits], axis=-1)
        other = jnp.concatenate([units.health[others][..., None], offset, shared[others]], axis=-1)
        other = jnp.where(visible[..., None], other, 0.0)
        alive = (units.health > 0)[:m, None]
        parts = [units.health[:, None], units.position / self.map_size, units.ready[:, None], bits]
        own = jnp.concatenate(parts, axis=-1)[:m]
        return jnp.concatenate([other.reshape(m, -1), jnp.where(alive, own, 0.0)], axis=-1)

    def parts(self) -> tuple[tuple[str, int], ...]:
        """What an allied unit observes, in order, with sizes."""
        what = "health, offset x and y, last move x and y, target, cooldown, type"
        bits, allies, enemies = self.n_types, self.n_allies - 1, self.n_units - self.n_allies
        units = [f"other ally {i}" for i in range(allies)] + [f"enemy {i}" for i in range(enemies)]
        others = [(f"{unit}: {what}", OTHER_FEATURES + bits) for unit in units]
        return (*others, ("itself: health, x, y, cooldown, type", OWN_FEATURES + bits))

    def ready(self, cooldown: Array, types: Array) -> Array:
        """The share of the full cooldown that is left, of `cooldown[n]` seconds: `[n]`."""
        return jnp.clip(cooldown * pick(jnp.asarray(self.per_cooldown), types), 0.0, 1.0)

    def state(self, units: Units) -> Array:
        """The state `[S]`: features of all units, then their teams, then their types."""
        bits = jax.nn.one_hot(units.type, self.n_types)
        position, cooldown = units.position, units.cooldown
        if self.scale_state:
            position, cooldown = position / self.map_size, units.ready
        features = jnp.concatenate(
            [units.health[:, None], position, cooldown[:, None], bits], axis=-1
        )
        features = jnp.where((units.health > 0)[:, None], features, 0.0)
        teams = np.float32(np.arange(self.n_units) >= self.n_allies)
        return jnp.concatenate([features.reshape(-1), teams, units.type.astype(jnp.float32)])

    def avail(self, state: SmaxState) -> Array:
        """`[A, U]` bool: the dead stop; the living stop, move, and shoot whom they can reach."""
        a, alive, position = self.n_allies, state.unit_alive, state.unit_positions
        distance = _length(position[None, a:] - position[:a, None])
        reach = pick(self.smax.unit_type_attack_ranges, state.unit_types[:a])
        moves = jnp.broadcast_to(alive[:a, None], (a, self.stop))
        shoot = (distance < reach[:, None]) & alive[None, a:] & alive[:a, None]
        return jnp.concatenate([moves, jnp.ones((a, 1), bool), shoot], axis=-1)


def _length(offset: Array) -> Array:
    """The lengths of `offset[..., 2]`; no sum over an axis of two, which a TPU does slowly."""
    return jnp.sqrt(offset[..., 0] ** 2 + offset[..., 1] ** 2)
