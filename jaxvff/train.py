"""The training loop: compiled programs over lanes, and a generator of reports around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff import evaluate, explore, learner, ordering, payoff, replay, rollout, sharding
from jaxvff.config import Config
from jaxvff.losses import Model
from jaxvff.nets import Utility
from jaxvff.rollout import Player
from jaxvff.types import Array, Env, HostEnv, Hyper, Metrics, TrainState, UserError

# LLVM's effort on a CPU. Initialisation runs once: compiling it at 0 takes a third of the time; for
# the training loop 1 is as fast as the default and compiles in 70 % of the time (docs/design.md).
CPU_EFFORT = {"init": 0, "advance": 1}
SUBCHUNK_S = (0.5, 10.0)  # wall-clock between two looks at the progress bar and at Ctrl-C
COPIED = 2.5e9  # bytes/s of lanes' state that a call takes in and gives back, on two cores


class Lane(NamedTuple):
    """What differs between lanes and does not change in a run; leaves `[K, ...]`."""

    hyper: Hyper
    env_params: Any
    seed: Array  # [K] uint32


class Carry(NamedTuple):
    """What a run carries on and a checkpoint keeps; leaves `[K, ...]`."""

    state: TrainState
    totals: Metrics  # sums since the last report

    def then(self, state: TrainState, metrics: Metrics) -> Carry:
        """The carry after one more iteration."""
        return Carry(state, jax.tree.map(lambda a, b: a + b, self.totals, metrics))


class Report(NamedTuple):
    """What a run tells at an interval; metrics are arrays `[K]`."""

    step: int  # env steps per lane
    metrics: dict[str, np.ndarray]
    wall_s: float  # since the generator started


class Program(NamedTuple):
    """The compiled functions of one group of lanes."""

    config: Config
    env: Env | HostEnv
    learner: learner.Learner
    mesh: Any
    init: Callable[[Lane], Carry]
    advance: Callable[..., Carry]  # (carry, lane, start, stop); donates the carry
    compile: Callable[[Carry, Lane], Callable[..., Carry]]  # `advance`, compiled ahead of time
    evaluate: Callable[[Carry, Lane], dict[str, Any]]  # greedy play; arrays [K]
    # (carry, all lanes, places k of those that are wanted, episodes of each): greedy play
    record: Callable[[Carry, Lane, list[int], int], Recording]


class Recording(NamedTuple):
    """Episodes, state by state; leaves `[lanes, episodes, ...]`."""

    states: Any  # [..., limit + 1, ...] as the environment's renderer takes them
    return_: Array
    length: Array  # transitions: the first length + 1 states count
    results: dict[str, Array]


class Stopped(UserError):
    """A run cannot go on, through no fault of the learner; nothing that it learned is lost."""

    def __init__(self, why: str, iteration: int, carry: Carry) -> None:
        """`carry` is the one after `iteration` iterations."""
        super().__init__(why)
        self.iteration, self.carry = iteration, carry


def program(config: Config, env: Env, n_lanes: int) -> Program:
    """The program for `n_lanes` lanes of a config; nothing is compiled before its first call."""
    learn = learner.make(config, env)
    mesh = sharding.lane_mesh(n_lanes)

    def over_lanes(f: Callable) -> Callable:
        return sharding.over_lanes(f, mesh, n_lanes, config.lanes_per_device)

    def init(lane: Lane) -> Carry:
        return fresh(learn, lane, lambda s: iterate(config, env, learn, s, lane, jnp.array(0)))

    def advance(carry_lane: tuple[Carry, Lane], start: Array, stop: Array) -> Carry:
        carry, lane = carry_lane

        def body(iteration: Array, carry: Carry) -> Carry:
            return carry.then(*iterate(config, env, learn, carry.state, lane, iteration))

        # A traced number of iterations: a run is cut into chunks of any length without recompiling.
        return jax.lax.fori_loop(start, stop, body, carry)

    def test(carry_lane: tuple[Carry, Lane]) -> Metrics:
        carry, lane = carry_lane
        return greedy_metrics(config, env, learn.model, carry.state, lane)

    advance_all, test_all = over_lanes(advance), over_lanes(test)
    advance_jit = jax.jit(
        lambda c, lane, *at: advance_all((c, lane), *at),
        donate_argnums=0,
        compiler_options=effort("advance"),
    )
    return Program(
        config=config,
        env=env,
        learner=learn,
        mesh=mesh,
        init=jax.jit(over_lanes(init), compiler_options=effort("init")),
        advance=advance_jit,
        compile=lambda carry, lane: advance_jit.lower(carry, lane, 0, 1).compile(),
        evaluate=jax.jit(lambda c, lane: test_all((c, lane))),
        record=partial(_record, config, env, learn.model.utility),
    )


def fresh(
    learn: learner.Learner, lane: Lane, step: Callable[[TrainState], tuple[TrainState, Metrics]]
) -> Carry:
    """The carry that a lane begins with; `step` is one iteration, and is not computed."""
    state = learn.init(jax.random.key(lane.seed), lane.hyper)
    metrics = jax.eval_shape(step, state)[1]
    return Carry(state, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), metrics))


def iterate(
    config: Config,
    env: Env,
    learn: learner.Learner,
    state: TrainState,
    lane: Lane,
    iteration: Array,
) -> tuple[TrainState, Metrics]:
    """One iteration of one lane: collect from `n_envs` environments, then learn.

    Args:
      config: the static part of what happens.
      env: the environment.
      learn: the learner.
      state: the lane's state.
      lane: the lane's hyper-parameters and environment parameters, without their axis K.
      iteration: `[]` int, iterations before this one; not batched over lanes.

    Returns:
      The new state, and metrics to be summed over iterations.
    """

    def act(key: Array, q: Array, avail: Array) -> Array:
        return explore.EXPLORERS[config.explore](key, q, avail, lane.hyper, state.env_steps)

    revise = None
    if config.act_search > 0:
        asked = {k: v for k, v in config.method.items() if k in ordering.Budget._fields}
        mixer, share = state.params["mixer"], config.act_search
        revise = ordering.seeking(learn.model, mixer, share, ordering.Budget(**asked))
    player = Player(env, learn.model.utility, act, state.params["utility"], lane.env_params, revise)
    key, *keys = jax.random.split(state.key, config.n_envs + 1)
    segments, episodes = jax.vmap(lambda k: rollout.on_device(player, k, config.segment_length))(
        jnp.stack(keys)
    )
    state, metrics = learn.learn(
        state._replace(key=key), segments, lane.env_params, lane.hyper, iteration
    )
    ends = {"return": episodes.return_, **episodes.results}
    sums = {f"train_{k}": jnp.sum(jnp.where(episodes.ended, v, 0.0)) for k, v in ends.items()}
    return state, metrics | sums | {"episodes": jnp.sum(episodes.ended)}


def greedy_metrics(
    config: Config, env: Env, model: Model, state: TrainState, lane: Lane
) -> Metrics:
    """Greedy play of one lane, and the learned table where the environment is a matrix game."""
    player = evaluate.greedy_player(env, model.utility, state.params["utility"], lane.env_params)
    metrics = evaluate.greedy_episodes(player, _test_key(state.key), config.eval_episodes)
    if config.env["kind"] == "matrix":
        table = payoff.learned(model, state.params, env, lane.env_params)
        metrics |= payoff.score(table, lane.env_params) | table._asdict()
    return metrics


def _record(
    config: Config,
    env: Env,
    utility: Utility,
    carry: Carry,
    lane: Lane,
    lanes: list[int],
    n_episodes: int,
) -> Recording:
    """The first ones of the episodes that Program.evaluate plays."""

    def one(params: Any, key: Array, env_params: Any) -> tuple[Any, Array, rollout.Play]:
        player = evaluate.greedy_player(env, utility, params, env_params)
        keys = jax.random.split(_test_key(key), max(n_episodes, config.eval_episodes))
        return jax.vmap(lambda k: rollout.recorded(player, k))(keys[:n_episodes])

    state = carry.state
    chosen = jax.tree.map(
        lambda x: x[np.array(lanes)], (state.params["utility"], state.key, lane.env_params)
    )
    states, _, play = jax.device_get(jax.jit(jax.vmap(one))(*chosen))
    return Recording(states, play.return_, play.length, play.results)


def _test_key(key: Array) -> Array:
    return jax.random.fold_in(key, 1)  # not split: evaluation leaves training alone


def effort(what: str) -> dict[str, Any]:
    """Compiler options for a part of the program, from CPU_EFFORT."""
    if jax.default_backend() != "cpu":
        return {}
    return {"xla_backend_optimization_level": CPU_EFFORT[what]}


def run(
    program: Program,
    carry: Carry,
    lane: Lane,
    start: int = 0,
    *,
    save_every: int = 0,
    stop_early: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda iteration: None,
) -> Iterator[tuple[int, Carry, Report | None]]:
    """Train, and yield `(iteration, carry, report)` at every interval.

    The report is None at an item between reports: where `save_every` asks for one, and the last
    item if `stop_early()` became true. Every carry that comes out continues bit for bit; the one
    passed in is donated.

    Args:
      program: from `program`.
      carry: from `program.init`, or a checkpoint.
      lane: the lanes.
      start: iterations done before.
      save_every: iterations between items that are there to be saved; 0: none.
      stop_early: asked about twice a second, in large runs every ten seconds.
      on_progress: told the iterations done, as often.
    """
    config, began = program.config, time.perf_counter()
    interval = config.iterations(config.eval_interval)
    iteration, chunk = start, 1
    # However little a call does, it copies the state of all lanes: that has to stay a tenth of it.
    copying = replay.nbytes(carry) / COPIED
    wanted = min(max(SUBCHUNK_S[0], 10 * copying), SUBCHUNK_S[1])
    while iteration < config.n_iterations:
        stops = [(iteration // n + 1) * n for n in (interval, save_every) if n]
        goal = min(*stops, config.n_iterations)
        while iteration < goal:
            stop = min(iteration + chunk, goal)
            called = time.perf_counter()
            carry = jax.block_until_ready(program.advance(carry, lane, iteration, stop))
            elapsed = time.perf_counter() - called
            if iteration > start:  # the first call compiles
                chunk = max(1, round((stop - iteration) * min(wanted / elapsed, 8)))
            iteration = stop
            on_progress(iteration)
            if stop_early() and iteration < goal:
                yield iteration, carry, None
                return
        report = None
        if iteration % interval == 0 or iteration == config.n_iterations:
            metrics = report_metrics(program, carry, lane)
            step = iteration * config.steps_per_iteration
            report = Report(step, metrics, time.perf_counter() - began)
            carry = carry._replace(totals=jax.tree.map(jnp.zeros_like, carry.totals))
        yield iteration, carry, report
        if stop_early():
            return


def report_metrics(program: Program, carry: Carry, lane: Lane) -> dict[str, np.ndarray]:
    """Averages since the last report, and a greedy evaluation; arrays `[K, ...]`.

    What was not measured (a loss before learning starts) is NaN, and so is everything of a lane
    that stopped, whose successes are False.
    """
    totals = {k: np.asarray(v) for k, v in carry.totals.items()}
    episodes = totals.pop("episodes")
    learned = totals.pop("learned")  # iterations in which there was an update
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {
            k: v / (episodes if k.startswith("train_") else learned) for k, v in totals.items()
        }
    tested = program.evaluate(carry, lane)
    metrics |= {k: np.array(v) for k, v in tested.items()}
    stopped = np.asarray(carry.state.stopped_at)
    for values in metrics.values():
        values[stopped >= 0] = False if values.dtype == bool else np.nan
    return metrics | {"env_steps": np.asarray(carry.state.env_steps), "stopped_at": stopped}
