"""The losses of `ordered_joint` and `ordered_nmqmix`: TD of a joint value, and an order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.options import option
from jaxvff.core.types import Array, JointStep, Metrics, Params, Segment
from jaxvff.losses import targets, terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput, Model
from jaxvff.losses.ordered.elites import Found, Recalled
from jaxvff.losses.ordered.order import (
    AGREED_WEIGHT,
    lead,
    order_loss,
    slot_weight,
    target_utilities,
)
from jaxvff.losses.ordered.search import Budget, best_joint_action
from jaxvff.losses.terms import UtilityValues
from jaxvff.mixers.searchable import PER_STATE, SearchableMixer, SearchableValue


@dataclass(frozen=True)
class SearchingLoss(Loss):
    """What both losses share: a budget for the search, a margin between utilities, hysteresis.

    Hysteresis (Matignon et al., 2007) is for tasks in which a good outcome is rare: what turned out
    better than the joint value counts more than what turned out worse, so that a few captures are
    not lost among hundreds of failed ones. Where outcomes are certain, a joint value that fits has
    no error on either side and stays what it is. Where they are not, it settles above their mean,
    on their expectile at 1 / (1 + hysteresis).
    """

    margin: float = option(0.1, "least lead of the best action's utility", low=0, above=True)
    hysteresis: float = option(
        1.0, "weight of the errors of a joint value above its target", low=0, high=1, above=True
    )
    restarts: int = option(2, "random joint actions that a search starts from", low=1, high=1000)
    sweeps: int = option(1, "turns of each agent in a search", low=1, high=1000)

    @property
    def budget(self) -> Budget:
        """Of the search."""
        return Budget(self.restarts, self.sweeps)


@dataclass(frozen=True)
class OrderedJoint(SearchingLoss):
    """L = ½ w (Q - y)² + ordering loss of the utilities, for an unconstrained joint value Q.

    w is 1, and `hysteresis` where Q is above y.

    No weight lies between the two, since no parameter learns from both (heads.detached). The
    margin is small: nothing but argmax reads these utilities, so a joint action that was found is
    followed within a few updates, also where the learning rate is near its end.
    """

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        shared = _joint_and_order(x, self)
        return LossOutput(shared.fit + shared.order, shared.metrics, shared.found)


@dataclass(frozen=True)
class OrderedNmqmix(SearchingLoss):
    """L = ½ (Q_tot - y)² + ½ w (Q - y)² + order_weight · ordering loss: NM-QMIX and an order.

    Q is the joint value beside NM-QMIX that is searched. Where the greedy joint action is the one
    found, by half a margin or more, Q_tot learns as in NM-QMIX. Elsewhere the utilities enter it
    without their gradient, so that its fit cannot hold back their order. The margin is large:
    Q_tot is made of these utilities, and has to tell the actions apart.
    """

    margin: float = option(3.0, "least lead of the best action's utility", low=0, above=True)
    order_weight: float = option(1.0, "weight of the ordering loss", low=0, above=True)

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        segment, shared = x.segment, _joint_and_order(x, self)
        q, found = shared.online.q, shared.found
        settled = jnp.all(lead(q, found.action, segment.avail) > self.margin / 2, axis=-1)
        q = jnp.where(settled[:, None, None], q, jax.lax.stop_gradient(q))
        values = shared.online._replace(q=q)
        q_tot = terms.mix(
            x.model, x.params["mixer"], values, action=segment.action, segment=segment
        )
        error = terms.valid(segment, q_tot - shared.target)
        total = 0.5 * error**2 + shared.fit + self.order_weight * shared.order
        metrics = shared.metrics | terms.metrics(segment, error, q_tot, shared.target)
        return LossOutput(total, metrics, found)


class _Shared(NamedTuple):
    """What both losses are made of; arrays `[T]`."""

    online: UtilityValues
    target: Array  # TD targets
    fit: Array  # TD loss of the joint value that is searched
    order: Array  # ordering loss, weighted slot by slot
    metrics: Metrics
    found: Found


def _joint_and_order(x: LossInput, loss: SearchingLoss) -> _Shared:
    """Search the segment, and compute the TD loss of the joint value and the ordering loss."""
    model, segment, recalled = x.model, x.segment, cast(Recalled, x.recalled)
    online = terms.utilities(model, x.params["utility"], segment)
    target = terms.utilities(model, x.target_params["utility"], segment)

    # The order that a search of the joint value asks for.
    result = search(x, online, loss.budget)
    wanted = loss.margin * result.target_utilities
    order = result.weight * order_loss(online.q, wanted, result.action, segment.avail)

    # TD of the joint value.
    q_of = partial(_joint_values, model, segment)
    best = model.bootstrap(online.q, target.q, segment)
    if model.bootstrap is targets.searched:
        better = q_of(x.params, online, result.action) > q_of(x.params, online, best)
        best = jnp.where(better[:, None], result.action, best)
    y = terms.returns(x, q_of(x.target_params, target, best))
    q = q_of(x.params, online, segment.action)
    error = terms.valid(segment, q - y)
    fit = 0.5 * jnp.where(error > 0, loss.hysteresis, 1.0) * error**2
    drift = jnp.abs(q - q_of(x.target_params, target, segment.action))

    agree = jnp.all(greedy(online.q, segment.avail) == result.action, axis=-1)
    metrics = terms.metrics(segment, error, q, y)
    metrics["order_agreement"] = terms.valid(segment, agree.astype(jnp.float32))
    searched = jnp.array(recalled.key is not None)
    found = Found(result.action, terms.valid(segment, drift), searched)
    return _Shared(online, y, fit, terms.valid(segment, order), metrics, found)


def _joint_values(
    model: Model, segment: Segment, params: Params, values: UtilityValues, action: Array
) -> Array:
    """The joint value that is searched, of `action[T, A]` in all slots: `[T]`."""
    return terms.mix(
        model, params["mixer"], values, action=action, segment=segment, head=joint_value
    )


def joint_value(mixer: SearchableMixer, step: JointStep) -> Array:
    """The joint value `[]` that is searched, for flax's `apply`."""
    return mixer.joint_value(step)


def searchable(mixer: SearchableMixer, features: Array, state: Array) -> SearchableValue:
    """The joint value of a step for all its joint actions, for flax's `apply`."""
    return mixer.searchable(features, state)


class SearchResult(NamedTuple):
    """What a search of T slots says."""

    # [T, A] int, the best joint actions known: those found, and the elites of slots that were not
    # searched (the last slot never is: it has no transition).
    action: Array
    target_utilities: Array  # [T, A, U], see order.target_utilities; NaN where nothing was searched
    weight: Array  # [T], of each slot in the ordering loss


def search(x: LossInput, values: UtilityValues, budget: Budget) -> SearchResult:
    """Search the joint value in the slots of one segment.

    Args:
      x: what the loss is given; `recalled` is a Recalled.
      values: online utilities.
      budget: how much it may compute.
    """
    segment, recalled = x.segment, cast(Recalled, x.recalled)
    nothing, weightless = jnp.full(values.q.shape, jnp.nan), jnp.zeros(values.q.shape[:1])
    if recalled.key is None:
        return SearchResult(recalled.elite, nothing, weightless)
    n = len(segment.mask) - 1
    # Before the search, not after: nothing in it needs a derivative.
    params, values = jax.lax.stop_gradient((x.params["mixer"], values))
    # Of all slots, as the loss evaluates its joint values: XLA computes what both need once.
    of_step = partial(terms.apply_mixer, x.model, params, head=searchable)
    of_slots = jax.vmap(of_step, out_axes=PER_STATE)(values.features, segment.state)

    def search_slot(slot: Array, key: Array) -> tuple[Array, Array, Array]:
        q, avail, value = values.q[slot], segment.avail[slot], of_slots.at(slot)
        first, others = greedy(q, avail), recalled.others[:, slot]
        others = jnp.where(avail[jnp.arange(len(avail)), others], others, first)
        worth = value.value(jax.vmap(value.total)(others))
        starts = jnp.stack([first, recalled.elite[slot], others[jnp.argmax(worth)]])
        best = best_joint_action(
            value, q, avail, starts=starts, tolerance=recalled.drift, key=key, budget=budget
        )
        gain = value.value(value.total(best)) - value.value(value.total(first))
        differs = slot_weight(gain, recalled.drift)
        weight = jnp.where(jnp.all(best == first), AGREED_WEIGHT, differs)
        return best, value.responses(best), weight

    keys = jax.random.split(recalled.key, n)
    action, responses, weight = jax.vmap(search_slot)(jnp.arange(n), keys)
    target = target_utilities(responses, action, segment.avail[:n], segment.mask[:n])
    return SearchResult(
        recalled.elite.at[:n].set(action),
        nothing.at[:n].set(target),
        weightless.at[:n].set(weight),
    )
