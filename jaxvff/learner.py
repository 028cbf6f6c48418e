"""The one compiled update: store segments, sample, take gradient steps, sync the target."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax

from jaxvff import replay
from jaxvff.bonus import BONUSES
from jaxvff.config import Config
from jaxvff.explore import linear
from jaxvff.losses import Loss, Model, Values, joint_steps
from jaxvff.methods import METHODS
from jaxvff.nets import UTILITIES, Utility
from jaxvff.options import bind_loss, bind_mixer
from jaxvff.ordering import Recall
from jaxvff.targets import BOOTSTRAPS, RETURNS
from jaxvff.types import Array, Codec, Env, HostEnv, Hyper, Metrics, Segment, TrainState

# Gradient transforms without their learning rate, which is traced. RMSprop's decay and epsilon
# are PyMARL2's; the others are optax's defaults.
OPTIMIZERS: dict[str, Callable[[], optax.GradientTransformation]] = {
    "adam": optax.scale_by_adam,
    "rmsprop": lambda: optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False),
    "radam": optax.scale_by_radam,
    "sgd": optax.identity,
}


# Of what other segments found, the best of so many by a slot's own joint value is a start: in a
# state that many samples show, the best there is takes over within a few updates.
OTHERS = 4


class Learner(NamedTuple):
    """The learner of one lane, as pure functions; seeds are vmapped from outside."""

    model: Model
    init: Callable[[Array, Hyper], TrainState]
    learn: Callable[..., tuple[TrainState, Metrics]]


def make_model(config: Config, env: Env | HostEnv) -> Model:
    """The networks and target rules that a config asks for."""
    detached = METHODS[config.method["name"]].detached
    net = UTILITIES[config.utility](env.spec.n_actions, config.hidden_dim, detached)
    utility = Utility(
        net, env.spec, config.hidden_dim, config.shared, config.agent_id, config.last_action
    )
    mixer = bind_mixer(config.method, env.spec, config.hidden_dim)
    return Model(utility, mixer, BOOTSTRAPS[config.target], RETURNS[config.returns], config.n_step)


def make(config: Config, env: Env | HostEnv) -> Learner:
    """The learner that a config asks for, in the environment `env`."""
    model, loss = make_model(config, env), bind_loss(config.method)
    optimizer = _optimizer(config)
    exponents = (config.priority_exponent, config.importance_exponent)
    buffer = replay.REPLAYS[config.replay](config.buffer_size, config.batch_size, exponents)
    bonus = BONUSES[config.bonus](config.rnd_dim)
    codec = env.codec or replay.plain_codec(env.spec)
    searches = METHODS[config.method["name"]].searches

    def init(key: Array, hyper: Hyper) -> TrainState:
        """Fresh state of one lane."""
        key, param_key = jax.random.split(key)
        params = init_params(config, model, param_key)
        params = jax.tree.map(lambda x: x * hyper.init_scale, params)
        item = codec.pack(replay.blank_segment(env.spec, config.segment_length))
        elites: Any = ()
        if searches:
            item = replay.Placed(item, jnp.array(0, jnp.int32))
            elites = replay.no_elites(
                env.spec, config.buffer_size, config.segment_length,
                jax.random.fold_in(param_key, 2),
            )  # fmt: skip
        return TrainState(
            params=params,
            target_params=params,
            opt_state=optimizer.init(params),
            # fold_in, not split: with and without a bonus, all else draws the same numbers.
            bonus=bonus.init(jax.random.fold_in(param_key, 1), env.spec.state_size),
            replay=buffer.init(item),
            elites=elites,
            env_steps=jnp.array(0, jnp.int32),
            stopped_at=jnp.array(-1, jnp.int32),
            key=key,
        )

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
        if searches:
            elites, place = state.elites.add(segments.action)
            state, stored = state._replace(elites=elites), replay.Placed(stored, place)
        state = state._replace(
            key=key,
            replay=buffer.add(state.replay, stored),
            env_steps=state.env_steps + jnp.sum(segments.mask, dtype=jnp.int32),
        )
        state = _stop_unless(_finite((segments.obs, segments.state, segments.reward)), state)
        first = config.first_learning_iteration

        def update(carry: TrainState, x: tuple[Array, Array]) -> tuple[TrainState, Metrics]:
            key, count = x
            carry = carry._replace(replay=_with_experience(carry.replay, state.replay))
            sample = buffer.sample(carry.replay, key)
            # fold_in, not split: with and without a search, the same segments are drawn.
            search_key = jax.random.fold_in(key, 1)
            learned, metrics, error = _update(carry, sample, env_params, hyper, count, search_key)
            ranked = buffer.prioritise(learned.replay, sample, error)
            return learned._replace(replay=_without_experience(ranked)), metrics

        def updates(carry: TrainState) -> tuple[TrainState, Metrics]:
            counts = (iteration - first) * config.updates + jnp.arange(config.updates)
            if config.updates == 1:
                return update(carry, (keys[0], counts[0]))
            carry, metrics = jax.lax.scan(update, carry, (jnp.stack(keys), counts))
            return carry, jax.tree.map(jnp.mean, metrics)

        def skip(carry: TrainState) -> tuple[TrainState, Metrics]:
            shapes = jax.eval_shape(updates, carry)[1]
            return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        # The experience stays outside of loops and branches: what they return, they may copy.
        slim = state._replace(replay=_without_experience(state.replay))
        learned, metrics = jax.lax.cond(iteration >= first, updates, skip, slim)
        return learned._replace(replay=_with_experience(learned.replay, state.replay)), metrics

    def _update(
        state: TrainState,
        sample: replay.Sample,
        env_params: Any,
        hyper: Hyper,
        count: Array,
        key: Array,
    ) -> tuple[TrainState, Metrics, Array]:
        extra, curiosity, recall, elites = None, state.bonus, None, state.elites
        if searches:
            stored, place = sample.stored
            sample = sample._replace(stored=stored)
            recall = partial(remembered, elites, place, key)
        if config.bonus != "none":
            seen = jax.vmap(lambda x: replay.without_padding(codec.unpack(x, env_params)))
            batch = seen(sample.stored)
            novelty = bonus.reward(state.bonus, batch)
            extra = hyper.bonus_beta * novelty
            curiosity = bonus.update(state.bonus, batch, hyper.rnd_lr)

        def objective(params: Any) -> tuple[Array, tuple[Metrics, Array, Any]]:
            return batch_loss(
                model, loss, codec, params, state.target_params, sample, extra, env_params, hyper,
                recall, config.search_fraction,
            )  # fmt: skip

        (value, aux), grads = jax.value_and_grad(objective, has_aux=True)(state.params)
        metrics, error, found = aux
        if searches:
            whose, action, rows = found
            beyond = len(elites.action)
            where = place.at[whose].get(mode="fill", fill_value=beyond)
            elites = elites.improve(where, action, rows, metrics.pop("drift"))
        norm = optax.tree.norm(grads)
        steps, opt_state = optimizer.update(grads, state.opt_state, state.params)
        lr = hyper.lr * linear(1.0, hyper.lr_final, state.env_steps, hyper.lr_steps)
        params = jax.tree.map(lambda p, u: p - lr * u, state.params, steps)
        state = _stop_unless(jnp.isfinite(value) & jnp.isfinite(norm), state)
        runs = state.stopped_at < 0  # a lane that stopped keeps its last good parameters
        params, opt_state, curiosity = jax.tree.map(
            lambda new, old: jnp.where(runs, new, old),
            (params, opt_state, curiosity),
            (state.params, state.opt_state, state.bonus),
        )
        target = jax.lax.cond(
            (count + 1) % config.target_interval == 0,
            lambda: optax.incremental_update(params, state.target_params, hyper.target_tau),
            lambda: state.target_params,
        )
        # "learned" counts: what is summed over iterations is divided by it.
        metrics |= {"loss": value, "grad_norm": norm, "learned": jnp.ones(())}
        if extra is not None:
            metrics["bonus"] = jnp.sum(novelty) / jnp.maximum(jnp.sum(batch.mask), 1)
        state = state._replace(
            params=params, target_params=target, opt_state=opt_state, bonus=curiosity,
            elites=elites,
        )  # fmt: skip
        return state, metrics, error

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
    sample: replay.Sample,
    extra: Array | None,
    env_params: Any,
    hyper: Hyper,
    recall: Callable[[Array], Recall] | None = None,
    search_fraction: float = 1.0,
) -> tuple[Array, tuple[Metrics, Array, Any]]:
    """The loss of a sample, averaged over its valid slots.

    Args:
      model: networks and target rules.
      loss: of one segment.
      codec: of the replay.
      params: online parameters.
      target_params: parameters of the target network.
      sample: what the replay drew, B segments.
      extra: rewards `[B, T]` added to those of the segments; None: none.
      env_params: the environment's traced parameters.
      hyper: traced hyper-parameters.
      recall: of a loss that searches: segments of the sample `[M]` int -> leaves `[M, ...]`.
      search_fraction: share of the segments that such a loss searches.

    Returns:
      The loss; the metrics; the mean absolute TD error `[B]` of each segment; of a loss that
      searches, the places in the sample `[M]` (beyond it: nobody's), their best joint actions
      `[M, T, A]`, and which of those were searched, `[n]`.
    """

    def one(stored: Any, extra: Array | None, *recall: Recall) -> Any:
        segment = replay.without_padding(codec.unpack(stored, env_params))
        if extra is not None:
            segment = segment._replace(reward=segment.reward + extra)
        return segment.mask, *loss(model, params, target_params, segment, hyper, *recall)

    batch, count = sample.stored, sample.weight
    n_sampled = len(jax.tree.leaves(batch)[0])
    example = jnp.arange(n_sampled)
    if count is None:
        count = jnp.ones(n_sampled)
        if codec.merge is not None and extra is None:
            batch, count, example = codec.merge(batch, env_params)
    searched, rows = jnp.array(True), []
    if recall is None:
        outcomes = jax.vmap(one)(batch, extra)  # [B, T]
    else:
        inputs = (batch, extra, recall(example))
        n_searched = math.ceil(search_fraction * len(count))
        outcomes, searched = _searched(jax.vmap(one), inputs, n_searched)
        rows = [*jnp.nonzero(searched, size=n_searched)]
    mask, per_slot, metrics, *found = outcomes
    whose = jnp.where((count > 0) & searched, example, n_sampled)
    # Weights lower what a segment adds; they do not shrink what it is divided by (PER, §3.4).
    n_valid = jnp.maximum(jnp.sum((count if sample.weight is None else 1) * mask.T), 1)
    error = jnp.sum(metrics["td_error_abs"], axis=1) / jnp.maximum(jnp.sum(mask, axis=1), 1)

    def mean(x: Array) -> Array:
        return jnp.sum(count[:, None] * x) / n_valid

    return mean(per_slot), (jax.tree.map(mean, metrics), error, (whose, *found, *rows))


def _searched(
    f: Callable[..., Any], rows: tuple[Any, Any, Recall], n_searched: int
) -> tuple[Any, Array]:
    """`f(*rows)`, with a search of `n_searched` rows only; and which ones, `[B]` bool."""
    n = len(rows[-1].drift)
    if n_searched == n:
        return f(*rows), jnp.ones(n, bool)
    # Others in each update: a sample may have an order (joint actions, strata of priorities).
    turn = jax.random.randint(cast(Array, rows[-1].key)[0], (), 0, n)
    rows = jax.tree.map(lambda x: jnp.roll(x, turn, axis=0), rows)
    *first, recall = jax.tree.map(lambda x: x[:n_searched], rows)
    *rest, unsearched = jax.tree.map(lambda x: x[n_searched:], rows)
    parts = f(*first, recall), f(*rest, unsearched._replace(key=None))
    outcomes = jax.tree.map(lambda *x: jnp.roll(jnp.concatenate(x), -turn, axis=0), *parts)
    return outcomes, jnp.roll(jnp.arange(n) < n_searched, -turn)


def _optimizer(config: Config) -> optax.GradientTransformation:
    # Flattened: one vector instead of dozens of small leaves, less to compile and to launch.
    clip = optax.clip_by_global_norm(config.grad_clip)
    return optax.flatten(optax.chain(clip, OPTIMIZERS[config.optimizer]()))


def remembered(elites: replay.Elites, place: Array, key: Array, example: Array) -> Recall:
    """What is remembered for the segments at `place[example]`; leaves `[M, ...]`."""
    place = place[example]
    others_key, key = jax.random.split(key)
    others = jax.random.randint(others_key, (len(place), OTHERS), 0, replay.RECENT)
    return Recall(
        elite=elites.action[place].astype(jnp.int32),
        others=elites.recent[others].astype(jnp.int32),
        drift=jnp.broadcast_to(elites.drift, place.shape),
        key=jax.random.split(key, len(place)),
    )


def _finite(arrays: Any) -> Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in arrays]))


def _stop_unless(good: Array, state: TrainState) -> TrainState:
    """Mark the lane as stopped at its present step, unless all is good or it has stopped before."""
    stopped = jnp.where(good | (state.stopped_at >= 0), state.stopped_at, state.env_steps)
    return state._replace(stopped_at=stopped)


def _without_experience(stored: Any) -> Any:
    """The replay's state without what it stores: only priorities may change while learning."""
    return stored.replace(experience=None)


def _with_experience(slim: Any, stored: Any) -> Any:
    return slim.replace(experience=stored.experience)
