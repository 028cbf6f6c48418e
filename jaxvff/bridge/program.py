"""train.Program for games on the host: the same lanes, the same learner, a pool that collects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff import explore, learner, replay, sharding, train
from jaxvff.bridge.play import Brain, Collector, Tester, ending, greedy
from jaxvff.bridge.pool import Pool, Unstable
from jaxvff.config import Config
from jaxvff.train import Carry, Lane, Program, Recording
from jaxvff.types import Array, HostEnv, Metrics, Segment

Tell = Callable[[str], None]


@contextmanager
def program(config: Config, env: HostEnv, n_lanes: int, tell: Tell = print) -> Iterator[Program]:
    """The program for `n_lanes` lanes of a config; its workers end with the context.

    Args:
      config: what is trained.
      env: what is played.
      n_lanes: K.
      tell: told, in a line, of every worker that is replaced and every episode rejected.
    """
    learn = learner.make(config, env)
    mesh = sharding.lane_mesh(n_lanes)

    def over_lanes(f: Callable) -> Callable:
        return sharding.over_lanes(f, mesh, n_lanes, config.lanes_per_device)

    def init(lane: Lane) -> Carry:
        batch = _blank_batch(config, env)
        return train.fresh(learn, lane, lambda s: _learn(learn, s, lane, batch, jnp.array(0)))

    def update(carry_lane_batch: tuple[Carry, Lane, Any], iteration: Array) -> Carry:
        carry, lane, batch = carry_lane_batch
        return carry.then(*_learn(learn, carry.state, lane, batch, iteration))

    over = over_lanes(update)
    jitted = jax.jit(
        lambda carry, lane, batch, iteration: over((carry, lane, batch), iteration),
        donate_argnums=0,
        compiler_options=train.effort("advance"),
    )
    with ExitStack() as closing:
        host = _Host(config, env, learn, mesh, n_lanes, jitted, closing, tell)
        yield Program(
            config=config,
            env=env,
            learner=learn,
            mesh=mesh,
            init=jax.jit(over_lanes(init), compiler_options=train.effort("init")),
            advance=host.advance,
            compile=host.compile,
            evaluate=host.evaluate,
            record=host.record,
        )


def _blank_batch(config: Config, env: HostEnv) -> tuple[Segment, Metrics]:
    """What a Collector returns for one lane, empty."""
    one = replay.blank_segment(env.spec, config.segment_length)
    segments = jax.tree.map(lambda x: jnp.zeros((config.n_envs, *x.shape), x.dtype), one)
    return segments, dict.fromkeys(("episodes", "return", *env.results), jnp.zeros(()))


def _learn(
    learn: learner.Learner, state: Any, lane: Lane, batch: tuple[Segment, Metrics], iteration: Array
) -> tuple[Any, Metrics]:
    """One lane learns from a batch; metrics as those of train.iterate."""
    segments, sums = batch
    state, metrics = learn.learn(state, segments, lane.env_params, lane.hyper, iteration)
    sums = {k if k == "episodes" else f"train_{k}": v for k, v in sums.items()}
    return state, metrics | sums


class _Host:
    """What a program on the host keeps between its calls: pools, brains, the next batch."""

    def __init__(
        self,
        config: Config,
        env: HostEnv,
        learn: learner.Learner,
        mesh: Any,
        n_lanes: int,
        update: Any,
        closing: ExitStack,
        tell: Tell,
    ) -> None:
        self._config, self._env, self._utility = config, env, learn.model.utility
        self._mesh, self._lanes, self._update = mesh, n_lanes, update
        self._closing, self._tell = closing, tell
        self._pools: list[Pool] = []
        self._collector: Collector | None = None
        self._tester: Tester | None = None
        self._next: Any = None  # a batch, collected while the learner was busy
        self._done = 0  # iterations

    def compile(self, carry: Carry, lane: Lane) -> Callable[..., Carry]:
        """Compile the update ahead of time: from then on nothing can recompile it."""
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self._lanes, *x.shape), x.dtype),
            jax.eval_shape(partial(_blank_batch, self._config, self._env)),
        )
        self._update = self._update.lower(carry, lane, batch, 0).compile()
        return self.advance

    def advance(self, carry: Carry, lane: Lane, start: int, stop: int) -> Carry:
        """Iterations `start` to `stop`. Games go on while the learner learns.

        So the policy that plays is one update older than the learner's; when and what it learns
        does not depend on who is faster.

        Raises:
          train.Stopped: games broke too often; it holds the carry.
        """
        for iteration in range(start, stop):
            self._done = iteration
            collector = self._collector or self._start_collecting(lane)
            params = collector.brain.take(carry.state.params["utility"])
            env_steps = np.asarray(carry.state.env_steps)
            with self._stopping(carry):
                batch = self._next or collector.collect(params, env_steps)
            carry = self._update(carry, lane, batch, iteration)
            self._next, self._done = None, iteration + 1
            if iteration + 1 < self._config.n_iterations:
                with self._stopping(carry):
                    self._next = collector.collect(params, env_steps)
        return carry

    def evaluate(self, carry: Carry, lane: Lane) -> dict[str, Any]:
        """Greedy episodes on workers of their own, and how often games broke so far."""
        tester = self._tester or self._start_testing(lane)
        params = tester.brain.take(carry.state.params["utility"])
        with self._stopping(carry):
            rates = tester.rates(params, self._config.eval_episodes)
        faults = {
            "worker_restarts": sum(pool.restarts for pool in self._pools),
            "rejected_episodes": sum(pool.rejected for pool in self._pools),
        }
        return rates | {k: np.full(self._lanes, v, np.float32) for k, v in faults.items()}

    def record(self, carry: Carry, lane: Lane, lanes: list[int], n_episodes: int) -> Recording:
        """Greedy episodes of some lanes: the states that a renderer of the environment takes."""
        tester = self._tester or self._start_testing(lane)
        params = tester.brain.take(carry.state.params["utility"])
        seen: list[list[tuple[np.ndarray, dict[str, float]]]] = [[] for _ in range(self._lanes)]
        for k, e in tester.play(params, n_episodes):
            seen[k].append((tester.pool.at.state[e].copy(), ending(self._env, tester.pool, e)))
        wanted = [seen[k] for k in lanes]
        ends = [[end for _, end in episodes] for episodes in wanted]

        def stacked(name: str) -> Any:
            return np.array([[end[name] for end in lane] for lane in ends], np.float32)

        return Recording(
            states=np.array([[states for states, _ in episodes] for episodes in wanted]),
            return_=stacked("return"),
            length=stacked("length").astype(int),
            results={name: stacked(name) for name in self._env.results},
        )

    def _start_collecting(self, lane: Lane) -> Collector:
        config = self._config
        pool = self._pool(config.n_envs, "collect")
        policy = explore.EXPLORERS[config.explore]
        brain = Brain(self._utility, policy, lane.hyper, config.n_envs, config.seed)
        self._collector = Collector(config, self._env, brain, pool, self._lanes)
        return self._collector

    def _start_testing(self, lane: Lane) -> Tester:
        n = min(self._config.n_envs, self._config.eval_episodes)
        pool = self._pool(n, "test")
        brain = Brain(self._utility, greedy, lane.hyper, n, self._config.seed)
        self._tester = Tester(self._env, brain, pool, self._lanes)
        return self._tester

    def _pool(self, per_lane: int, what: str) -> Pool:
        # A resumed run draws other games than those that it began with.
        seed = [self._config.seed, ("collect", "test").index(what), self._done]
        pool = Pool(self._env, self._lanes * per_lane, seed, self._tell)
        self._pools.append(pool)
        return self._closing.enter_context(pool)

    @contextmanager
    def _stopping(self, carry: Carry) -> Iterator[None]:
        """Too many faults stop the run where it is, with what it has learned."""
        try:
            yield
        except Unstable as error:
            raise train.Stopped(str(error), self._done, carry) from error
