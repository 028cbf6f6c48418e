"""A pool of worker processes that play many games; workers and episodes that break are replaced."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import numpy as np

from jaxvff.core import machine
from jaxvff.core.errors import UserError
from jaxvff.core.types import HostEnv
from jaxvff.envs.host import shared
from jaxvff.envs.host.game import Spec
from jaxvff.playing.host.memory import shared_file
from jaxvff.playing.host.process import Worker, WorkerLost

START_TIMEOUT_S = 300.0  # for all games of a worker to begin; StarCraft II takes long to start


class TooManyFaults(UserError):
    """Workers were lost, or episodes rejected, more often than the run allows."""


class Pool:
    """E games in worker processes; `staged` holds the episode that each of them plays.

    The even and the odd games are two halves that take turns: while the policy chooses actions for
    one half, the workers step the other.

        games = pool.wait_for_half()  # the half whose turn it is: its games [n]
        staged.action[games, staged.slot[games]] = ...  # actions [n, A] for their newest slots
        pool.step_half()  # the workers step these games; the other half has the next turn

    The turns do not depend on which worker is faster, so neither does a run. Instead of a step, a
    game whose episode has ended begins the next one. A newest slot of 0 means that an episode has
    just begun, because the one before has ended or was given up.

    Attributes:
      staged: arrays [E, ...] in memory that the workers share.
      restarts: workers that were replaced so far.
      rejected: episodes that were given up so far because of impossible values.
    """

    def __init__(
        self,
        env: HostEnv,
        n_games: int,
        seed: list[int],
        on_fault: Callable[[str], None] = print,
    ) -> None:
        """Start the workers and wait until their games have begun.

        Args:
          env: the game, and how many workers play it.
          n_games: E.
          seed: entropy for all games. Each game derives its own seed from this, its number, and
            how many workers it has lost.
          on_fault: called with a line of text for every worker lost and every episode rejected,
            and if the memory of the games is on disk.

        Raises:
          UserError: a worker did not start, or there is no room for the games' episodes.
        """
        self._env, self._n_games, self._seed, self._on_fault = env, n_games, seed, on_fault
        self.restarts, self.rejected = 0, 0
        self._fault_times: deque[float] = deque()  # within the last `restart_minutes`
        self._lost_workers = np.zeros(n_games, int)  # [E]

        # The memory that all processes share.
        self._spec = _host_spec(env)
        self._file = shared_file(shared.layout(self._spec, n_games)[1], on_fault)
        self.staged = shared.arrays(self._spec, n_games, self._file.fileno())
        self.staged.active[:] = True

        # Each worker plays a range of games. The halves are the even and the odd games: half of a
        # worker's games, or every other worker where each has a single game.
        n_workers = min(env.crew.workers or machine.cores(), n_games)
        bounds = np.linspace(0, n_games, n_workers + 1).astype(int)
        self._ranges = [range(a, b) for a, b in itertools.pairwise(bounds)]  # of games, by worker
        self._half = np.arange(n_games) % 2  # [E], 0 or 1
        self._turn = 0  # the half that `wait_for_half` waits for
        self._stepping = np.zeros((n_workers, 2), bool)  # a worker has yet to answer for a half
        self._has_stepped = False  # since the games began
        self._workers: list[Worker] = []
        self._start_workers()

    def wait_for_half(self) -> np.ndarray:
        """Wait until the workers have stepped the half whose turn it is.

        Returns:
          Its games `[n]` int, without those that are not active.

        Raises:
          TooManyFaults: there were more than the run allows.
        """
        for index in np.flatnonzero(self._stepping[:, self._turn]):
            self._wait_for_worker(int(index), self._env.crew.step_timeout)
        return np.flatnonzero((self._half == self._turn) & self.staged.active)

    def step_half(self) -> None:
        """Have the workers step the active games of this half, and pass the turn to the other."""
        self._has_stepped = True
        plays = (self._half == self._turn) & self.staged.active
        for index, games in enumerate(self._ranges):
            if plays[games.start : games.stop].any():
                self._workers[index].step(self._turn)
                self._stepping[index, self._turn] = True
        self._turn = 1 - self._turn

    def begin_anew(self, seed: list[int]) -> None:
        """Give up all episodes; from here on the games play as those of a new pool would.

        That holds for games that can be given a seed again (Game.reseed); others begin an episode.
        A pool that has just begun with this seed stays as it is: a game may take long to begin.

        Args:
          seed: entropy for all games, as for a new pool.
        """
        if seed == self._seed and not self._has_stepped:
            return
        for self._turn in (1, 0):
            self.wait_for_half()
        self._seed, self._lost_workers[:] = seed, 0
        self.staged.active[:] = True
        self.staged.seed[:] = [self._game_seed(game) for game in range(self._n_games)]
        for worker in self._workers:
            worker.begin_anew()
        for index in range(len(self._workers)):
            self._wait_for_worker(index, START_TIMEOUT_S)
        self._has_stepped = False

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
        """Process ids of the workers."""
        return [worker.pid for worker in self._workers]

    def _start_workers(self) -> None:
        """Start all at once, then wait for each."""
        try:
            for games in self._ranges:
                self._workers.append(self._new_worker(games))
            for worker in self._workers:
                worker.wait(START_TIMEOUT_S)
        except WorkerLost as error:
            self.close()
            raise UserError(f"a worker for {self._env.game} did not start: it {error}") from error
        except BaseException:
            self.close()
            raise

    def _new_worker(self, games: range) -> Worker:
        """A worker that has been started but may not have begun its games yet."""
        order = {
            "game": self._env.game,
            "options": self._env.options,
            "spec": self._spec._asdict(),
            "n_games": self._n_games,
            "first": games.start,
            "seeds": [self._game_seed(game) for game in games],
        }
        return Worker(self._env.crew.python, order, self._file.fileno())

    def _game_seed(self, game: int) -> int:
        """Differs between games, and between the workers that play a game one after the other."""
        sequence = np.random.SeedSequence([*self._seed, game, int(self._lost_workers[game])])
        return int(sequence.generate_state(1)[0] >> 1)  # 31 bits: what every game takes

    def _wait_for_worker(self, index: int, timeout_s: float) -> None:
        """Wait until a worker has done what was asked last; replace it if it is lost."""
        try:
            rejections = self._workers[index].wait(timeout_s)
        except WorkerLost as error:
            self._replace(index, str(error))
            return
        self._stepping[index, self._turn] = False
        for reason in rejections:
            self.rejected += 1
            self._count_fault(f"an episode was rejected: {reason}")

    def _replace(self, index: int, reason: str) -> None:
        """Start a new worker, with new seeds, instead of a lost one, whose episodes are gone.

        Args:
          index: of the worker.
          reason: what became of it, to follow "the worker of games 0 to 3".
        """
        games = self._ranges[index]
        while True:
            self._workers[index].kill()
            self.restarts += 1
            self._count_fault(
                f"the worker of games {games.start} to {games.stop - 1} {reason}; replaced"
            )
            self._lost_workers[games.start : games.stop] += 1
            self._stepping[index] = False  # all its games begin anew: there is no step to wait for
            self._workers[index] = self._new_worker(games)
            try:
                self._workers[index].wait(START_TIMEOUT_S)
                return
            except WorkerLost as error:
                reason = f"was replaced by one that {error}"

    def _count_fault(self, text: str) -> None:
        """Report a fault; too many in a short time end the run."""
        self._on_fault(text)
        crew, now = self._env.crew, time.monotonic()
        self._fault_times.append(now)
        while now - self._fault_times[0] > 60 * crew.restart_minutes:
            self._fault_times.popleft()
        if len(self._fault_times) > crew.max_restarts:
            raise TooManyFaults(
                f"{len(self._fault_times)} faults in {crew.restart_minutes:g} minutes, "
                f"env.max_restarts={crew.max_restarts} are allowed; the last one: {text}"
            )


def _host_spec(env: HostEnv) -> Spec:
    """The sizes of an environment, in the form that workers take."""
    sizes = {name: x for name, x in env.spec._asdict().items() if name in Spec._fields}
    return Spec(**sizes, results=env.results)
