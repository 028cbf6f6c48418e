"""Compiled programs over lanes: init, advance, evaluate, record; on the device as a whole."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxvff.core.errors import UserError
from jaxvff.core.types import (
    Array,
    Env,
    EnvParams,
    EnvState,
    HostEnv,
    Metrics,
    Params,
    Revise,
    Tree,
)
from jaxvff.learning.learner import Learner
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.explore import Explorer
from jaxvff.playing.rollout import Player
from jaxvff.settings import build
from jaxvff.settings.config import Config
from jaxvff.training import lanes, sharding
from jaxvff.training.lanes import Carry, Lane, LaneState

# What XLA does on a CPU. Initialisation runs once: compiling it without effort takes a third of the
# time. The training loop is as fast at LLVM's effort 1 as by default, and compiles in 70 % of the
# time. Fusion emitters make it a fifth faster and take as much again to compile, which evaluation
# does not run long enough to earn back (docs/decisions.md). XLA of jaxlib 0.12 has nothing else.
EFFORT, _FUSION = "xla_backend_optimization_level", "xla_cpu_use_fusion_emitters"
CPU_COMPILER: dict[str, dict[str, bool | str | int]] = {
    "init": {EFFORT: 0, _FUSION: False},
    "advance": {EFFORT: 1},
    "evaluate": {EFFORT: 1, _FUSION: False},
}

# DeviceLane.iterate
Iterate = Callable[[LaneState, Lane, Array], tuple[LaneState, Metrics]]
Advance = Callable[..., Carry]  # (carry, lane, start, stop); donates the carry


class Recording(NamedTuple):
    """Episodes, state by state; leaves `[lanes, episodes, ...]`."""

    states: EnvState  # [..., limit + 1, ...] as the environment's renderer takes them
    return_: Array
    length: Array  # transitions: the first length + 1 states count
    results: dict[str, Array]


class Program(NamedTuple):
    """The compiled functions of the lanes of one config, wherever their games are played."""

    config: Config
    env: Env | HostEnv
    learner: Learner
    mesh: Mesh
    init: Callable[[Lane], Carry]
    advance: Advance
    # The same program, with what training needs compiled ahead of time
    compile: Callable[[Carry, Lane], Program]
    evaluate: Callable[[Carry, Lane], dict[str, Array]]  # greedy play; arrays [K]
    # (carry, all lanes, which of them [k], episodes of each) -> greedy play
    record: Callable[[Carry, Lane, list[int], int], Recording]


class Stopped(UserError):
    """A run cannot go on, through no fault of the learner; nothing that it learned is lost."""

    def __init__(self, why: str, iteration: int, carry: Carry) -> None:
        """`carry` is the one after `iteration` iterations."""
        super().__init__(why)
        self.iteration, self.carry = iteration, carry


class DeviceLane(NamedTuple):
    """What one lane on the device is made of; its methods take the lane without its axis K."""

    config: Config
    env: Env
    learner: Learner
    explorer: Explorer
    revise: Callable[[Params], Revise] | None  # see build.acting_on_search

    def init(self, iterate: Iterate, lane: Lane) -> Carry:
        """The carry that the lane begins with; `iterate` says the shapes of its metrics."""
        plays: Tree = ()
        if self.config.goes_on:
            nobody = self._greedy({"utility": ()}, lane.env_params)
            key = jax.random.fold_in(jax.random.key(lane.seed), 2)
            keys = jax.random.split(key, self.config.n_envs)
            plays = jax.vmap(partial(rollout.begin, nobody))(keys)
        return lanes.fresh(self.learner, lane, lambda s: iterate(s, lane, jnp.array(0)), plays)

    def advance(
        self, iterate: Iterate, carry_lane: tuple[Carry, Lane], start: Array, stop: Array
    ) -> Carry:
        """The carry after the iterations from `start` to `stop`."""
        carry, lane = carry_lane

        def body(iteration: Array, carry: Carry) -> Carry:
            return carry.then(*iterate(carry.state, lane, iteration))

        # A traced number of iterations: a run is cut into chunks of any length without recompiling.
        return jax.lax.fori_loop(start, stop, body, carry)

    def iterate(self, state: LaneState, lane: Lane, iteration: Array) -> tuple[LaneState, Metrics]:
        """Collect from `n_envs` environments, then learn.

        Args:
          state: of the lane.
          lane: what does not change.
          iteration: `[]` int, iterations before this one; not batched over lanes.

        Returns:
          The new state, and metrics to be summed over iterations.
        """
        params = self.learner.acting(state.learner)

        def act(key: Array, q: Array, avail: Array) -> Array:
            return self.explorer(key, q, avail, lane.traced, state.env_steps)

        player = Player(
            env=self.env,
            utility=self.learner.model.utility,
            act=act,
            params=params["utility"],
            env_params=lane.env_params,
            revise=self.revise(params) if self.revise else None,
            draw=evaluate.drawing(self.learner.model, params, greedy=False),
        )
        key, *split = jax.random.split(state.key, self.config.n_envs + 1)
        keys, plays, n_slots = jnp.stack(split), state.plays, self.config.segment_length
        if self.config.goes_on:
            collect = partial(rollout.going_on, player, n_slots=n_slots)
            plays, segments, episodes = jax.vmap(collect)(plays, keys)
        else:
            segments, episodes = jax.vmap(partial(rollout.on_device, player, n_slots=n_slots))(keys)
        state = state._replace(key=key, plays=plays)
        state, metrics = lanes.learn(self.learner, lane, state, segments, iteration)
        ends = {"return": episodes.return_, **episodes.results}
        sums = {f"train_{k}": jnp.sum(jnp.where(episodes.ended, v, 0.0)) for k, v in ends.items()}
        return state, metrics | sums | {"episodes": jnp.sum(episodes.ended)}

    def evaluate(self, carry_lane: tuple[Carry, Lane]) -> Metrics:
        """Greedy play, and the environment's own score where it has one."""
        carry, lane = carry_lane
        params = self.learner.acting(carry.state.learner)
        player = self._greedy(params, lane.env_params)
        key = _test_key(carry.state.key)
        metrics = evaluate.greedy_episodes(player, key, self.config.eval_episodes)
        if self.env.score is not None:
            unit = self.learner.unit(carry.state.learner)
            judge = evaluate.judge(self.learner.model, params, unit)
            metrics |= self.env.score(judge, lane.env_params)._asdict()
        return metrics

    def record(self, carry: Carry, lane: Lane, which: list[int], n_episodes: int) -> Recording:
        """The first ones of the episodes that `evaluate` plays, of the lanes `which` of all."""

        def play(params: Params, key: Array, env_params: EnvParams) -> tuple[Tree, Array, Tree]:
            player = self._greedy(params, env_params)
            n_played = max(n_episodes, self.config.eval_episodes)
            keys = jax.random.split(_test_key(key), n_played)
            return jax.vmap(lambda k: rollout.recorded(player, k))(keys[:n_episodes])

        params = self.learner.acting(carry.state.learner)
        acting = {name: params[name] for name in ("utility", "context") if name in params}
        everything = (acting, carry.state.key, lane.env_params)
        chosen = jax.tree.map(lambda x: x[np.array(which)], everything)
        states, _, ends = jax.device_get(jax.jit(jax.vmap(play))(*chosen))
        return Recording(states, ends.return_, ends.length, ends.results)

    def _greedy(self, params: Params, env_params: EnvParams) -> Player:
        model = self.learner.model
        draw = evaluate.drawing(model, params, greedy=True)
        return evaluate.greedy_player(self.env, model.utility, params["utility"], env_params, draw)


def all_lanes(
    config: Config, env: Env | HostEnv, mesh: Mesh, n_lanes: int
) -> Callable[[Callable[..., Tree]], Callable[..., Tree]]:
    """sharding.over_lanes for the lanes of a program: of a function of one, that of all.

    Args:
      config: what is trained.
      env: what is played.
      mesh: from sharding.lane_mesh.
      n_lanes: K.
    """
    at_once = build.lanes_at_once(config, env, mesh.devices.flat[0].platform)
    return partial(sharding.over_lanes, mesh=mesh, n_lanes=n_lanes, per_device=at_once)


def device_program(
    config: Config, env: Env, n_lanes: int, devices: Sequence[jax.Device] | None = None
) -> Program:
    """The program for `n_lanes` lanes of a config; nothing is compiled before its first call.

    Args:
      config: that all lanes share but for traced options.
      env: on the device.
      n_lanes: K.
      devices: that the lanes are spread over; None: all of this process.
    """
    mesh = sharding.lane_mesh(n_lanes, devices)
    platform = mesh.devices[0].platform
    learner = build.learner(config, env, platform)
    device_lane = DeviceLane(
        config=config,
        env=env,
        learner=learner,
        explorer=build.explorer(config),
        revise=build.acting_on_search(config, learner.model),
    )
    options = partial(compiler, platform=platform)
    over_lanes = all_lanes(config, env, mesh, n_lanes)
    # Jitted, so that it is traced once for both; inline, so that the programs do not show it.
    iterate = jax.jit(device_lane.iterate, inline=True)
    init_all = over_lanes(partial(device_lane.init, iterate))
    advance_all = over_lanes(partial(device_lane.advance, iterate))
    test_all = over_lanes(device_lane.evaluate)
    evaluate = jax.jit(
        lambda carry, lane: test_all((carry, lane)), compiler_options=options("evaluate")
    )
    advance = jax.jit(
        lambda carry, lane, start, stop: advance_all((carry, lane), start, stop),
        donate_argnums=0,
        compiler_options=options("advance"),
    )

    def compile(carry: Carry, lane: Lane) -> Program:
        # Side by side, where there is more than one core. Tracing is Python's, and takes turns.
        with ThreadPoolExecutor(1) as pool:
            lowered = evaluate.lower(carry, lane)
            tested = pool.submit(lowered.compile)
            advanced = advance.lower(carry, lane, 0, 1).compile()
            return program._replace(advance=advanced, evaluate=tested.result())

    program = Program(
        config=config,
        env=env,
        learner=learner,
        mesh=mesh,
        init=jax.jit(init_all, compiler_options=options("init")),
        advance=advance,
        compile=compile,
        evaluate=evaluate,
        record=device_lane.record,
    )
    return program


def compiler(what: str, platform: str | None = None) -> dict[str, bool | str | int]:
    """Compiler options for a part of the program, from CPU_COMPILER.

    Args:
      what: a part, as in CPU_COMPILER.
      platform: of the devices; None: the default one.
    """
    if (platform or jax.default_backend()) != "cpu":
        return {}
    return {name: x for name, x in CPU_COMPILER[what].items() if _xla_knows(name, x)}


@functools.cache
def _xla_knows(name: str, value: bool | str | int) -> bool:
    """Whether this XLA has a compiler option for CPUs: jaxlib 0.12 lacks one that 0.10 has."""
    # Nothing lists them, but an unknown one is refused. A program that returns 0 takes 20 ms.
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" in str(error):
            return False
        raise
    return True


def _test_key(key: Array) -> Array:
    return jax.random.fold_in(key, 1)  # not split: evaluation leaves training alone
