"""A lane: one seed of one sweep value. What it carries on, and one iteration of its learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, EnvParams, Metrics, Segment, Traced, Tree
from jaxvff.learning.learner import Learner, LearnInput


class Lane(NamedTuple):
    """What differs between lanes and does not change in a run; leaves `[K, ...]`."""

    traced: Traced
    env_params: EnvParams
    seed: Array  # [K] uint32


class LaneState(NamedTuple):
    """What a lane carries on, whatever learns; leaves `[K, ...]` outside of a vmap."""

    learner: Tree
    env_steps: Array  # [] int, transitions collected
    stopped_at: Array  # [] int, env_steps when something was not finite and learning stopped; or -1
    key: Array
    plays: Tree  # [n_envs] rollout.Play, of games that go on; () where each iteration begins anew

    @property
    def running(self) -> Array:
        """`[]` bool, the lane has not stopped."""
        return self.stopped_at < 0

    def stopped_unless(self, good: Array) -> LaneState:
        """The lane stopped at its present step, unless all is good or it has stopped before."""
        stopped_at = jnp.where(good | ~self.running, self.stopped_at, self.env_steps)
        return self._replace(stopped_at=stopped_at)


class Carry(NamedTuple):
    """What a run carries on and a checkpoint keeps; leaves `[K, ...]`."""

    state: LaneState
    totals: Metrics  # sums since the last report

    def then(self, state: LaneState, metrics: Metrics) -> Carry:
        """The carry after one more iteration."""
        return Carry(state, jax.tree.map(lambda a, b: a + b, self.totals, metrics))


def fresh(
    learner: Learner,
    lane: Lane,
    iterate: Callable[[LaneState], tuple[LaneState, Metrics]],
    plays: Tree = (),
) -> Carry:
    """The carry that a lane begins with.

    Args:
      learner: of the lane.
      lane: without the axis K.
      iterate: one iteration, for the shapes of its metrics; it is not computed.
      plays: the games that go on from one iteration to the next.
    """
    key, learner_key = jax.random.split(jax.random.key(lane.seed))
    state = LaneState(
        learner=learner.init(learner_key, lane.traced),
        env_steps=jnp.array(0, jnp.int32),
        stopped_at=jnp.array(-1, jnp.int32),
        key=key,
        plays=plays,
    )
    metrics = jax.eval_shape(iterate, state)[1]
    return Carry(state, jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), metrics))


def learn(
    learner: Learner, lane: Lane, state: LaneState, segments: Segment, iteration: Array
) -> tuple[LaneState, Metrics]:
    """Hand what was collected to the learner; count it; stop where a number is not finite.

    Args:
      learner: of the lane.
      lane: without the axis K.
      state: of the lane.
      segments: what was collected, every field with a leading [N].
      iteration: `[]` int, iterations before this one; not batched over lanes.

    Returns:
      The new state, and the learner's metrics.
    """
    keys = jax.random.split(state.key, learner.n_keys + 1)  # the first one is the lane's next
    steps = jnp.sum(segments.mask, dtype=jnp.int32)
    state = state._replace(key=keys[0], env_steps=state.env_steps + steps)
    state = state.stopped_unless(_finite(segments.obs, segments.state, segments.reward))
    out = learner.learn(
        state.learner,
        LearnInput(
            segments=segments,
            env_params=lane.env_params,
            traced=lane.traced,
            iteration=iteration,
            env_steps=state.env_steps,
            running=state.running,
            keys=keys[1:],
        ),
    )
    return state._replace(learner=out.state).stopped_unless(out.running), out.metrics


def _finite(*arrays: Array) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in arrays]))
