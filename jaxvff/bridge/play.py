"""Playing on the host: one compiled inference call for the games that wait, of all lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff import explore, rollout
from jaxvff.bridge.packing import Packer, Sums
from jaxvff.bridge.pool import Pool, newest
from jaxvff.config import Config
from jaxvff.nets import Utility
from jaxvff.rollout import Memory
from jaxvff.types import Array, HostEnv, Hyper, Params, Segment

# (key, q[A, U], avail[A, U], the lane's hyper-parameters, its env steps) -> action[A]
Policy = Callable[[Array, Array, Array, Hyper, Array], Array]


class Brain:
    """Decides for K lanes of N games each, and remembers what they saw.

    It lives on a CPU, beside the games: a step is too little work to send it to an accelerator,
    where it would wait for the learner.
    """

    def __init__(
        self, utility: Utility, policy: Policy, hyper: Hyper, n_games: int, seed: int
    ) -> None:
        """Nothing is compiled before the first call.

        Args:
          utility: the utility networks.
          policy: how actions are picked.
          hyper: of all lanes, leaves [K].
          n_games: N.
          seed: of what the policy draws.
        """
        self.device = jax.local_devices(backend="cpu")[-1]
        self._hyper = jax.device_put(hyper, self.device)
        self._decide = jax.jit(_decider(utility, policy, n_games, seed))
        self._tick = 0
        self._shape = k = (len(hyper.lr), n_games, utility.spec.n_agents)
        blank = Memory(jnp.zeros((*k, utility.hidden_dim)), jnp.zeros(k, jnp.int32))
        self._memory = jax.device_put(blank, self.device)

    def take(self, params: Params) -> Params:
        """A copy of the lanes' utility parameters for `decide`, which outlives a donation."""
        return jax.device_put(params, self.device, may_alias=False)

    def decide(self, params: Params, env_steps: np.ndarray, pool: Pool, rows: np.ndarray) -> None:
        """Write the next actions of some games to the pool.

        The shape is always that of all games, so that one program serves every group.

        Args:
          params: from `take`, leaves [K, ...].
          env_steps: `[K]` of the lanes.
          pool: K * N games, lane by lane.
          rows: the games, from Pool.ready.
        """
        if not rows.size:
            return
        at, per_lane = pool.at, self._shape[:2]
        waits = np.zeros(len(at.slot), bool)
        waits[rows] = True
        seen = [newest(at, "obs", rows), newest(at, "avail", rows), at.slot == 0, waits]
        obs, avail, first, waits = (x.reshape(per_lane + x.shape[1:]) for x in seen)
        self._memory = self._decide(
            params, self._memory, obs, avail, first, waits, self._hyper, env_steps, self._tick
        )
        self._tick += 1
        action = np.asarray(self._memory.last_action).reshape(-1, self._shape[2])
        at.action[rows, at.slot[rows]] = action[rows]


def _decider(utility: Utility, policy: Policy, n_games: int, seed: int) -> Callable[..., Memory]:
    """Of all lanes: what `decide` gives it -> memory; that of games that do not wait stays."""

    def lane(
        params: Params, memory: Memory, obs: Array, avail: Array, first: Array, waits: Array,
        hyper: Hyper, env_steps: Array, key: Array,
    ) -> Memory:  # fmt: skip
        def act(key: Array, q: Array, avail: Array) -> Array:
            return policy(key, q, avail, hyper, env_steps)

        def game(
            memory: Memory, obs: Array, avail: Array, first: Array, waits: Array, key: Array
        ) -> Memory:
            before = jax.tree.map(lambda x: jnp.where(first, jnp.zeros_like(x), x), memory)
            after = rollout.decide(utility, act, params, before, obs, avail | ~waits, first, key)
            return jax.tree.map(lambda a, b: jnp.where(waits, a, b), after, memory)

        keys = jax.random.split(key, n_games)
        return jax.vmap(game)(memory, obs, avail, first, waits, keys)

    def call(
        params: Params, memory: Memory, obs: Array, avail: Array, first: Array, waits: Array,
        hyper: Hyper, env_steps: Array, tick: Array,
    ) -> Memory:  # fmt: skip
        key = jax.random.fold_in(jax.random.key(seed), tick)
        keys = jax.random.split(key, len(env_steps))
        return jax.vmap(lane)(params, memory, obs, avail, first, waits, hyper, env_steps, keys)

    return call


def greedy(key: Array, q: Array, avail: Array, hyper: Hyper, env_steps: Array) -> Array:
    """The best available action."""
    return explore.greedy(q, avail)


class Collector:
    """Batches of N segments for every lane, from a pool that never stands still."""

    def __init__(self, config: Config, env: HostEnv, brain: Brain, pool: Pool, n_lanes: int):
        """Nothing is played yet."""
        self.brain, self._pool, self._n = brain, pool, config.n_envs
        n, slots = config.n_envs, config.segment_length
        self._packers = [Packer(env.spec, env.results, n, slots) for _ in range(n_lanes)]

    def collect(
        self, params: Params, env_steps: np.ndarray
    ) -> tuple[Segment, dict[str, np.ndarray]]:
        """Play until every lane has a batch.

        Args:
          params: from Brain.take.
          env_steps: `[K]`.

        Returns:
          Segments, leaves `[K, N, T, ...]`, and packing.Sums, `[K]` each.
        """
        pool, at = self._pool, self._pool.at
        while not all(packer.batches for packer in self._packers):
            rows = pool.ready()
            self.brain.decide(params, env_steps, pool, rows)
            for e in rows[at.ended[rows]]:
                self._packers[e // self._n].add(at, int(e))
            pool.go()
        batches = [packer.batches.popleft() for packer in self._packers]
        segments = jax.tree.map(lambda *x: np.stack(x), *[segments for segments, _ in batches])
        return segments, _stacked([sums for _, sums in batches])


class Tester:
    """Greedy episodes: every game plays as many as every other, the short ones and the long."""

    def __init__(self, env: HostEnv, brain: Brain, pool: Pool, n_lanes: int) -> None:
        """Nothing is played yet."""
        self._env, self._lanes = env, n_lanes
        self.brain, self.pool = brain, pool

    def play(self, params: Params, n_episodes: int) -> Iterator[tuple[int, int]]:
        """Play `n_episodes` of every lane; yields `(lane, game)` at the end of each.

        At that moment the episode is staged in the pool's arrays, and only then.
        """
        at, n_games = self.pool.at, len(self.pool.at.slot)
        per_lane = n_games // self._lanes
        quota = np.array([len(range(g, n_episodes, per_lane)) for g in range(per_lane)])
        left = np.tile(quota, self._lanes)
        steps = np.zeros(self._lanes, np.int32)
        counted = at.ended.copy()  # when they were last tested
        at.active[:] = left > 0
        while left.any():
            rows = self.pool.ready()
            self.brain.decide(params, steps, self.pool, rows)
            for e in rows[at.ended[rows] & ~counted[rows]]:
                left[e] -= 1
                yield int(e) // per_lane, int(e)
            counted[rows] = False
            at.active[rows] = left[rows] > 0
            self.pool.go()

    def rates(self, params: Params, n_episodes: int) -> dict[str, np.ndarray]:
        """Means over `n_episodes`: test_return, test_length, test_<result>; `[K]` each."""
        names = ("return", "length", *self._env.results)
        sums = [dict.fromkeys(names, 0.0) for _ in range(self._lanes)]
        for lane, e in self.play(params, n_episodes):
            for name, value in ending(self._env, self.pool, e).items():
                sums[lane][name] += value
        return {f"test_{k}": (v / n_episodes).astype(np.float32) for k, v in _stacked(sums).items()}


def ending(env: HostEnv, pool: Pool, e: int) -> dict[str, float]:
    """The return, length and results of the episode that game e has just ended."""
    at, length = pool.at, int(pool.at.slot[e])
    results = dict(zip(env.results, map(float, at.results[e]), strict=True))
    return {"return": float(at.reward[e, :length].sum()), "length": float(length), **results}


def _stacked(sums: list[Sums]) -> dict[str, np.ndarray]:
    return {name: np.array([s[name] for s in sums], np.float32) for name in sums[0]}
