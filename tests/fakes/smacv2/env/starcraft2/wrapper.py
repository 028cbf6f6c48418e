"""A stand-in for oxwhirl's smacv2: the wrapper that draws teams, over the battles of fakes/smac."""

from __future__ import annotations

from smac.env import StarCraft2Env


class StarCraftCapabilityEnvWrapper:
    """As the real one: keyword arguments alone, and a `reset` that returns None when it retries."""

    KNOWN = (
        "map_name", "seed", "continuing_episode", "obs_own_pos", "use_unit_ranges",
        "min_attack_range", "conic_fov", "num_fov_actions", "prob_obs_enemy", "action_mask",
    )  # fmt: skip

    def __init__(self, **kwargs):
        self.config = kwargs.pop("capability_config")
        assert self.config["team_gen"]["dist_type"] == "weighted_teams"
        script = kwargs.pop("script", ("win",))
        unknown = set(kwargs) - set(self.KNOWN)
        assert not unknown, f"unexpected keyword arguments {unknown}"
        assert kwargs["map_name"].startswith("10gen_")
        self.env = StarCraft2Env("3m", kwargs["seed"], kwargs["continuing_episode"], script)

    def reset(self):
        self.env.reset()

    def __getattr__(self, name):
        return getattr(self.env, name)
