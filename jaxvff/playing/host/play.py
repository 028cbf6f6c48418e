"""Playing on the host: batches of segments to learn from, and greedy episodes to evaluate."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from jaxvff.core.types import HostEnv, Params
from jaxvff.envs.host.shared import Arrays
from jaxvff.playing.host.packing import Batch, Packer
from jaxvff.playing.host.policy import BatchedPolicy
from jaxvff.playing.host.pool import Pool
from jaxvff.playing.options import CollectionOptions


class Collector:
    """Plays batches of N segments for each of K lanes; games go on from one batch to the next."""

    def __init__(
        self,
        options: CollectionOptions,
        env: HostEnv,
        *,
        policy: BatchedPolicy,
        pool: Pool,
        n_lanes: int,
    ) -> None:
        """Nothing is played yet.

        Args:
          options: N = `n_envs`, the games of a lane and the segments of its batch; and the slots
            of a segment.
          env: what is played.
          policy: chooses the actions.
          pool: of K * N games, lane by lane.
          n_lanes: K.
        """
        self.policy, self._pool, self._n_games = policy, pool, options.n_envs
        self._n_lanes = n_lanes
        self._packer = partial(
            Packer,
            env.spec,
            env.results,
            n_segments=options.n_envs,
            n_slots=options.segment_length,
            context_size=policy.context_size,
        )
        self._packers = [self._packer() for _ in range(n_lanes)]

    def begin_anew(self, seed: list[int]) -> None:
        """Discard all that has been played; play on as a new Collector with a new pool would.

        Args:
          seed: entropy for games and exploration.
        """
        self._pool.begin_anew(seed)
        self.policy.begin_anew(seed)
        self._packers = [self._packer() for _ in range(self._n_lanes)]

    def collect(self, params: Params, env_steps: np.ndarray) -> Batch:
        """Play until every lane has a batch.

        Args:
          params: from BatchedPolicy.copy_params, leaves `[K, ...]`.
          env_steps: `[K]` int.

        Returns:
          Segments, leaves `[K, N, T, ...]`, and sums over their episodes, `[K]` each.
        """
        pool, staged = self._pool, self._pool.staged
        while not all(packer.batches for packer in self._packers):
            games = pool.wait_for_half()
            self.policy.act(params, env_steps, staged, games)
            for game in games[staged.ended[games]]:
                packer = self._packers[game // self._n_games]
                packer.add(staged, int(game), self.policy.context(int(game)))
            pool.step_half()
        batches = [packer.batches.popleft() for packer in self._packers]
        segments = jax.tree.map(lambda *x: np.stack(x), *[batch.segments for batch in batches])
        return Batch(segments, _stacked([batch.sums for batch in batches]))


class Evaluator:
    """Plays greedy episodes in K lanes.

    How many a game plays is fixed beforehand. If whichever episodes end first were counted, they
    would be the short ones.
    """

    def __init__(self, env: HostEnv, *, policy: BatchedPolicy, pool: Pool, n_lanes: int) -> None:
        """Nothing is played yet.

        Args:
          env: what is played.
          policy: a greedy one.
          pool: its games are divided among the lanes, lane by lane.
          n_lanes: K.
        """
        self._env, self._pool, self._n_lanes = env, pool, n_lanes
        self.policy = policy

    def play(self, params: Params, n_episodes: int, seed: list[int]) -> Iterator[tuple[int, int]]:
        """Play `n_episodes` in every lane; yield `(lane, game)` whenever one has ended.

        At that moment, and only then, `staged` holds the episode.

        Args:
          params: from BatchedPolicy.copy_params, leaves `[K, ...]`.
          n_episodes: of each lane.
          seed: entropy for the games, which begin anew.
        """
        self._pool.begin_anew(seed)
        pool, staged = self._pool, self._pool.staged
        per_lane = len(staged.slot) // self._n_lanes
        quota = np.array([len(range(game, n_episodes, per_lane)) for game in range(per_lane)])
        left = np.tile(quota, self._n_lanes)  # [E] episodes that each game has yet to end
        no_steps = np.zeros(self._n_lanes, np.int32)  # a greedy policy has no schedule
        staged.active[:] = left > 0
        while left.any():
            games = pool.wait_for_half()
            self.policy.act(params, no_steps, staged, games)
            for game in games[staged.ended[games]]:
                left[game] -= 1
                yield int(game) // per_lane, int(game)
            staged.active[games] = left[games] > 0
            pool.step_half()

    def means(self, params: Params, n_episodes: int, seed: list[int]) -> dict[str, np.ndarray]:
        """Means over `n_episodes`: test_return, test_length, test_<result>; `[K]` each."""
        names = ("return", "length", *self._env.results)
        sums = [dict.fromkeys(names, 0.0) for _ in range(self._n_lanes)]
        for lane, game in self.play(params, n_episodes, seed):
            for name, value in self.summary(game).items():
                sums[lane][name] += value
        return {
            f"test_{name}": (total / n_episodes).astype(np.float32)
            for name, total in _stacked(sums).items()
        }

    @property
    def staged(self) -> Arrays:
        """The pool's arrays."""
        return self._pool.staged

    def summary(self, game: int) -> dict[str, float]:
        """The return, length and results of the episode that a game has just ended."""
        staged, length = self.staged, int(self.staged.slot[game])
        results = dict(zip(self._env.results, map(float, staged.results[game]), strict=True))
        return {
            "return": float(staged.reward[game, :length].sum()),
            "length": float(length),
            **results,
        }


def _stacked(sums: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([s[name] for s in sums], np.float32) for name in sums[0]}
