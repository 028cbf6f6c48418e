"""The on-policy learner: epochs of minibatches over what an iteration has collected; no replay."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxvff.core.errors import UserError
from jaxvff.core.segments import blank_segment, plain_codec, without_padding
from jaxvff.core.sizes import nbytes
from jaxvff.core.types import Array, Metrics, Params, Segment, Traced, Tree
from jaxvff.learning import optimizers, return_scale
from jaxvff.learning.batch_loss import BatchInput, learned_from
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
from jaxvff.learning.options import BONUSES, LearningOptions
from jaxvff.learning.return_scale import ReturnScale
from jaxvff.learning.samples import Sample, Stored
from jaxvff.losses.contract import LossInput


class State(NamedTuple):
    """Everything that one lane's learner carries on."""

    params: Params
    target_params: Params
    opt_state: Tree
    scale: ReturnScale
    bonus: Tree  # of the exploration bonus; () without one
    memory: Tree  # of the method's SegmentMemory, for the segments of an iteration


class Batch(NamedTuple):
    """Segments with what is learned beside them; leaves `[B, ...]`."""

    stored: Stored
    novelty: Array | None  # [B, T], by the bonus of before the iteration; None: no bonus
    targets: Array | None  # [B, T, ...] of Loss.targets; None: every update makes its own
    counts: Array | None  # [B, T] bool, slots after the burn-in; None: all


def make(parts: Parts, options: LearningOptions) -> Learner:
    """The learner that a config asks for.

    Source: Gallici et al. (2025), PQN: no replay and no target network, which normalisation in the
    networks makes up for (`norm=layer`), and λ-returns of many environments. Here the returns of
    an iteration bootstrap on the parameters from before it, in all its epochs; with
    `target_tau` < 1 on a target network that follows them.

    Raises:
      UserError: the minibatches do not divide the segments, or a burn-in is as long as these.
    """
    if options.burn_in >= parts.n_slots - 1:
        raise UserError(
            f"burn_in={options.burn_in} leaves nothing to learn from in segments of "
            f"segment_length={parts.n_slots} slots; lower it, or raise segment_length"
        )
    if parts.n_envs % options.minibatches:
        raise UserError(
            f"minibatches={options.minibatches} does not divide n_envs={parts.n_envs} segments; "
            "change one of them"
        )
    learner = ParallelLearner(
        # Nothing is stored, so nothing is packed, and padding is removed once an iteration.
        parts=parts._replace(codec=plain_codec(parts.model.utility.spec)),
        options=options,
        optimizer=optimizers.clipped(options),
        bonus=BONUSES[options.bonus](options),
    )
    return Learner(
        model=parts.model,
        init=learner.init,
        acting=learner.acting,
        learn=learner.learn,
        sizes=learner.sizes,
        n_keys=options.epochs,
        first_iteration=0,
        unit=learner.unit,
        with_params=partial(begin_with, learner.optimizer),
    )


class ParallelLearner(NamedTuple):
    """The static parts of the learner; its methods are pure functions of a State."""

    parts: Parts
    options: LearningOptions
    optimizer: optax.GradientTransformation
    bonus: Bonus | None

    def init(self, key: Array, traced: Traced) -> State:
        """Fresh parameters."""
        parts, spec = self.parts, self.parts.model.utility.spec
        params = init_params(parts.model, key)
        params = jax.tree.map(lambda x: x * traced.init_scale, params)
        # fold_in, not split: with and without a bonus or memory, all else draws the same numbers.
        bonus_key, memory_key = (jax.random.fold_in(key, i) for i in (1, 2))
        return State(
            params=params,
            target_params=params,
            opt_state=self.optimizer.init(params),
            scale=return_scale.fresh(),
            bonus=self.bonus.init(bonus_key, spec.state_size) if self.bonus is not None else (),
            memory=parts.memory.init(memory_key, spec, parts.n_envs, parts.n_slots),
        )

    def acting(self, state: State) -> Params:
        """The online parameters."""
        return state.params

    def unit(self, state: State) -> Array:
        """What values are multiplied with to be in env units: `[]`."""
        return return_scale.unit(state.scale, self.options.return_scale)

    def sizes(self, state: State) -> list[Size]:
        """The segments of an iteration, in order and shuffled, and all that is trained."""
        parts = self.parts
        utility = parts.model.utility
        segment = jax.eval_shape(
            lambda: blank_segment(utility.spec, parts.n_slots, utility.context_size)
        )
        shape = f"n_envs={parts.n_envs} segments of segment_length={parts.n_slots} slots, twice"
        note = "parameters, target network, optimiser, what the method remembers of an iteration"
        sizes = [
            Size("segments", 2 * parts.n_envs * nbytes(segment), shape, "n_envs"),
            Size("networks", nbytes(state), note, "hidden_dim"),
        ]
        return sorted(sizes, key=lambda size: -size.n_bytes)

    def learn(self, state: State, x: LearnInput) -> LearnOutput:
        """Take `minibatches` gradient steps in each of `epochs` passes over the segments."""
        segments = jax.vmap(without_padding)(x.segments)
        memory, rows = self.parts.memory.add(state.memory, segments)
        scale = return_scale.update(state.scale, segments, x.traced.gamma)
        scale = keep_unless(x.running, scale, state.scale)
        state = state._replace(memory=memory, scale=scale)

        # What all epochs share.
        novelty = None if self.bonus is None else self.bonus.reward(state.bonus, segments)
        targets = self._targets(state, segments, novelty, x)
        counts = after_burn_in(segments, self.options.burn_in) if self.options.burn_in else None
        whole = Batch(Stored(segments, rows), novelty, targets, counts)
        n = self.options.minibatches

        Carry = tuple[State, Array]  # and whether the lane runs

        def epoch(carry: Carry, key: Array) -> tuple[Carry, Metrics]:
            order_key, key = jax.random.split(key)
            order = jax.random.permutation(order_key, self.parts.n_envs)
            batches = jax.tree.map(lambda z: z[order].reshape(n, -1, *z.shape[1:]), whole)

            def update(carry: Carry, step: tuple[Batch, Array]) -> tuple[Carry, Metrics]:
                return self._update(carry, step[0], x, key=step[1])

            return jax.lax.scan(update, carry, (batches, jax.random.split(key, n)))

        (state, running), metrics = jax.lax.scan(epoch, (state, x.running), x.keys)
        state = state._replace(
            target_params=optax.incremental_update(
                state.params, state.target_params, x.traced.target_tau
            )
        )
        return LearnOutput(state, jax.tree.map(jnp.mean, metrics), running)

    def _targets(
        self, state: State, segments: Segment, novelty: Array | None, x: LearnInput
    ) -> Array | None:
        """The targets `[N, T, ...]` of the whole iteration, of a loss whose updates share them."""

        def targets(segment: Segment) -> Array | None:
            return self.parts.loss.targets(
                LossInput(
                    model=self.parts.model,
                    params=state.params,
                    target_params=state.target_params,
                    segment=segment,
                    traced=x.traced,
                )
            )

        extra = _extra(novelty, x)
        return jax.vmap(targets)(learned_from(segments, self.unit(state), extra))

    def _update(
        self, carry: tuple[State, Array], batch: Batch, x: LearnInput, *, key: Array
    ) -> tuple[tuple[State, Array], Metrics]:
        """One gradient step.

        Args:
          carry: the state, and whether the lane runs, `[]` bool.
          batch: a minibatch.
          x: of this iteration.
          key: PRNG key.

        Returns:
          The new carry, and metrics `[]`.
        """
        state, running = carry
        given = BatchInput(
            params=state.params,
            target_params=state.target_params,
            sample=Sample(batch.stored, None, None),
            unit=self.unit(state),
            extra=_extra(batch.novelty, x),
            targets=batch.targets,
            counts=batch.counts,
            memory=state.memory,
            key=key,
            env_params=x.env_params,
            traced=x.traced,
        )

        step = gradient_step(
            self.parts, self.optimizer, given, state.opt_state, running=running, x=x
        )
        bonus_state, bonus_metrics = self._explored(state.bonus, batch, x, step.running)
        state = state._replace(
            params=step.params, opt_state=step.opt_state, bonus=bonus_state, memory=step.memory
        )
        return (state, step.running), step.batch.metrics | step.metrics | bonus_metrics

    def _explored(
        self, bonus_state: Tree, batch: Batch, x: LearnInput, running: Array
    ) -> tuple[Tree, Metrics]:
        """The next state of the bonus, and its mean."""
        if self.bonus is None or batch.novelty is None:
            return bonus_state, {}
        segments = batch.stored.packed
        mean = jnp.sum(batch.novelty) / jnp.maximum(jnp.sum(segments.mask), 1)
        new = self.bonus.update(bonus_state, segments, x.traced.rnd_lr)
        return keep_unless(running, new, bonus_state), {"bonus": mean}


def _extra(novelty: Array | None, x: LearnInput) -> Array | None:
    """The bonus that is added to rewards."""
    return None if novelty is None else x.traced.bonus_beta * novelty


def after_burn_in(segments: Segment, n_slots: int) -> Array:
    """The slots that are learned from: all, but for the first of an episode that goes on.

    What a GRU remembered before a segment was made with earlier parameters. The first slots bring
    its memory up to the present ones.

    Args:
      segments: fields `[N, T, ...]`.
      n_slots: how many; fewer where another episode begins.

    Returns:
      `[N, T]` bool.

    Source: Kapturowski et al. (2019), R2D2, §3.
    """
    goes_on = jnp.cumsum(segments.is_first, axis=1) == 0
    return ~(goes_on & (jnp.arange(goes_on.shape[1]) < n_slots))
