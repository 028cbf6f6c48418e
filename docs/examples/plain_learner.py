"""QMIX from the pure functions of jaxvff: a whole learner, to be taken apart.

python docs/examples/plain_learner.py
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff.core.segments import blank_segment
from jaxvff.core.types import Array
from jaxvff.envs import ENVS
from jaxvff.learning.learner import init_params
from jaxvff.learning.options import ReplayOptions
from jaxvff.learning.replay import uniform
from jaxvff.losses.contract import LossInput, Model
from jaxvff.losses.targets import greedy_by_online, td_lambda_return
from jaxvff.losses.td import Td
from jaxvff.mixers.qmix import Qmix
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.explore import epsilon_greedy

N_ENVS, EPSILON, SYNC_EVERY, ITERATIONS = 8, 0.5, 50, 1000
kind = ENVS["matrix"]
env = kind.make(kind.options(game=None, payoff=[[8.0, 3.0, 2.0], [3.0, 1.0, 0.0], [2.0, 0.0, 0.0]]))
utility = Utility(
    Mlp(env.spec.n_actions, 32), env.spec, shared=True, agent_id=True, last_action=False
)
mixer = Qmix(env.spec)
model = Model(utility, mixer, greedy_by_online, td_lambda_return, n_step=1)
replay = uniform(ReplayOptions(buffer_size=500, batch_size=32))
optimizer, loss = optax.adam(3e-3), Td()


class Traced(NamedTuple):
    """What the loss reads beside the networks."""

    gamma: float = 0.99
    td_lambda: float = 0.6


class State(NamedTuple):
    """What an iteration hands to the next."""

    params: Any
    target: Any
    opt: Any
    replay: Any


def fresh(key: Array) -> State:
    """Before the first iteration."""
    params = init_params(model, key)
    return State(params, params, optimizer.init(params), replay.init(blank_segment(env.spec, 2)))


def batch_loss(params: Any, target: Any, batch: Any) -> Array:
    """The mean over the transitions of a batch of segments [B, T]."""

    def of_segment(segment: Any) -> Array:
        return loss(LossInput(model, params, target, segment, Traced())).per_slot

    return jnp.sum(jax.vmap(of_segment)(batch)) / jnp.sum(batch.mask)


def iterate(state: State, x: tuple[Array, Array]) -> tuple[State, Array]:
    """Play, store, sample, take a gradient step; now and then copy the target network."""

    def explore(key: Array, q: Array, avail: Array) -> Array:
        return epsilon_greedy(key, q, avail, jnp.array(EPSILON))

    i, (play_key, sample_key) = x[0], jax.random.split(x[1])
    player = rollout.Player(env, utility, explore, state.params["utility"], env.params)
    keys = jax.random.split(play_key, N_ENVS)
    segments, _ = jax.vmap(lambda key: rollout.on_device(player, key, n_slots=2))(keys)
    stored = replay.add(state.replay, segments)
    batch = replay.sample(stored, sample_key).stored
    value, grads = jax.value_and_grad(batch_loss)(state.params, state.target, batch)
    updates, opt = optimizer.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    sync = i % SYNC_EVERY == 0
    target = jax.tree.map(lambda new, old: jnp.where(sync, new, old), params, state.target)
    return State(params, target, opt, stored), value


def train(seed: int) -> tuple[State, Array]:
    """The last state, and the loss of every iteration."""
    init_key, key = jax.random.split(jax.random.key(seed))
    xs = (jnp.arange(ITERATIONS), jax.random.split(key, ITERATIONS))
    return jax.lax.scan(iterate, fresh(init_key), xs)


def greedy_return(state: State) -> Array:
    """What the agents earn when each takes its best action."""
    player = evaluate.greedy_player(env, utility, state.params["utility"], env.params)
    return evaluate.greedy_episodes(player, jax.random.key(0), 1)["test_return"]


if __name__ == "__main__":
    states, losses = jax.jit(jax.vmap(train))(jnp.arange(4))
    print("loss, first and last:", losses[:, 0], losses[:, -1])
    print("greedy return of four seeds; 8 is the best:", jax.vmap(greedy_return)(states))
