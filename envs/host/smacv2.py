"""SMACv2, through oxwhirl's `smacv2`: teams and start positions are drawn anew every episode."""

from __future__ import annotations

from typing import Any

from .game import Game
from .smac import Battle, installed

# smacv2/examples/configs/sc2_gen_<race>.yaml: units, their weights, those that may not be alone.
RACES: dict[str, dict[str, list[Any]]] = {
    "terran": {
        "unit_types": ["marine", "marauder", "medivac"],
        "weights": [0.45, 0.45, 0.1],
        "exception_unit_types": ["medivac"],
    },
    "protoss": {
        "unit_types": ["stalker", "zealot", "colossus"],
        "weights": [0.45, 0.45, 0.1],
    },
    "zerg": {
        "unit_types": ["zergling", "baneling", "hydralisk"],
        "weights": [0.45, 0.1, 0.45],
        "exception_unit_types": ["baneling"],
    },
}
# What those files set beside the defaults of StarCraft2Env.
SETTINGS: dict[str, Any] = {
    "obs_own_pos": True,
    "use_unit_ranges": True,
    "min_attack_range": 2,
    "conic_fov": False,
    "num_fov_actions": 12,
    "prob_obs_enemy": 1.0,
    "action_mask": True,
}


def make(seed: int, *, race: str, n_units: int, n_enemies: int, **options: Any) -> Game:
    """A battle of random teams; options are those of SMACv2's StarCraft2Env.

    Raises:
      Missing: smacv2 or StarCraft II is not there.
      ValueError: an unknown race.
    """
    wrapper = installed("smacv2", "smacv2.env.starcraft2.wrapper")
    if race not in RACES:
        raise ValueError(f"env.race={race!r} is unknown; choose one of {', '.join(RACES)}")
    capabilities = {
        "n_units": n_units,
        "n_enemies": n_enemies,
        "team_gen": {"dist_type": "weighted_teams", "observe": True, **RACES[race]},
        "start_positions": {
            "dist_type": "surrounded_and_reflect",
            "p": 0.5,
            "map_x": 32,
            "map_y": 32,
        },
    }
    env = wrapper.StarCraftCapabilityEnvWrapper(
        capability_config=capabilities,
        map_name=f"10gen_{race}",
        seed=seed,
        continuing_episode=True,  # only then does a time-out differ from an end
        **{**SETTINGS, **options},
    )
    return Battle(env)  # its reset may return nothing: Battle asks for what it shows
