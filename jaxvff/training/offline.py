"""The program of a run that learns from recorded episodes; greedy evaluation plays as ever."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from jaxvff.core.types import Array, Env, Metrics, Segment
from jaxvff.learning.learner import Learner
from jaxvff.settings.config import Config
from jaxvff.training import lanes
from jaxvff.training.lanes import Carry, Lane, LaneState
from jaxvff.training.program import Program, all_lanes, compiler, device_program


class OfflineLane(NamedTuple):
    """The pure functions of one lane; its methods take the lane without its axis K.

    `recorded` are all episodes, fields `[D, T, ...]`, the same for all lanes.
    """

    config: Config
    learner: Learner

    def init(self, recorded: Segment, lane: Lane) -> Carry:
        """The carry that the lane begins with; of `recorded` the shapes alone are looked at."""
        zero, recorded = jnp.array(0), jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), recorded)
        return lanes.fresh(
            self.learner, lane, lambda state: self.iterate(state, lane, zero, recorded)
        )

    def advance(
        self, carry_lane: tuple[Carry, Lane], start: Array, stop: Array, recorded: Segment
    ) -> Carry:
        """The carry after the iterations from `start` to `stop`."""
        carry, lane = carry_lane

        def body(iteration: Array, carry: Carry) -> Carry:
            return carry.then(*self.iterate(carry.state, lane, iteration, recorded))

        return jax.lax.fori_loop(start, stop, body, carry)

    def iterate(
        self, state: LaneState, lane: Lane, iteration: Array, recorded: Segment
    ) -> tuple[LaneState, Metrics]:
        """Draw `n_envs` episodes at random, with replacement, then learn.

        Args:
          state: of the lane.
          lane: what does not change.
          iteration: `[]` int, iterations before this one; not batched over lanes.
          recorded: all episodes.

        Returns:
          The new state, and metrics to be summed over iterations.
        """
        key, draw_key = jax.random.split(state.key)
        drawn = jax.random.randint(draw_key, (self.config.n_envs,), 0, len(recorded.reward))
        segments = jax.tree.map(lambda x: x[drawn], recorded)
        state = state._replace(key=key)
        state, metrics = lanes.learn(self.learner, lane, state, segments, iteration)
        return state, metrics | {"episodes": jnp.array(float(self.config.n_envs))}


def offline_program(config: Config, env: Env, n_lanes: int, recorded: Segment) -> Program:
    """The program for `n_lanes` lanes of a config; nothing is compiled before its first call.

    Args:
      config: that all lanes share but for traced options.
      env: that greedy evaluation plays, on the device.
      n_lanes: K.
      recorded: episodes, NumPy arrays `[D, T, ...]`.
    """
    played = device_program(config, env, n_lanes)
    of_lane = OfflineLane(config, played.learner)
    over_lanes = all_lanes(config, env, played.mesh, n_lanes)
    everywhere = NamedSharding(played.mesh, PartitionSpec())
    data = jax.device_put(jax.tree.map(jnp.asarray, recorded), everywhere)
    options = partial(compiler, platform=played.mesh.devices.flat[0].platform)
    shapes = jax.eval_shape(lambda: recorded)
    init = jax.jit(over_lanes(partial(of_lane.init, shapes)), compiler_options=options("init"))
    advance_all = over_lanes(of_lane.advance)
    # The episodes are arguments: as constants they would be compiled into the program.
    advance = jax.jit(
        lambda carry, lane, start, stop, data: advance_all((carry, lane), start, stop, data),
        donate_argnums=0,
        compiler_options=options("advance"),
    )

    def with_data(f: Callable[..., Carry]) -> Callable[..., Carry]:
        return lambda *args: f(*args, data)

    def compile(carry: Carry, lane: Lane) -> Program:
        advanced = advance.lower(carry, lane, 0, 1, data).compile()
        return program._replace(advance=with_data(advanced))

    program = played._replace(init=init, advance=with_data(advance), compile=compile)
    return program
