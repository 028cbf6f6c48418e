"""A stand-in for oxwhirl's smac, which keeps StarCraft2Env's contract and plays from a script.

Written from the behaviour of smac/env/starcraft2/starcraft2.py: constructor arguments, env info, what
`step` returns at a victory, a defeat, a time-out and after StarCraft II broke, assertions on actions
that are not available, no-op for the dead and for nobody else.
"""

from __future__ import annotations

import numpy as np

LIMITS = {"3m": 60, "3s_vs_5z": 250}
NO_OP, STOP = 0, 1


class StarCraft2Env:
    """`script` names what the episodes do, one after the other: win, loss, timeout, crash, nan."""

    def __init__(self, map_name="8m", seed=None, continuing_episode=False, script=("win",), length=4,
                 broken_reset=()):  # fmt: skip
        if map_name not in LIMITS:
            raise KeyError(map_name)
        self.n_agents, self.n_enemies = int(map_name[0]), 3
        self.n_actions = 6 + self.n_enemies
        self.episode_limit = LIMITS[map_name] if length is None else length
        self.continuing_episode, self._seed = continuing_episode, seed
        self.script, self.broken_reset = list(script), list(broken_reset)
        self.force_restarts, self._episode_count, self._launched = 0, -1, False
        self._generator = np.random.default_rng(seed)

    def get_env_info(self):
        return {
            "state_shape": 5, "obs_shape": 4, "n_actions": self.n_actions,
            "n_agents": self.n_agents, "episode_limit": self.episode_limit,
        }  # fmt: skip

    def reset(self):
        self._launched = True
        self._episode_count += 1
        self._episode_steps = 0
        if self._episode_count in self.broken_reset:
            self.full_restart()
        self.alive = np.ones(self.n_agents, bool)
        return self.get_obs(), self.get_state()

    def full_restart(self):
        self.force_restarts += 1

    def step(self, actions):
        assert self._launched and len(actions) == self.n_agents
        for agent, action in enumerate(actions):
            available = self.get_avail_agent_actions(agent)
            assert available[int(action)] == 1, f"Agent {agent} cannot perform action {action}"
        kind = self.script[self._episode_count % len(self.script)]
        if kind == "crash" and self._episode_steps == 1:
            self.full_restart()
            return 0, True, {}
        self._episode_steps += 1
        if self._episode_steps == 2:
            self.alive[0] = False  # the first agent dies in every battle
        info = {"battle_won": False, "dead_allies": int((~self.alive).sum()), "dead_enemies": 0}
        reward, terminated = 0.5, False
        if kind in ("win", "loss") and self._episode_steps == self.episode_limit - 1:
            terminated, info["battle_won"] = True, kind == "win"
            if kind == "win":
                reward, info["dead_enemies"] = reward + 10, self.n_enemies
        elif self._episode_steps >= self.episode_limit:
            terminated = True
            if self.continuing_episode:
                info["episode_limit"] = True
        if kind == "nan" and self._episode_steps == 2:
            reward = float("nan")
        return reward, terminated, info

    def get_obs(self):
        return [np.full(4, self._episode_steps + i / 10, np.float32) for i in range(self.n_agents)]

    def get_state(self):
        return np.arange(5, dtype=np.float32) + self._episode_steps

    def get_avail_agent_actions(self, agent):
        if not self.alive[agent]:
            return [1] + [0] * (self.n_actions - 1)
        available = [0] + [1] * (self.n_actions - 1)
        available[6 + agent % self.n_enemies] = 0  # out of range
        return available

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(i) for i in range(self.n_agents)]

    def close(self):
        self._launched = False
