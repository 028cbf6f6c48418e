"""tests/toy.py as a game on the host, with faults on demand. Runs in a worker: NumPy only."""

import os
import random
import subprocess
import sys
import time

import numpy as np
from jaxvff_host.game import Game, Outcome, Spec, View


def make(seed, **faults):
    return Toy(seed, **faults)


class Toy(Game):
    """The toy's rules, and a fault.

    Args of the constructor:
      seed: of the draws, if there are any.
      fault: what goes wrong: "die", "hang", "raise", "talk" (200 kB at every step), "chatter" (a
        child that never stops printing), "nan", "shape", "stuck" or "reward".
      at_step: the step of an episode at which it does.
      episodes: the numbers of the episodes in which it does; None: in all of them.
      once: a path; only the process that creates this file has the fault, and only once.
      pause: seconds that every step takes.
      width: entries of an observation, three of them used.
      draws: an episode begins with a total of 0, 1 or 2, drawn; else with 0.
    """

    spec = Spec(
        n_agents=2, n_actions=3, obs_size=3, state_size=2, episode_limit=5, results=("win_rate",)
    )

    def __init__(
        self, seed, fault="", at_step=2, episodes=None, once=None, pause=0.0, width=3, draws=False
    ):
        self.fault, self.at_step, self.episodes, self.once = fault, at_step, episodes, once
        self.pause, self.episode, self.draws = pause, -1, draws
        self.reseed(seed)
        self.spec = self.spec._replace(obs_size=width)
        if fault == "chatter":
            subprocess.Popen([sys.executable, "-c", "while True: print('x' * 1000)"])

    def reseed(self, seed):
        self.random = random.Random(seed)

    def reset(self):
        self.episode += 1
        self.count = 0
        self.total = self.random.randrange(3) if self.draws else 0
        return self.view()

    def step(self, action):
        time.sleep(self.pause)
        if self.fault == "talk":
            print("x" * 200_000, "at step", self.count, flush=True)
        self.total += int(action[0]) + int(action[1])
        assert action[1] != 2 or self.count % 2 == 0, "the action is not available"
        self.count += 1
        terminated = self.total >= 6
        outcome = Outcome(
            reward=1.0 * int(action[0]) - 0.5 * self.total,
            terminated=terminated,
            truncated=self.count >= 5 and not terminated,
            results={"win_rate": float(terminated)},
        )
        view = self.view()
        return self.with_fault(view, outcome) if self.fault_is_due() else (view, outcome)

    def view(self):
        now = np.array([self.count, self.total], np.float32)
        obs = np.zeros((2, self.spec.obs_size))
        obs[:, :2], obs[:, 2] = now, np.arange(2)
        avail = np.ones((2, 3), bool)
        avail[1, 2] = self.count % 2 == 0
        return View(obs.astype(np.float32), now, avail)

    def fault_is_due(self):
        if not self.fault or self.count != self.at_step:
            return False
        if self.episodes is not None and self.episode not in self.episodes:
            return False
        return self.once is None or created(self.once)

    def with_fault(self, view, outcome):
        if self.fault == "die":
            os.kill(os.getpid(), 9)
        if self.fault == "hang":
            time.sleep(1000)
        if self.fault == "raise":
            raise RuntimeError("the game fell over")
        if self.fault == "nan":
            view.obs[1, 0] = np.nan
        if self.fault == "shape":
            view = view._replace(state=np.zeros(7, np.float32))
        if self.fault == "stuck":
            view.avail[1] = False
        if self.fault == "reward":
            outcome = outcome._replace(reward=float("nan"))
        return view, outcome


def created(path):
    """Whether this call has created the file: False where it is there already."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False
