"""SMAX, JaxMARL's StarCraft-like battles against its heuristic enemy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Env, EnvKind, EnvParams, EnvSpec, Outcome, View
from jaxvff.envs import smax_render
from jaxvff.envs.jaxmarl import import_alone
from jaxvff.envs.smax_codec import CompactCodec
from jaxvff.envs.smax_observer import OWN_FEATURES, Battle, Observer
from jaxvff.envs.smax_physics import Physics

import_alone("jaxmarl.environments.smax")
from jaxmarl.environments.smax import HeuristicEnemySMAX, Scenario, register_scenario, smax_env

STALKER, ZEALOT, ZERGLING = 2, 3, 4  # JaxMARL's unit types
# The paper's third map, which JaxMARL lacks: 6 zealots against 24 zerglings, as in SMAC.
CORRIDOR = np.array([ZEALOT] * 6 + [ZERGLING] * 24, np.uint8)
register_scenario("corridor", Scenario(jnp.asarray(CORRIDOR), 6, 24, False, False))

MAPS = tuple(smax_env.MAP_NAME_TO_SCENARIO)
DEFAULT_LIMIT = 100  # env steps, JaxMARL's on every map
# Env steps, of the maps that SMAC or SMACv2 has: smac/env/starcraft2/maps/smac_maps.py (v1.0.0)
# and smacv2/env/starcraft2/maps/smac_maps.py.
SMAC_LIMITS = {
    "3m": 60,
    "8m": 120,
    "25m": 150,
    "5m_vs_6m": 70,
    "10m_vs_11m": 150,
    "27m_vs_30m": 180,
    "2s3z": 120,
    "3s5z": 150,
    "3s5z_vs_3s6z": 170,
    "3s_vs_5z": 250,
    "6h_vs_8z": 150,
    "corridor": 400,
    "smacv2_5_units": 200,
    "smacv2_10_units": 200,
    "smacv2_20_units": 200,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which battle, how long it is, and how it is shown and stored."""

    map: str = option("3m", "JaxMARL's name of the scenario, or corridor", names=MAPS)
    time_limit: int | str = option(
        DEFAULT_LIMIT,
        "longest episode; smac: SMAC's limit of the map",
        unit="env steps",
        low=1,
    )
    reward_scale: float = option(1.0, "factor on all rewards", low=0, above=True)
    scale_state: bool = option(
        True,
        "show positions and cooldowns in the state as in the observations, within [0, 1]; "
        "false: JaxMARL's map units and seconds, up to 32",
    )
    compact: bool = option(
        True,
        "store in replay what units are and do instead of what every agent sees of them, and "
        "rebuild observations, bit for bit, when they are sampled",
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        if isinstance(self.time_limit, str) and self.time_limit != "smac":
            raise UserError(
                f"env.time_limit={self.time_limit!r} must be a number of env steps, or smac"
            )

    @property
    def limit(self) -> int:
        """The time limit in env steps."""
        return SMAC_LIMITS[self.map] if isinstance(self.time_limit, str) else self.time_limit


MOVES = ("north", "east", "south", "west", "stop")  # the first actions, see Observer.moves


def make(options: Options) -> Env:
    """A battle on a map of SMAX.

    The reward is JaxMARL's: the enemy health that a step took, as a share of all of it, and 1 for
    a victory. Episodes end as win_rate, loss_rate, draw_rate (no unit is left) or timeout_rate.
    """
    scenario = smax_env.MAP_NAME_TO_SCENARIO[options.map]
    return _env(HeuristicEnemySMAX(scenario=scenario, max_steps=options.limit), options)


KIND = EnvKind(Options, make)


def _env(game: HeuristicEnemySMAX, options: Options) -> Env:
    smax, limit = game._env, options.limit
    observer, physics = Observer(smax, options.scale_state), Physics(smax)
    n_units, n_allies, stop = observer.n_units, observer.n_allies, observer.stop
    reward_scale = float(options.reward_scale)
    spec = EnvSpec(
        n_agents=n_allies,
        n_actions=smax.num_ally_actions,
        obs_size=smax.obs_size,
        state_size=smax.state_size,
        episode_limit=limit,
        agent_state_size=OWN_FEATURES + observer.n_types,
    )

    def reset(key: Array, params: EnvParams) -> Battle:
        state = game.reset(key)[1]
        return Battle(state.state, state.enemy_policy_state, jnp.full(n_units, stop))

    def step(
        key: Array, battle: Battle, action: Array, params: EnvParams
    ) -> tuple[Battle, Outcome]:
        # As HeuristicEnemySMAX.step_env does it, with the same keys, so that both agree. The
        # observations of all units cost little here: XLA shares them with those of `observe`.
        views = observer.obs(observer.units(battle), observer.visible(battle.smax))
        enemy_obs = views[n_allies:]
        key, enemy_key = jax.random.split(key)
        keys = jax.random.split(enemy_key, n_units - n_allies)
        enemy_action, memory = jax.vmap(game.heuristic_policy)(keys, battle.enemy, enemy_obs)
        joint = jnp.concatenate([action, enemy_action.astype(jnp.int32)])
        after = physics.step(key, battle.smax, joint)
        full = smax.unit_type_health[after.unit_types]
        gained = (after.unit_health - battle.smax.unit_health) / full  # [n] shares, 0 or below
        lost, won = ~jnp.any(after.unit_alive[:n_allies]), ~jnp.any(after.unit_alive[n_allies:])
        over = after.step >= limit
        results = {
            "win_rate": won & ~lost,
            "loss_rate": lost & ~won,
            "draw_rate": won & lost,
            "timeout_rate": over & ~won & ~lost,
        }
        damage = jnp.abs(jnp.sum(gained[n_allies:])) / (n_units - n_allies)
        outcome = Outcome(
            reward=reward_scale * (damage + (won & ~lost)),
            terminated=won | lost,
            truncated=over & ~won & ~lost,
            results={k: v.astype(jnp.float32) for k, v in results.items()},
        )
        return Battle(after, memory, joint), outcome

    def observe(battle: Battle, params: EnvParams) -> View:
        units = observer.units(battle)
        obs = observer.obs(units, observer.visible(battle.smax))[:n_allies]
        return View(obs, observer.state(units), observer.avail(battle.smax))

    signature = (
        "smax",
        options.map,
        limit,
        reward_scale,
        options.scale_state,
        options.compact,
    )
    return Env(
        spec=spec,
        params=(),
        reset=reset,
        step=step,
        observe=observe,
        signature=signature,
        codec=CompactCodec(observer, spec.n_actions).codec() if options.compact else None,
        render=partial(smax_render.render, smax),
        action_names=(*MOVES, *(f"shoot enemy {i}" for i in range(n_units - n_allies))),
        obs_parts=observer.parts(),
    )
