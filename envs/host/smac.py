"""SMAC, through oxwhirl's `smac`, whose StarCraft2Env drives the real game."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from .game import Crashed, Game, Missing, Outcome, Spec, View

INSTALL = """{error}. SMAC needs StarCraft II (Linux package 4.10 of Blizzard's s2client-proto),
SC2PATH set to its folder, SMAC's maps in $SC2PATH/Maps/SMAC_Maps, and
  pip install git+https://github.com/oxwhirl/{name}.git
The project called "smac" on PyPI is something else. These packages pin old versions: they may live
in an environment of their own, named by env.python=<its python>"""
RESULTS = ("win_rate", "loss_rate", "timeout_rate", "dead_allies", "dead_enemies")


def make(seed: int, *, map_name: str, **options: Any) -> Game:
    """A battle on a map of SMAC's registry; options are StarCraft2Env's.

    Raises:
      Missing: smac or StarCraft II is not there.
    """
    smac = installed("smac", "smac.env")
    # continuing_episode: only then does a time-out differ from an end.
    env = smac.StarCraft2Env(map_name=map_name, seed=seed, continuing_episode=True, **options)
    return Battle(env)


def installed(name: str, module: str) -> ModuleType:
    """A module of a package that plays StarCraft II.

    Args:
      name: the package, for the message.
      module: the one to import.

    Raises:
      Missing: it is not there, or StarCraft II is not where PySC2 looks for it.
    """
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise Missing(INSTALL.format(error=error, name=name)) from error
    folder = Path(os.environ.get("SC2PATH", "~/StarCraftII")).expanduser()
    if not folder.is_dir():
        raise Missing(INSTALL.format(error=f"there is no StarCraft II in {folder}", name=name))
    return found


class Battle(Game):
    """A game of StarCraft II behind SMAC's interface, version 1 or 2."""

    def __init__(self, env: Any) -> None:
        self._env, info = env, env.get_env_info()
        self.spec = Spec(
            n_agents=info["n_agents"],
            n_actions=info["n_actions"],
            obs_size=info["obs_shape"],
            state_size=info["state_shape"],
            episode_limit=info["episode_limit"],
            results=RESULTS,
        )

    def reset(self) -> View:
        """A new battle. If StarCraft II had to be started again, this process is given up."""
        before = getattr(self._env, "force_restarts", 0)
        self._env.reset()
        if getattr(self._env, "force_restarts", 0) != before:
            raise Crashed("StarCraft II broke when a battle began")
        return self._view()

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """Let the team act; no-op is for dead agents and for no others."""
        reward, done, info = self._env.step([int(a) for a in action])
        if "battle_won" not in info:  # smac leaves it out after it has lost its game
            raise Crashed("StarCraft II broke in a battle")
        late = bool(done and info.get("episode_limit", False))
        won = bool(info["battle_won"])
        results: dict[str, float] = {
            "win_rate": float(won),
            "loss_rate": float(done and not won and not late),
            "timeout_rate": float(late),
            "dead_allies": float(info.get("dead_allies", 0)),
            "dead_enemies": float(info.get("dead_enemies", 0)),
        }
        return self._view(), Outcome(float(reward), bool(done and not late), late, results)

    def close(self) -> None:
        """End StarCraft II."""
        self._env.close()

    def _view(self) -> View:
        return View(
            obs=np.asarray(self._env.get_obs(), np.float32),
            state=np.asarray(self._env.get_state(), np.float32),
            avail=np.asarray(self._env.get_avail_actions(), bool),
        )
