"""The one compiled update: store segments, sample, take gradient steps, sync the target."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff import replay
from jaxvff.config import Config
from jaxvff.losses import Loss, Model, Values, joint_steps
from jaxvff.methods import METHODS
from jaxvff.nets import UTILITIES, Utility
from jaxvff.options import bind_loss, bind_mixer
from jaxvff.targets import BOOTSTRAPS, RETURNS
from jaxvff.types import Array, Codec, Env, Hyper, Metrics, Segment, TrainState

# Gradient transforms without their learning rate, which is traced. RMSprop's decay and epsilon
# are PyMARL2's; the others are optax's defaults.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "rmsprop": lambda: optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False),
    "radam": optax.scale_by_radam,
    "sgd": optax.identity,
}


class Learner(NamedTuple):
    """The learner of one lane, as pure functions; seeds are vmapped from outside."""

    model: Model
    init: Callable[[Array, Hyper], TrainState]
    learn: Callable[..., tuple[TrainState, Metrics]]


def make_model(config: Config, env: Env) -> Model:
    """The networks and target rules that a config asks for."""
    net = UTILITIES[config.utility](env.spec.n_actions, config.hidden_dim)
    utility = Utility(
        net, env.spec, config.hidden_dim, config.shared, config.agent_id, config.last_action
    )
    mixer = bind_mixer(config.method, env.spec, config.hidden_dim)
    return Model(utility, mixer, BOOTSTRAPS[config.target], RETURNS[config.returns], config.n_step)


def make(config: Config, env: Env) -> Learner:
    """The learner that a config asks for, in the environment `env`."""
    model, loss = make_model(config, env), bind_loss(config.method)
    optimizer = _optimizer(config)
    buffer = replay.make(config.buffer_size, config.batch_size)
    codec = env.codec or replay.plain_codec(env.spec)

    def init(key: Array, hyper: Hyper) -> TrainState:
        """Fresh state of one lane."""
        key, param_key = jax.random.split(key)
        params = init_params(config, model, param_key)
        params = jax.tree.map(lambda x: x * hyper.init_scale, params)
        item = codec.pack(replay.blank_segment(env.spec, config.segment_length))
        return TrainState(params, params, optimizer.init(params), buffer.init(item), key)

    def learn(
        state: TrainState, segments: Segment, env_params: Any, hyper: Hyper, iteration: Array
    ) -> tuple[TrainState, Metrics]:
        """Store `segments` (every field with a leading [N]), then update.

        Args:
          state: the lane's state.
          segments: what was collected in this iteration.
          env_params: the environment's traced parameters, for the codec.
          hyper: traced hyper-parameters.
          iteration: `[]` int, the number of iterations before this one. Not batched over lanes:
            it decides branches, and a batched branch computes both sides.

        Returns:
          The new state, and metrics averaged over the updates; zeros before learning starts.
        """
        key, *keys = jax.random.split(state.key, config.updates + 1)
        stored = jax.vmap(codec.pack)(segments)
        state = state._replace(key=key, replay=buffer.add(state.replay, stored))
        first = config.first_learning_iteration

        def update(carry: TrainState, x: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
            key, count = x
            batch = buffer.sample(carry.replay, key).experience
            return _update(carry, batch, env_params, hyper, count)

        def updates(state: TrainState) -> tuple[TrainState, Metrics]:
            counts = (iteration - first) * config.updates + jnp.arange(config.updates)
            if config.updates == 1:
                return update(state, (keys[0], counts[0]))
            state, metrics = jax.lax.scan(update, state, (jnp.stack(keys), counts))
            return state, jax.tree.map(jnp.mean, metrics)

        def skip(state: TrainState) -> tuple[TrainState, Metrics]:
            shapes = jax.eval_shape(updates, state)[1]
            return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        # The replay stays outside of the branches: what a cond returns, it may copy.
        learned, metrics = jax.lax.cond(
            iteration >= first,
            lambda s: _without_replay(updates, s),
            lambda s: _without_replay(skip, s),
            state,
        )
        return learned._replace(replay=state.replay), metrics

    def _update(
        state: TrainState, batch: Any, env_params: Any, hyper: Hyper, count: Array
    ) -> tuple[TrainState, Metrics]:
        def objective(params: Any) -> tuple[Array, Metrics]:
            return batch_loss(
                model, loss, codec, params, state.target_params, batch, env_params, hyper
            )

        (value, metrics), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = jax.tree.map(lambda p, u: p - hyper.lr * u, state.params, steps)
        target = jax.lax.cond(
            (count + 1) % config.target_interval == 0,
            lambda: optax.incremental_update(params, state.target_params, hyper.target_tau),
            lambda: state.target_params,
        )
        # "learned" counts: what is summed over iterations is divided by it.
        metrics |= {"loss": value, "grad_norm": optax.tree.norm(grads), "learned": jnp.ones(())}
        state = state._replace(params=params, target_params=target, opt_state=opt_state)
        return state, metrics

    return Learner(model, init, learn)


def init_params(config: Config, model: Model, key: Array) -> dict[str, Any]:
    """Parameters `{"utility", "mixer"}`, with `"central"` for a method that has it."""
    utility_key, mixer_key, central_key = jax.random.split(key, 3)
    spec = model.utility.spec
    values = Values(
        jnp.zeros((spec.n_agents, spec.n_actions)), jnp.zeros((spec.n_agents, config.hidden_dim))
    )
    step = joint_steps(
        values,
        jnp.zeros(spec.n_agents, int),
        jnp.ones((spec.n_agents, spec.n_actions), bool),
        jnp.zeros(spec.state_size),
    )
    params = {
        "utility": model.utility.init(utility_key),
        "mixer": model.mixer.init(mixer_key, step),
    }
    if METHODS[config.method["name"]].central:
        params["central"] = model.utility.init(central_key)
    return params


def batch_loss(
    model: Model,
    loss: Loss,
    codec: Codec,
    params: Any,
    target_params: Any,
    batch: Any,
    env_params: Any,
    hyper: Hyper,
) -> tuple[Array, Metrics]:
    """The loss of a stored batch (leading [B]), averaged over its valid slots, and its metrics."""

    def one(stored: Any) -> tuple[Array, Metrics, Array]:
        segment = replay.without_padding(codec.unpack(stored, env_params))
        return *loss(model, params, target_params, segment, hyper), segment.mask

    count = jnp.ones(len(jax.tree.leaves(batch)[0]))
    if codec.merge is not None:
        batch, count = codec.merge(batch, env_params)
    per_slot, metrics, mask = jax.vmap(one)(batch)  # [B, T]
    n_valid = jnp.maximum(jnp.sum(count[:, None] * mask), 1)
    return jax.tree.map(lambda x: jnp.sum(count[:, None] * x) / n_valid, (per_slot, metrics))


def _optimizer(config: Config) -> optax.GradientTransformation:
    # Flattened: one vector instead of dozens of small leaves, less to compile and to launch.
    clip = optax.clip_by_global_norm(config.grad_clip)
    return optax.flatten(optax.chain(clip, OPTIMIZERS[config.optimizer]()))


def _without_replay(f: Any, state: TrainState) -> tuple[TrainState, Metrics]:
    state, metrics = f(state)
    return state._replace(replay=None), metrics
