"""The off-policy learner: store segments, sample, take gradient steps, sync the target network."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff.core.segments import blank_segment
from jaxvff.core.sizes import nbytes
from jaxvff.core.types import Array, Metrics, Params, Traced, Tree
from jaxvff.learning import optimizers, return_scale
from jaxvff.learning.batch_loss import BatchInput
from jaxvff.learning.bonus import Bonus
from jaxvff.learning.gradient_step import gradient_step, keep_unless
from jaxvff.learning.learner import (
    Learner,
    LearnInput,
    LearnOutput,
    Parts,
    Size,
    begin_with,
    init_params,
)
from jaxvff.learning.options import BONUSES, REPLAYS, LearningOptions
from jaxvff.learning.replay import Replay
from jaxvff.learning.return_scale import ReturnScale
from jaxvff.learning.samples import Sample, Stored


class State(NamedTuple):
    """Everything that one lane's learner carries on."""

    params: Params
    target_params: Params
    opt_state: Tree
    scale: ReturnScale
    bonus: Tree  # of the exploration bonus; () without one
    replay: Tree
    memory: Tree  # of the method's SegmentMemory


def make(parts: Parts, options: LearningOptions) -> Learner:
    """The learner that a config asks for."""
    learner = ReplayLearner(
        parts=parts,
        options=options,
        replay=REPLAYS[options.replay](options),
        optimizer=optimizers.clipped(options),
        bonus=BONUSES[options.bonus](options),
    )
    return Learner(
        model=parts.model,
        init=learner.init,
        acting=learner.acting,
        learn=learner.learn,
        sizes=learner.sizes,
        n_keys=options.updates,
        first_iteration=learner.first_iteration,
        unit=learner.unit,
        with_params=partial(begin_with, learner.optimizer),
    )


class ReplayLearner(NamedTuple):
    """The static parts of the learner; its methods are pure functions of a State."""

    parts: Parts
    options: LearningOptions
    replay: Replay
    optimizer: optax.GradientTransformation
    bonus: Bonus | None

    @property
    def first_iteration(self) -> int:
        """The first one after which replay holds `learn_start` segments."""
        return -(-self.options.learn_start // self.parts.n_envs) - 1

    def init(self, key: Array, traced: Traced) -> State:
        """Fresh parameters, and an empty replay."""
        model, options = self.parts.model, self.options
        spec, n_slots = model.utility.spec, self.parts.n_slots
        params = self._fresh_params(key, traced)
        # fold_in, not split: with and without a bonus or memory, all else draws the same numbers.
        bonus_key, memory_key = (jax.random.fold_in(key, i) for i in (1, 2))
        memory = self.parts.memory.init(memory_key, spec, options.buffer_size, n_slots)
        blank = blank_segment(spec, n_slots, model.utility.context_size)
        _, rows = self.parts.memory.add(memory, jax.tree.map(lambda x: x[None], blank))
        item = Stored(self.parts.codec.pack(blank), jax.tree.map(lambda x: x[0], rows))
        return State(
            params=params,
            target_params=params,
            opt_state=self.optimizer.init(params),
            scale=return_scale.fresh(),
            bonus=self.bonus.init(bonus_key, spec.state_size) if self.bonus is not None else (),
            replay=self.replay.init(item),
            memory=memory,
        )

    def acting(self, state: State) -> Params:
        """The online parameters."""
        return state.params

    def unit(self, state: State) -> Array:
        """What values are multiplied with to be in env units: `[]`."""
        return return_scale.unit(state.scale, self.options.return_scale)

    def sizes(self, state: State) -> list[Size]:
        """Replay, and all that is trained."""
        options, n_slots = self.options, self.parts.n_slots
        stored, _ = self.replay.split(state.replay)
        slot = nbytes(stored.packed) / options.buffer_size / n_slots
        note = f"buffer_size={options.buffer_size} segments of {n_slots} slots of {slot:.4g} bytes"
        in_replay, rest = nbytes(state.replay), nbytes(state) - nbytes(state.replay)
        return [
            Size("replay", in_replay, note, "buffer_size"),
            Size("networks", rest, "parameters, target network, optimiser", "hidden_dim"),
        ]

    def _fresh_params(self, key: Array, traced: Traced) -> Params:
        params = init_params(self.parts.model, key)
        return jax.tree.map(lambda x: x * traced.init_scale, params)

    def learn(self, state: State, x: LearnInput) -> LearnOutput:
        """Store the segments, reset if that is due, then take `updates` gradient steps.

        It learns once replay holds enough.
        """
        packed = jax.vmap(self.parts.codec.pack)(x.segments)
        memory, rows = self.parts.memory.add(state.memory, x.segments)
        replay = self.replay.add(state.replay, Stored(packed, rows))
        stored, rest = self.replay.split(replay)
        scale = return_scale.update(state.scale, x.segments, x.traced.gamma)
        scale = keep_unless(x.running, scale, state.scale)
        state = state._replace(memory=memory, replay=rest, scale=scale)
        if self.options.resets:
            state = self._reset_when_due(state, x)

        Carry = tuple[State, Array]  # the state without what is stored, and whether the lane runs

        def update(carry: Carry, step: tuple[Array, Array]) -> tuple[Carry, Metrics]:
            return self._update(carry, stored, x, key=step[0], count=step[1])

        def updates(carry: Carry) -> tuple[Carry, Metrics]:
            n = self.options.updates
            counts = self._updates_before(x.iteration) + jnp.arange(n)
            if n == 1:
                return update(carry, (x.keys[0], counts[0]))
            carry, metrics = jax.lax.scan(update, carry, (x.keys, counts))
            return carry, jax.tree.map(jnp.mean, metrics)

        def skip(carry: Carry) -> tuple[Carry, Metrics]:
            shapes = jax.eval_shape(updates, carry)[1]
            return carry, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        learns = x.iteration >= self.first_iteration
        (state, running), metrics = jax.lax.cond(learns, updates, skip, (state, x.running))
        state = state._replace(replay=self.replay.join(stored, state.replay))
        return LearnOutput(state, metrics, running)

    def _updates_before(self, iteration: Array) -> Array:
        """Updates before an iteration, `[]` int; negative before learning starts."""
        return (iteration - self.first_iteration) * self.options.updates

    def _reset_when_due(self, state: State, x: LearnInput) -> State:
        """The state with fresh networks and optimiser, where a reset is due; all else stays.

        A reset waits for the first iteration that begins with `reset_interval` updates more.

        Source: Nikishin et al. (2022), The primacy bias in deep reinforcement learning.
        """
        n, every = self._updates_before(x.iteration), self.options.reset_interval
        number = n // every  # resets up to now, this one included
        due = (number >= 1) & (number <= self.options.resets)
        due &= number > (n - self.options.updates) // every

        Trained = tuple[Params, Params, Tree]  # parameters, target network, optimiser
        trained: Trained = (state.params, state.target_params, state.opt_state)

        def fresh() -> Trained:
            # fold_in, not split: with and without resets, the same segments are drawn.
            params = self._fresh_params(jax.random.fold_in(x.keys[0], 2), x.traced)
            return keep_unless(x.running, (params, params, self.optimizer.init(params)), trained)

        params, target_params, opt_state = jax.lax.cond(due, fresh, lambda: trained)
        return state._replace(params=params, target_params=target_params, opt_state=opt_state)

    def _update(
        self, carry: tuple[State, Array], stored: Tree, x: LearnInput, *, key: Array, count: Array
    ) -> tuple[tuple[State, Array], Metrics]:
        """One gradient step.

        Args:
          carry: the state without what is stored, and whether the lane runs, `[]` bool.
          stored: what is in replay.
          x: of this iteration.
          key: PRNG key.
          count: `[]` int, updates before this one.

        Returns:
          The new carry, and metrics `[]`.
        """
        state, running = carry
        sample = self.replay.sample(self.replay.join(stored, state.replay), key)
        # fold_in, not split: with and without a search, the same segments are drawn.
        memory_key = jax.random.fold_in(key, 1)
        novelty, bonus_state, bonus_metrics = self._explored(state.bonus, sample, x)
        extra = None if novelty is None else x.traced.bonus_beta * novelty

        # The gradient of the loss, and what the batch came to on the way.
        given = BatchInput(
            params=state.params,
            target_params=state.target_params,
            sample=sample,
            unit=self.unit(state),
            extra=extra,
            targets=None,
            counts=None,
            memory=state.memory,
            key=memory_key,
            env_params=x.env_params,
            traced=x.traced,
        )

        step = gradient_step(
            self.parts, self.optimizer, given, state.opt_state, running=running, x=x
        )
        bonus_state = keep_unless(step.running, bonus_state, state.bonus)
        target_params = jax.lax.cond(
            (count + 1) % self.options.target_interval == 0,
            lambda: optax.incremental_update(step.params, state.target_params, x.traced.target_tau),
            lambda: state.target_params,
        )

        whole = self.replay.join(stored, state.replay)
        _, replay = self.replay.split(self.replay.prioritise(whole, sample, step.batch.error))
        state = state._replace(
            params=step.params,
            target_params=target_params,
            opt_state=step.opt_state,
            bonus=bonus_state,
            replay=replay,
            memory=step.memory,
        )
        return (state, step.running), step.batch.metrics | step.metrics | bonus_metrics

    def _explored(
        self, bonus_state: Tree, sample: Sample, x: LearnInput
    ) -> tuple[Array | None, Tree, Metrics]:
        """The bonus `[B, T]` of the sampled slots (None: no bonus), its next state, metrics."""
        if self.bonus is None:
            return None, bonus_state, {}
        unpack = self.parts.codec.unpack
        batch = jax.vmap(lambda s: unpack(s.packed, x.env_params))(sample.stored)
        novelty = self.bonus.reward(bonus_state, batch)
        mean = jnp.sum(novelty) / jnp.maximum(jnp.sum(batch.mask), 1)
        return novelty, self.bonus.update(bonus_state, batch, x.traced.rnd_lr), {"bonus": mean}
