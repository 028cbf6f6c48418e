"""A pool of workers: their games step in two groups, and whatever breaks is replaced."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from jaxvff import sharding
from jaxvff.bridge.process import Lost, Worker
from jaxvff.envs.host import shared
from jaxvff.envs.host.game import Spec
from jaxvff.types import HostEnv, UserError

START_TIMEOUT_S = 300.0  # of a worker's games, all of them: StarCraft II takes its time


class Unstable(UserError):
    """Games break more often than the run allows."""


class Pool:
    """E games in worker processes; `at` holds their staged episodes.

    The games of every worker are two groups that take turns: while actions are found for one, the
    workers step the other. `ready` waits for a group, and says which games are in it; whoever uses
    the pool writes `at.action[e, at.slot[e]]` for these, and calls `go`. Which group is next does
    not depend on who is faster. A game whose newest slot is 0 has just begun: after its end, or
    because its episode was given up.
    """

    def __init__(
        self, env: HostEnv, n_games: int, seed: list[int], tell: Callable[[str], None] = print
    ) -> None:
        """Start the workers and wait until their games have begun.

        Args:
          env: what is played, and by how many workers.
          n_games: E.
          seed: of all games: game e of worker life n gets its own from (*seed, e, n).
          tell: told, in a line, of every worker that is replaced and every episode rejected.

        Raises:
          UserError: a worker did not start.
        """
        self._env, self._seed, self._tell, self._n = env, seed, tell, n_games
        sizes = {k: v for k, v in env.spec._asdict().items() if k in Spec._fields}
        self._spec = Spec(**sizes, results=env.results)
        size = shared.layout(self._spec, n_games)[1]
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115  (closed in `close`)
        os.truncate(self._file.fileno(), size)
        self.at = shared.arrays(self._spec, n_games, self._file.fileno())
        self.at.active[:] = True
        self.restarts, self.rejected = 0, 0
        self._faults: deque[float] = deque()  # times of the latest ones
        self._lives = np.zeros(n_games, int)
        n_workers = min(env.crew.workers or sharding.cores(), n_games)
        bounds = np.linspace(0, n_games, n_workers + 1).astype(int)
        self._rows = [range(a, b) for a, b in itertools.pairwise(bounds)]
        # Every other game, whoever plays it: half of a worker's, or every other worker's.
        self._group = np.arange(n_games) % 2
        self._turn = 0
        self._asked = np.zeros((n_workers, 2), bool)  # steps that a worker owes to a group
        self._workers: list[Worker] = []
        try:
            for rows in self._rows:
                self._workers.append(self._start(rows))
            for worker in self._workers:
                worker.wait(START_TIMEOUT_S)
        except Lost as error:
            self.close()
            raise UserError(f"a worker for {env.game} did not start: it {error}") from error
        except BaseException:
            self.close()
            raise

    def ready(self) -> np.ndarray:
        """Wait for the group whose turn it is: its games, those that are not active left out.

        Raises:
          Unstable: more faults than the run allows.
        """
        for i in np.flatnonzero(self._asked[:, self._turn]):
            try:
                told = self._workers[i].wait(self._env.crew.step_timeout)
            except Lost as error:
                self._replace(int(i), str(error))
                continue
            self._asked[i, self._turn] = False
            for what in told.get("rejected", ()):
                self.rejected += 1
                self._fault(f"an episode was rejected: {what}")
        return np.flatnonzero((self._group == self._turn) & self.at.active)

    def go(self) -> None:
        """Let the group step, or begin its next episodes, and give the turn to the other."""
        for i, rows in enumerate(self._rows):
            mine = self._group[rows.start : rows.stop] == self._turn
            if (mine & self.at.active[rows.start : rows.stop]).any():
                self._workers[i].step(self._turn)
                self._asked[i, self._turn] = True
        self._turn = 1 - self._turn

    def close(self) -> None:
        """End all workers and give the shared memory back."""
        for worker in self._workers:
            worker.kill()
        self._workers = []
        self._file.close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Of the workers."""
        return [worker.pid for worker in self._workers]

    def _start(self, rows: range) -> Worker:
        order = {
            "game": self._env.game,
            "options": self._env.options,
            "spec": self._spec._asdict(),
            "n_games": self._n,
            "first": rows.start,
            "seeds": [self._game_seed(e) for e in rows],
        }
        return Worker(self._env.crew.python, order, self._file.fileno())

    def _game_seed(self, e: int) -> int:
        sequence = np.random.SeedSequence([*self._seed, e, int(self._lives[e])])
        return int(sequence.generate_state(1)[0] >> 1)  # 31 bits: what every game takes

    def _replace(self, i: int, why: str) -> None:
        """A new worker, with new seeds, in the place of a lost one; its episodes are gone."""
        rows = self._rows[i]
        while True:
            self._workers[i].kill()
            self.restarts += 1
            self._fault(f"the worker of games {rows.start} to {rows.stop - 1} {why}; replaced")
            self._lives[rows.start : rows.stop] += 1
            self._asked[i] = False  # it owes nothing: all its games have begun anew
            self._workers[i] = self._start(rows)
            try:
                self._workers[i].wait(START_TIMEOUT_S)
                return
            except Lost as error:
                why = f"was replaced by one that {error}"

    def _fault(self, what: str) -> None:
        """Count a fault and tell of it; too many in a short time end the run."""
        crew, now = self._env.crew, time.monotonic()
        self._tell(what)
        self._faults.append(now)
        while now - self._faults[0] > 60 * crew.restart_minutes:
            self._faults.popleft()
        if len(self._faults) > crew.max_restarts:
            raise Unstable(
                f"{len(self._faults)} faults in {crew.restart_minutes:g} minutes, "
                f"env.max_restarts={crew.max_restarts} are allowed; the last one: {what}"
            )


def newest(at: shared.Arrays, field: str, rows: np.ndarray) -> Any:
    """`[E, ...]`: a field of the newest slot of the games in `rows`, zeros for the others."""
    array = getattr(at, field)
    seen = np.zeros((len(array), *array.shape[2:]), array.dtype)
    seen[rows] = array[rows, at.slot[rows]]
    return seen
