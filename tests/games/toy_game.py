"""tests/toy.py as a game on the host, with faults on demand. Runs in a worker: NumPy only."""

import os
import time

import numpy as np
from jaxvff_host.game import Game, Outcome, Spec, View


def make(seed, **faults):
    return Toy(seed, **faults)


class Toy(Game):
    """`fault` happens at step `at` of every episode whose number is in `episodes` (all: None).

    With `once=<path>` it happens in the one process that creates that file first.
    """

    spec = Spec(2, 3, 3, 2, 5, ("win_rate",))

    def __init__(self, seed, fault="", at=2, episodes=None, once=None, pause=0.0):
        self.seed, self.fault, self.at, self.once = seed, fault, at, once
        self.episodes, self.pause, self.episode = episodes, pause, -1

    def reset(self):
        self.episode += 1
        self.count = self.total = 0
        return self.view()

    def step(self, action):
        time.sleep(self.pause)
        if self.fault == "talk":
            print("x" * 10_000, flush=True)
        self.total += int(action[0]) + int(action[1])
        assert action[1] != 2 or self.count % 2 == 0, "the action is not available"
        self.count += 1
        terminated = self.total >= 6
        outcome = Outcome(
            1.0 * int(action[0]) - 0.5 * self.total, terminated, self.count >= 5 and not terminated,
            {"win_rate": float(terminated)},
        )  # fmt: skip
        return self.broken(self.view(), outcome)

    def view(self):
        now = np.array([self.count, self.total], np.float32)
        obs = np.concatenate([np.tile(now, (2, 1)), np.arange(2.0)[:, None]], 1)
        avail = np.ones((2, 3), bool)
        avail[1, 2] = self.count % 2 == 0
        return View(obs.astype(np.float32), now, avail)

    def broken(self, view, outcome):
        due = self.episodes is None or self.episode in self.episodes
        if not self.fault or not due or self.count != self.at or not self.first():
            return view, outcome
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

    def first(self):
        if self.once is None:
            return True
        try:
            os.close(os.open(self.once, os.O_CREAT | os.O_EXCL))
            return True
        except FileExistsError:
            return False
