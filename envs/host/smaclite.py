"""SMAClite, through uoe-agents' `smaclite`: SMAC's battles in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from .game import Game, Missing, Outcome, Spec, View

INSTALL = """{error}. Install it with
  pip install git+https://github.com/uoe-agents/smaclite.git
in an environment that env.python=<its python> may name (it pins Rtree 1.0.0)"""
RESULTS = ("win_rate", "loss_rate", "timeout_rate")


def make(seed: int, *, map: str, time_limit: int) -> Game:
    """A battle on a map of SMAClite's registry.

    Raises:
      Missing: smaclite is not there.
      ValueError: an unknown map.
    """
    try:
        import gymnasium
        import smaclite  # noqa: F401  (registers its maps)
    except ImportError as error:
        raise Missing(INSTALL.format(error=error)) from error
    # Ids in the registry are "smaclite/<map>-v0".
    known = [n.split("/")[1][:-3] for n in gymnasium.registry if n.startswith("smaclite/")]
    if map not in known:
        raise ValueError(f"env.map={map!r} is unknown; choose one of {', '.join(sorted(known))}")
    return Skirmish(gymnasium.make(f"smaclite/{map}-v0", seed=seed), time_limit)


class Skirmish(Game):
    """A battle of SMAClite, with the time limit that SMAClite lacks."""

    def __init__(self, env: Any, time_limit: int) -> None:
        self._env, self._limit = env.unwrapped, time_limit
        self.spec = Spec(
            n_agents=self._env.n_agents,
            n_actions=self._env.n_actions,
            obs_size=self._env.obs_size,
            state_size=self._env.state_size,
            episode_limit=time_limit,
            results=RESULTS,
        )

    def reset(self) -> View:
        """A new battle."""
        self._steps = 0
        obs, _ = self._env.reset()
        return self._view(obs)

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Let the team act; dead agents have no-op alone."""
        # SMAClite takes Python's own integers only, and never says `truncated`.
        obs, reward, done, _, info = self._env.step([int(a) for a in action])
        self._steps += 1
        won = bool(info["battle_won"])
        late = self._steps >= self._limit and not done
        results = {
            "win_rate": float(won),
            "loss_rate": float(done and not won),
            "timeout_rate": float(late),
        }
        return self._view(obs), Outcome(float(reward), bool(done), late, results)

    def close(self) -> None:
        """Close its window, if it has one."""
        self._env.close()

    def _view(self, obs: Any) -> View:
        avail = np.asarray(self._env.get_avail_actions(), bool)
        state = np.asarray(self._env.get_state(), np.float32)
        return View(np.asarray(obs, np.float32), state, avail)
