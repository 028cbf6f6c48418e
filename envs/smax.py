"""SMAX, JaxMARL's StarCraft-like battles against its heuristic enemy."""

from __future__ import annotations

import difflib
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.envs import smax_render
from jaxvff.envs.jaxmarl import quiet_import
from jaxvff.envs.smax_physics import Physics
from jaxvff.types import Array, Codec, Env, EnvSpec, Outcome, Segment, UserError, View

quiet_import()
from jaxmarl.environments.smax import HeuristicEnemySMAX, Scenario, register_scenario, smax_env

STALKER, ZEALOT, ZERGLING = 2, 3, 4  # JaxMARL's unit types
# The paper's third map, which JaxMARL lacks: 6 zealots against 24 zerglings, as in SMAC.
CORRIDOR = np.array([ZEALOT] * 6 + [ZERGLING] * 24, np.uint8)
register_scenario("corridor", Scenario(jnp.asarray(CORRIDOR), 6, 24, False, False))

DEFAULT_LIMIT = 100  # env steps, JaxMARL's on every map
# Env steps, of the maps that SMAC or SMACv2 has: smac/env/starcraft2/maps/smac_maps.py (v1.0.0)
# and smacv2/env/starcraft2/maps/smac_maps.py.
SMAC_LIMITS = {
    "3m": 60, "8m": 120, "25m": 150, "5m_vs_6m": 70, "10m_vs_11m": 150, "27m_vs_30m": 180,
    "2s3z": 120, "3s5z": 150, "3s5z_vs_3s6z": 170, "3s_vs_5z": 250, "6h_vs_8z": 150,
    "corridor": 400, "smacv2_5_units": 200, "smacv2_10_units": 200, "smacv2_20_units": 200,
}  # fmt: skip
OWN, OTHER = 4, 7  # features of a unit of its own and of another unit, before the type bits


class Battle(NamedTuple):
    """The state of a battle: JaxMARL's, and what its heuristic remembers."""

    smax: Any
    enemy: Any
    last: Array  # [n] int, the previous actions of all units


class Units(NamedTuple):
    """What observations are made of; n units, allies first."""

    health: Array  # [n] share of the full health; 0 if dead, like all that follows
    position: Array  # [n, 2] map units
    cooldown: Array  # [n] seconds
    ready: Array  # [n] share of the full cooldown that is left, within [0, 1]
    type: Array  # [n] int
    last: Array  # [n] int, the previous action: 0-3 a move, 4 stop, then the target


def make(
    *,
    map: str = "3m",
    time_limit: int | str = DEFAULT_LIMIT,
    reward_scale: float = 1.0,
    scale_state: bool = True,
    compact: bool = True,
) -> Env:
    """A battle on a map of SMAX.

    The reward is JaxMARL's: the enemy health that a step took, as a share of all of it, and 1 for
    a victory. Episodes end as win_rate, loss_rate, draw_rate (nobody is left) or timeout_rate.

    Args:
      map: JaxMARL's name of the scenario, or "corridor".
      time_limit: env steps, or "smac" for SMAC's limit of the map.
      reward_scale: factor on all rewards.
      scale_state: show positions and cooldowns in the world state as in the observations, within
        [0, 1]; False: JaxMARL's map units and seconds, up to 32.
      compact: store in replay what units are and do instead of what every agent sees of them, and
        rebuild observations, bit for bit, when they are sampled.

    Raises:
      UserError: an unknown map, or a limit or scale out of range.
    """
    scenarios = smax_env.MAP_NAME_TO_SCENARIO
    if map not in scenarios:
        near = difflib.get_close_matches(str(map), scenarios, n=3, cutoff=0.4)
        raise UserError(f"env.map={map!r} is unknown; choose one of {', '.join(near or scenarios)}")
    limit = SMAC_LIMITS[map] if time_limit == "smac" else time_limit
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise UserError(f"env.time_limit={time_limit!r} must be a number of env steps, or smac")
    if isinstance(reward_scale, bool) or not isinstance(reward_scale, int | float):
        raise UserError(f"env.reward_scale={reward_scale!r} must be a number, such as 1 or 10")
    if not 0 < reward_scale < np.inf:
        raise UserError(f"env.reward_scale={reward_scale} must be above 0 and finite")
    game = HeuristicEnemySMAX(scenario=scenarios[map], max_steps=limit)
    return _env(game, map, limit, float(reward_scale), scale_state, compact)


def _env(
    game: Any, name: str, limit: int, reward_scale: float, scale_state: bool, compact: bool
) -> Env:
    show = Observer(game, scale_state)
    a, smax, physics = show.n_allies, game._env, Physics(game._env)
    spec = EnvSpec(
        n_agents=a,
        n_actions=smax.num_ally_actions,
        obs_size=smax.obs_size,
        state_size=smax.state_size,
        episode_limit=limit,
        agent_state_size=OWN + show.n_types,
    )

    def reset(key: Array, params: Any) -> Battle:
        state = game.reset(key)[1]
        return Battle(state.state, state.enemy_policy_state, jnp.full(show.n, show.stops - 1))

    def step(key: Array, battle: Battle, action: Array, params: Any) -> tuple[Battle, Outcome]:
        # As HeuristicEnemySMAX.step_env does it, with the same keys, so that both agree; but every
        # observation is computed once: XLA merges this one with that of `observe`.
        seen = show.obs(show.units(battle), show.visible(battle.smax))[a:]
        key, enemy_key = jax.random.split(key)
        keys = jax.random.split(enemy_key, show.n - a)
        targets, memory = jax.vmap(game.heuristic_policy)(keys, battle.enemy, seen)
        joint = jnp.concatenate([action, targets.astype(jnp.int32)])
        after = physics.step(key, battle.smax, joint)
        full = smax.unit_type_health[after.unit_types]
        taken = (after.unit_health - battle.smax.unit_health) / full
        lost, won = ~jnp.any(after.unit_alive[:a]), ~jnp.any(after.unit_alive[a:])
        over = after.step >= limit
        results = {
            "win_rate": won & ~lost,
            "loss_rate": lost & ~won,
            "draw_rate": won & lost,
            "timeout_rate": over & ~won & ~lost,
        }
        outcome = Outcome(
            reward=reward_scale * (jnp.abs(jnp.sum(taken[a:])) / (show.n - a) + (won & ~lost)),
            terminated=won | lost,
            truncated=over & ~won & ~lost,
            results={k: v.astype(jnp.float32) for k, v in results.items()},
        )
        return Battle(after, memory, joint), outcome

    def observe(battle: Battle, params: Any) -> View:
        units = show.units(battle)
        obs = show.obs(units, show.visible(battle.smax))[:a]
        return View(obs, show.world(units), show.avail(battle.smax))

    signature = ("smax", name, limit, reward_scale, scale_state, compact)
    codec = show.codec(spec.n_actions) if compact else None
    return Env(spec, (), reset, step, observe, signature, codec, partial(smax_render.render, smax))


class Observer:
    """Observations of SMAX as dense array operations; the same numbers as JaxMARL's.

    JaxMARL scatters one feature at a time, for one pair of units at a time. Here all pairs are one
    gather with constant indices, which compiles and runs in a fraction of the time.

    Shares are products with reciprocals, where JaxMARL divides: XLA divides by a number that it
    knows in another way, and replay has to rebuild what a rollout saw, bit for bit.
    """

    def __init__(self, game: Any, scale_state: bool) -> None:
        """Tables of the units and of who is seen where."""
        smax = game._env
        self.n, self.n_allies, self.n_types = smax.num_agents, smax.num_allies, smax.unit_type_bits
        self.smax, self.scale_state = smax, scale_state
        self.size = np.array([smax.map_width, smax.map_height], np.float32)
        self.stops = smax.num_movement_actions  # action ids from here on are attacks
        self.moves = smax._decode_discrete_actions(jnp.arange(self.stops))[0]
        self.random_types = smax.smacv2_unit_type_generation
        self.types = np.asarray(smax.scenario)  # where they are not drawn anew
        # Unit i sees the others in order, allies first; a unit of team 1 counts from the end.
        ahead = np.array([[j for j in range(self.n) if j != i] for i in range(self.n)])
        self.others = np.where(np.arange(self.n)[:, None] < self.n_allies, ahead, ahead[:, ::-1])
        # The largest action id of a unit, which scales how its target is shown.
        of_team = np.array([smax.num_ally_actions - 1, smax.num_enemy_actions - 1], np.float32)
        self.last_action = np.repeat(of_team, [self.n_allies, self.n - self.n_allies])
        self.per_sight = 1 / np.asarray(smax.unit_type_sight_ranges)
        self.per_cooldown = 1 / np.asarray(smax.unit_type_weapon_cooldowns)

    def units(self, battle: Battle) -> Units:
        """What there is to see of the units."""
        state, alive = battle.smax, battle.smax.unit_alive
        types = state.unit_types
        full = self.smax.unit_type_health[types]
        return Units(
            health=jnp.where(alive, state.unit_health / full, 0.0),
            position=jnp.where(alive[:, None], state.unit_positions, 0.0),
            cooldown=jnp.where(alive, state.unit_weapon_cooldowns, 0.0),
            ready=jnp.where(alive, self.ready(state.unit_weapon_cooldowns, types), 0.0),
            type=types.astype(jnp.int32),
            last=battle.last,
        )

    def visible(self, state: Any) -> Array:
        """`[n, n-1]` bool: unit i sees the k-th of the others."""
        alive, position = state.unit_alive, state.unit_positions
        offset = position[self.others] - position[:, None]
        sight = self.smax.unit_type_sight_ranges[state.unit_types]
        near = jnp.linalg.norm(offset, axis=-1) < sight[:, None]
        return near & alive[:, None] & alive[self.others]

    def obs(self, units: Units, visible: Array) -> Array:
        """`[m, O]` for the first m units, as many as `visible[m, n-1]` has rows."""
        m = len(visible)
        others = self.others[:m]
        attack = jnp.where(units.last >= self.stops, units.last, 0) * (1 / self.last_action)
        moved = self.moves[jnp.minimum(units.last, self.stops - 1)]
        bits = jax.nn.one_hot(units.type, self.n_types)
        per_sight = jnp.asarray(self.per_sight)[units.type][:m, None, None]
        offset = (units.position[others] - units.position[:m, None]) * per_sight
        shared = jnp.concatenate([moved, attack[:, None], units.ready[:, None], bits], axis=-1)
        other = jnp.concatenate([units.health[others][..., None], offset, shared[others]], axis=-1)
        other = jnp.where(visible[..., None], other, 0.0)
        alive = (units.health > 0)[:m, None]
        own = jnp.concatenate(
            [units.health[:, None], units.position / self.size, units.ready[:, None], bits], axis=-1
        )[:m]
        return jnp.concatenate([other.reshape(m, -1), jnp.where(alive, own, 0.0)], axis=-1)

    def ready(self, cooldown: Array, types: Array) -> Array:
        """The share of the full cooldown that is left."""
        return jnp.clip(cooldown * jnp.asarray(self.per_cooldown)[types], 0.0, 1.0)

    def world(self, units: Units) -> Array:
        """The world state `[S]`: features of all units, their teams, their types."""
        bits = jax.nn.one_hot(units.type, self.n_types)
        position, cooldown = units.position, units.cooldown
        if self.scale_state:
            position, cooldown = position / self.size, units.ready
        features = jnp.concatenate(
            [units.health[:, None], position, cooldown[:, None], bits], axis=-1
        )
        features = jnp.where((units.health > 0)[:, None], features, 0.0)
        teams = np.float32(np.arange(self.n) >= self.n_allies)
        return jnp.concatenate([features.reshape(-1), teams, units.type.astype(jnp.float32)])

    def avail(self, state: Any) -> Array:
        """`[A, U]` bool: the dead stop, the living may stop, move, and shoot what is in range."""
        a, alive, position = self.n_allies, state.unit_alive, state.unit_positions
        distance = jnp.linalg.norm(position[None, a:] - position[:a, None], axis=-1)
        reach = self.smax.unit_type_attack_ranges[state.unit_types[:a]]
        moves = jnp.broadcast_to(alive[:a, None], (a, self.stops - 1))
        shoot = (distance < reach[:, None]) & alive[None, a:] & alive[:a, None]
        return jnp.concatenate([moves, jnp.ones((a, 1), bool), shoot], axis=-1)

    def codec(self, n_actions: int) -> Codec:
        """Four numbers a unit, the enemies' actions, and bits for what is visible and available."""
        a, n = self.n_allies, self.n
        of_unit = OWN + self.n_types
        seen_at = a - 1 + np.arange(n - a)  # where an ally sees the enemies

        def pack(s: Segment) -> dict[str, Array]:
            numbers = s.state[:, : n * of_unit].reshape(-1, n, of_unit)[..., :OWN]
            other = s.obs[..., : (n - 1) * (OTHER + self.n_types)].reshape(-1, a, n - 1, OTHER + 6)
            visible = other[..., 0] > 0
            enemy = other[:, :, seen_at]  # [T, A, E, features]
            # Whoever sees an enemy sees the same action; zeros where nobody does.
            witness = jnp.argmax(visible[:, :, seen_at], axis=1)[:, None, :, None]
            act = jnp.take_along_axis(enemy, witness, axis=1)[:, 0, :, 3:6]
            target = jnp.round(act[..., 2] * self.last_action[-1])
            moved = jnp.argmax(act[..., :2] @ self.moves[:4].T, axis=-1)
            still = ~jnp.any(act[..., :2] != 0, axis=-1)
            last = jnp.where(target > 0, target, jnp.where(still, self.stops - 1, moved))
            flags = jnp.stack([s.terminated, s.is_first, s.mask], axis=-1)
            stored = {
                "numbers": numbers,
                "enemy": last.astype(jnp.uint8),
                "action": s.action.astype(jnp.uint8),
                "reward": s.reward,
                "visible": _to_bits(visible.reshape(len(visible), -1)),
                "avail": _to_bits(s.avail.reshape(len(visible), -1)),
                "flags": _to_bits(flags),
            }
            if self.random_types:
                stored["type"] = s.state[:, -n:].astype(jnp.uint8)
            return stored

        def unpack(x: dict[str, Array], params: Any) -> Segment:
            t = len(x["reward"])
            terminated, is_first, mask = _from_bits(x["flags"], 3).T
            action = x["action"].astype(jnp.int32)
            before = jnp.concatenate([jnp.full((1, a), self.stops - 1), action[:-1]])
            before = jnp.where(is_first[:, None], self.stops - 1, before)
            types = x["type"] if self.random_types else jnp.tile(self.types, (t, 1))
            health, position, cooldown = jnp.split(x["numbers"], (1, 3), axis=-1)
            health, cooldown = health[..., 0], cooldown[..., 0]
            if self.scale_state:  # the sides of the map are powers of two: no bit is lost
                position, ready = position * self.size, cooldown
            else:
                ready = self.ready(cooldown, types)
            units = Units(
                health=health,
                position=position,
                cooldown=cooldown,
                ready=ready,
                type=types.astype(jnp.int32),
                last=jnp.concatenate([before, x["enemy"].astype(jnp.int32)], axis=-1),
            )
            visible = _from_bits(x["visible"], a * (n - 1)).reshape(t, a, n - 1)
            return Segment(
                obs=jax.vmap(self.obs)(units, visible),
                state=jax.vmap(self.world)(units),
                avail=_from_bits(x["avail"], a * n_actions).reshape(t, a, n_actions),
                action=action,
                reward=x["reward"],
                terminated=terminated,
                is_first=is_first,
                mask=mask,
            )

        return Codec(pack, unpack)


def _to_bits(x: Array) -> Array:
    """`[T, k]` bool -> `[T, ceil(k / 8)]` uint8."""
    return jnp.packbits(x, axis=-1)


def _from_bits(x: Array, k: int) -> Array:
    """`[T, ceil(k / 8)]` uint8 -> `[T, k]` bool."""
    return jnp.unpackbits(x, axis=-1, count=k).astype(bool)
