"""The training loop: compiled programs over lanes, and a generator of reports around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff import evaluate, explore, learner, payoff, rollout, sharding
from jaxvff.config import Config
from jaxvff.types import Array, Env, Hyper, Metrics, TrainState

# LLVM's effort on a CPU. Initialisation runs once: compiling it at 0 takes a third of the time; for
# the training loop 1 is as fast as the default and compiles in 70 % of the time (docs/design.md).
CPU_EFFORT = {"init": 0, "advance": 1}
SUBCHUNK_S = 0.5  # wall-clock between two looks at the progress bar and at Ctrl-C


class Lane(NamedTuple):
    """What differs between lanes and does not change in a run; leaves `[K, ...]`."""

    hyper: Hyper
    env_params: Any
    seed: Array  # [K] uint32


class Carry(NamedTuple):
    """What a run carries on and a checkpoint keeps; leaves `[K, ...]`."""

    state: TrainState
    totals: Metrics  # sums since the last report


class Report(NamedTuple):
    """What a run tells at an interval; metrics are arrays `[K]`."""

    step: int  # env steps per lane
    metrics: dict[str, np.ndarray]
    wall_s: float  # since the generator started


class Program(NamedTuple):
    """The compiled functions of one group of lanes."""

    config: Config
    env: Env
    learner: learner.Learner
    mesh: Any
    init: Callable[[Lane], Carry]
    advance: Callable[..., Carry]  # (carry, lane, start, stop); donates the carry
    evaluate: Callable[[Carry, Lane], Metrics]


def program(config: Config, env: Env, n_lanes: int) -> Program:
    """The program for `n_lanes` lanes of a config; nothing is compiled before its first call."""
    learn = learner.make(config, env)
    mesh = sharding.lane_mesh(n_lanes)

    def over_lanes(f: Callable) -> Callable:
        return sharding.over_lanes(f, mesh, n_lanes, config.lanes_per_device)

    def init(lane: Lane) -> Carry:
        state = learn.init(jax.random.key(lane.seed), lane.hyper)
        metrics = jax.eval_shape(lambda s: collect_and_learn(s, lane, jnp.array(0))[1], state)
        return Carry(state, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), metrics))

    def collect_and_learn(
        state: TrainState, lane: Lane, iteration: Array
    ) -> tuple[TrainState, Metrics]:
        step = iteration * config.steps_per_iteration

        def act(key: Array, q: Array, avail: Array) -> Array:
            return explore.EXPLORERS[config.explore](key, q, avail, lane.hyper, step)

        def collect(key: Array) -> Any:
            return rollout.on_device(
                env,
                learn.model.utility,
                act,
                state.params["utility"],
                lane.env_params,
                key,
                config.segment_length,
            )

        key, *keys = jax.random.split(state.key, config.n_envs + 1)
        segments, episodes = jax.vmap(collect)(jnp.stack(keys))
        state, metrics = learn.learn(
            state._replace(key=key), segments, lane.env_params, lane.hyper, iteration
        )
        metrics["episodes"] = jnp.sum(episodes.ended)
        metrics["train_return"] = jnp.sum(jnp.where(episodes.ended, episodes.return_, 0.0))
        return state, metrics

    def advance(carry_lane: tuple[Carry, Lane], start: Array, stop: Array) -> Carry:
        carry, lane = carry_lane

        def body(iteration: Array, carry: Carry) -> Carry:
            state, metrics = collect_and_learn(carry.state, lane, iteration)
            return Carry(state, jax.tree.map(lambda a, b: a + b, carry.totals, metrics))

        # A traced number of iterations: a run is cut into chunks of any length without recompiling.
        return jax.lax.fori_loop(start, stop, body, carry)

    def test(carry_lane: tuple[Carry, Lane]) -> Metrics:
        (state, _), lane = carry_lane
        params = state.params
        metrics = {}
        if config.env["kind"] == "matrix":
            table = payoff.learned(learn.model, params, env, lane.env_params)
            metrics = payoff.score(table, lane.env_params) | table._asdict()
        key = jax.random.fold_in(state.key, 1)  # not split: evaluation leaves training alone
        slots = env.spec.episode_limit + 1
        return metrics | evaluate.greedy_episodes(
            env, learn.model.utility, params["utility"], lane.env_params, key, 1, slots
        )

    advance_all, test_all = over_lanes(advance), over_lanes(test)
    return Program(
        config=config,
        env=env,
        learner=learn,
        mesh=mesh,
        init=jax.jit(over_lanes(init), compiler_options=_effort("init")),
        advance=jax.jit(
            lambda c, lane, *at: advance_all((c, lane), *at),
            donate_argnums=0,
            compiler_options=_effort("advance"),
        ),
        evaluate=jax.jit(lambda c, lane: test_all((c, lane))),
    )


def _effort(what: str) -> dict[str, Any]:
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": CPU_EFFORT[what]}


def run(
    program: Program,
    carry: Carry,
    lane: Lane,
    start: int = 0,
    *,
    stop_early: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda iteration: None,
) -> Iterator[tuple[int, Carry, Report | None]]:
    """Train, and yield `(iteration, carry, report)` at every interval.

    The report is None at a last item that comes early because `stop_early()` became true; that
    carry continues bit for bit. The carry passed in is donated: use the one that comes out.

    Args:
      program: from `program`.
      carry: from `program.init`, or a checkpoint.
      lane: the lanes.
      start: iterations done before.
      stop_early: asked about twice a second.
      on_progress: told the iterations done, as often.
    """
    config, began = program.config, time.perf_counter()
    interval = config.iterations(config.eval_interval)
    iteration, chunk = start, 1
    while iteration < config.n_iterations:
        goal = min((iteration // interval + 1) * interval, config.n_iterations)
        since = iteration // interval * interval
        while iteration < goal:
            stop = min(iteration + chunk, goal)
            called = time.perf_counter()
            carry = jax.block_until_ready(program.advance(carry, lane, iteration, stop))
            elapsed = time.perf_counter() - called
            if iteration > start:  # the first call compiles
                chunk = max(1, round((stop - iteration) * min(SUBCHUNK_S / elapsed, 8)))
            iteration = stop
            on_progress(iteration)
            if stop_early() and iteration < goal:
                yield iteration, carry, None
                return
        metrics = report_metrics(program, carry, lane, since, iteration)
        totals = jax.tree.map(jnp.zeros_like, carry.totals)
        carry = carry._replace(totals=totals)
        step = iteration * config.steps_per_iteration
        yield iteration, carry, Report(step, metrics, time.perf_counter() - began)
        if stop_early():
            return


def report_metrics(
    program: Program, carry: Carry, lane: Lane, since: int, now: int
) -> dict[str, np.ndarray]:
    """Averages over iterations [since, now), and a greedy evaluation; arrays `[K, ...]`.

    What was not measured (a loss before learning starts) is NaN.
    """
    first = program.config.first_learning_iteration
    n_learned = max(0, now - max(since, first))
    totals = {k: np.asarray(v) for k, v in carry.totals.items()}
    episodes, returns = totals.pop("episodes"), totals.pop("train_return")
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {
            k: v / n_learned if n_learned else np.full_like(v, np.nan) for k, v in totals.items()
        }
        metrics["train_return"] = returns / episodes
    tested = program.evaluate(carry, lane)
    return metrics | {k: np.asarray(v) for k, v in tested.items()}
