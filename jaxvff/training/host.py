"""The program of games on the host: the lanes and learner of the device; worker processes play."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.segments import blank_segment
from jaxvff.core.types import Array, HostEnv, Metrics, Params, Tree
from jaxvff.learning.learner import Learner
from jaxvff.playing.explore import Explorer
from jaxvff.playing.host.packing import Batch, sum_names
from jaxvff.playing.host.play import Collector, Evaluator
from jaxvff.playing.host.policy import BatchedPolicy
from jaxvff.playing.host.pool import Pool, TooManyFaults
from jaxvff.settings import build
from jaxvff.settings.config import Config
from jaxvff.training import lanes, sharding
from jaxvff.training.lanes import Carry, Lane, LaneState
from jaxvff.training.program import Advance, Program, Recording, Stopped, all_lanes, compiler

# Part of the seed of a pool, so that training and evaluation do not play the same games.
TRAINING, EVALUATION = 0, 1


@contextmanager
def host_program(
    config: Config, env: HostEnv, n_lanes: int, tell: Callable[[str], None] = print
) -> Iterator[Program]:
    """The program for `n_lanes` lanes of a config; its worker processes end with the context.

    Args:
      config: what is trained.
      env: what is played.
      n_lanes: K.
      tell: called with a line of text for every worker lost and every episode rejected.
    """
    mesh = sharding.lane_mesh(n_lanes)
    host_lane = HostLane(config, env, build.learner(config, env, mesh.devices[0].platform))
    over_lanes = all_lanes(config, env, mesh, n_lanes)
    update_all = over_lanes(host_lane.update)
    update = jax.jit(
        lambda carry, lane, batch, iteration: update_all((carry, lane, batch), iteration),
        donate_argnums=0,
        compiler_options=compiler("advance"),
    )
    with ExitStack() as closing:
        session = _Session(host_lane, n_lanes, update=update, closing=closing, on_fault=tell)
        program = Program(
            config=config,
            env=env,
            learner=host_lane.learner,
            mesh=mesh,
            init=jax.jit(over_lanes(host_lane.init), compiler_options=compiler("init")),
            advance=session.advance,
            compile=lambda carry, lane: program._replace(advance=session.compile(carry, lane)),
            evaluate=session.evaluate,
            record=session.record,
        )
        yield program


class HostLane(NamedTuple):
    """The pure functions of one lane whose games are played on the host.

    Its methods take a Lane, a Carry and a Batch without their axis K.
    """

    config: Config
    env: HostEnv
    learner: Learner

    def init(self, lane: Lane) -> Carry:
        """The carry that the lane begins with."""
        batch = self.blank_batch()
        return lanes.fresh(self.learner, lane, lambda s: self.iterate(s, lane, batch, jnp.array(0)))

    def update(self, carry_lane_batch: tuple[Carry, Lane, Batch], iteration: Array) -> Carry:
        """The carry after one iteration, which learns from a batch that was collected."""
        carry, lane, batch = carry_lane_batch
        return carry.then(*self.iterate(carry.state, lane, batch, iteration))

    def iterate(
        self, state: LaneState, lane: Lane, batch: Batch, iteration: Array
    ) -> tuple[LaneState, Metrics]:
        """Learn from a batch.

        Args:
          state: of the lane.
          lane: what does not change.
          batch: from a Collector.
          iteration: `[]` int, iterations before this one; not batched over lanes.

        Returns:
          The new state, and metrics to be summed over iterations; their names are those of
          DeviceLane.iterate.
        """
        state, metrics = lanes.learn(self.learner, lane, state, batch.segments, iteration)
        sums = {k if k == "episodes" else f"train_{k}": v for k, v in batch.sums.items()}
        return state, metrics | sums

    def blank_batch(self) -> Batch:
        """A batch of padding, for its shapes."""
        n, size = self.config.n_envs, self.learner.model.utility.context_size
        blank = blank_segment(self.env.spec, self.config.segment_length, size)
        return Batch(
            segments=jax.tree.map(lambda x: jnp.zeros((n, *x.shape), x.dtype), blank),
            sums=dict.fromkeys(sum_names(self.env.results), jnp.zeros(())),
        )


class _Session:
    """What a program on the host keeps between its calls: workers, policies, the next batch."""

    def __init__(
        self,
        host_lane: HostLane,
        n_lanes: int,
        *,
        update: jax.stages.Wrapped,
        closing: ExitStack,
        on_fault: Callable[[str], None],
    ) -> None:
        """No worker is started before the first call that needs one.

        Args:
          host_lane: functions of one lane.
          n_lanes: K.
          update: HostLane.update over all lanes, jitted.
          closing: ends the workers when the program ends.
          on_fault: called with a line of text for every worker lost and every episode rejected.
        """
        self._host_lane, self._n_lanes = host_lane, n_lanes
        self._config, self._env = host_lane.config, host_lane.env
        self._jitted_update = update
        self._update: Callable[..., Carry] = update
        self._closing, self._on_fault = closing, on_fault
        self._pools: list[Pool] = []
        self._collector: Collector | None = None
        self._evaluator: Evaluator | None = None
        self._next_batch: Batch | None = None  # collected while the learner was busy
        self._iterations_done = 0

    def compile(self, carry: Carry, lane: Lane) -> Advance:
        """Compile the update ahead of time: from then on nothing can recompile it."""
        batch = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self._n_lanes, *x.shape), x.dtype),
            jax.eval_shape(self._host_lane.blank_batch),
        )
        self._update = self._jitted_update.lower(carry, lane, batch, 0).compile()
        return self.advance

    def advance(self, carry: Carry, lane: Lane, start: int, stop: int) -> Carry:
        """The carry after the iterations from `start` to `stop`; the one passed in is donated.

        While the learner works on a batch, the games play the next one, with the parameters from
        before that update. What is learned does not depend on which of the two is faster.

        Where a checkpoint is due (`checkpoint_interval`), the games begin anew, as they do in a run
        that resumes from it. So that run goes on as this one does.

        Raises:
          Stopped: there were too many faults; it holds the carry.
        """
        for iteration in range(start, stop):
            self._iterations_done = iteration
            collector = self._collector or self._start_collector(lane)
            params = collector.policy.copy_params(self._acting_params(carry))
            env_steps = np.asarray(carry.state.env_steps)
            with self._stops_at(carry):
                if self._begins_anew(iteration):
                    collector.begin_anew(self._entropy(TRAINING))
                batch = self._next_batch or collector.collect(params, env_steps)

            # Starts the update and returns at once; `carry` is what it will be afterwards.
            carry = self._update(carry, lane, batch, iteration)
            self._next_batch, self._iterations_done = None, iteration + 1

            ends = iteration + 1 == self._config.n_iterations
            if not ends and not self._begins_anew(iteration + 1):
                with self._stops_at(carry):
                    self._next_batch = collector.collect(params, env_steps)
        return carry

    def evaluate(self, carry: Carry, lane: Lane) -> dict[str, Tree]:
        """Means over greedy episodes, and the faults of all workers so far; `[K]` each."""
        evaluator = self._evaluator or self._start_evaluator(lane)
        params = evaluator.policy.copy_params(self._acting_params(carry))
        with self._stops_at(carry):
            means = evaluator.means(params, self._config.eval_episodes, self._entropy(EVALUATION))
        faults = {
            "worker_restarts": sum(pool.restarts for pool in self._pools),
            "rejected_episodes": sum(pool.rejected for pool in self._pools),
        }
        return means | {k: np.full(self._n_lanes, v, np.float32) for k, v in faults.items()}

    def record(self, carry: Carry, lane: Lane, which: list[int], n_episodes: int) -> Recording:
        """Greedy episodes of some lanes, with the states that the environment's renderer takes.

        Args:
          carry: of all lanes.
          lane: of all lanes.
          which: the lanes that are recorded `[k]`; all K play.
          n_episodes: of each lane.

        Returns:
          Leaves `[k, n_episodes, ...]`.
        """
        evaluator = self._evaluator or self._start_evaluator(lane)
        params = evaluator.policy.copy_params(self._acting_params(carry))
        states: list[list[np.ndarray]] = [[] for _ in range(self._n_lanes)]
        summaries: list[list[dict[str, float]]] = [[] for _ in range(self._n_lanes)]
        for k, game in evaluator.play(params, n_episodes, self._entropy(EVALUATION)):
            states[k].append(evaluator.staged.state[game].copy())
            summaries[k].append(evaluator.summary(game))

        def stacked(name: str) -> Tree:
            return np.array([[end[name] for end in summaries[k]] for k in which], np.float32)

        return Recording(
            states=np.array([states[k] for k in which]),
            return_=stacked("return"),
            length=stacked("length").astype(int),
            results={name: stacked(name) for name in self._env.results},
        )

    def _acting_params(self, carry: Carry) -> Params:
        """The parameters that teams act with, leaves `[K, ...]`."""
        return self._host_lane.learner.acting(carry.state.learner)

    def _begins_anew(self, iteration: int) -> bool:
        """Whether all games begin anew before an iteration: a checkpoint is due there."""
        save_every = self._config.save_every
        return save_every > 0 and iteration % save_every == 0

    def _entropy(self, purpose: int) -> list[int]:
        """For games and exploration that begin now; `purpose` is TRAINING or EVALUATION."""
        # With the iterations in it, a resumed run does not play its first games again.
        return [self._config.seed, purpose, self._iterations_done]

    def _start_collector(self, lane: Lane) -> Collector:
        config, n_games = self._config, self._config.n_envs
        self._collector = Collector(
            config,
            self._env,
            pool=self._start_pool(n_games, TRAINING),
            policy=self._policy(build.explorer(config), lane, n_games, TRAINING),
            n_lanes=self._n_lanes,
        )
        return self._collector

    def _start_evaluator(self, lane: Lane) -> Evaluator:
        n_games = min(self._config.n_envs, self._config.eval_episodes)
        self._evaluator = Evaluator(
            self._env,
            pool=self._start_pool(n_games, EVALUATION),
            policy=self._policy(None, lane, n_games, EVALUATION),
            n_lanes=self._n_lanes,
        )
        return self._evaluator

    def _policy(
        self, explorer: Explorer | None, lane: Lane, n_games: int, purpose: int
    ) -> BatchedPolicy:
        model, seed = self._host_lane.learner.model, self._entropy(purpose)
        return BatchedPolicy(model, explorer, lane.traced, n_games=n_games, seed=seed)

    def _start_pool(self, games_per_lane: int, purpose: int) -> Pool:
        """A pool of workers for all lanes; `purpose` is TRAINING or EVALUATION."""
        n_games = self._n_lanes * games_per_lane
        pool = Pool(self._env, n_games, self._entropy(purpose), self._on_fault)
        self._pools.append(pool)
        return self._closing.enter_context(pool)

    @contextmanager
    def _stops_at(self, carry: Carry) -> Iterator[None]:
        """Too many faults inside stop the run, with the carry that it has reached."""
        try:
            yield
        except TooManyFaults as error:
            raise Stopped(str(error), self._iterations_done, carry) from error
