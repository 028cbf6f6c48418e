"""Losses that put the utilities in order: a search on a joint value says which actions are best.

TD shapes an unconstrained joint value; a search finds a joint action u that it values highly; and
the utilities learn to have their maxima there. Why an order needs a force of its own, and what is
proved of this one: docs/theory.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp

from jaxvff import losses, targets
from jaxvff.explore import greedy, masked
from jaxvff.losses import Model, Values
from jaxvff.rollout import Revise
from jaxvff.search import PER_STATE, Table, best_joint_action
from jaxvff.types import Array, Hyper, Metrics, Params, Segment

SPREAD = 3.0  # margins by which a segment's worst response is below one that costs nothing
HOLD = 0.1  # weight of a slot whose utilities agree with the search: those that found better decide
MOST = 100.0  # weight of a slot that has so many times what the joint value resolves at stake
RESOLUTION = 1.0  # a difference of the joint value below so many of its drifts decides nothing

Loss = Callable[
    [Model, Params, Params, Segment, Hyper, "Recall"], tuple[Array, Metrics, Array]
]  # (loss [T], metrics of [T], the best joint actions known now [T, A])


class Recall(NamedTuple):
    """What is remembered for the search of one segment."""

    elite: Array  # [T, A] int, the best joint action known to each slot
    others: Array  # [n, T, A] int, what was found in other segments, in the update before
    drift: Array  # [] how far a joint value moves between two syncs of the target network
    key: Array | None  # None: this segment is not searched


class Budget(NamedTuple):
    """What the search of a slot may cost."""

    restarts: int = 2  # random joint actions to start from, beside the greedy one and elites
    sweeps: int = 1  # turns of each agent


class Ordered(NamedTuple):
    """What both losses share; arrays `[T]`."""

    online: Values
    found: Array  # [T, A]
    target: Array
    error: Array  # TD error of the joint value that is searched
    order: Array  # ordering loss
    metrics: Metrics


def joint(margin: float = 0.1, restarts: int = 2, sweeps: int = 1) -> Loss:
    """Squared TD error of the joint value + ordering loss of the utilities.

    No weight lies between the two: no parameter learns from both (`nets.action_values`, detached).
    The margin is small, since nothing reads these utilities but argmax: what has been found is
    followed in a few updates, also where the learning rate is near its end.
    """
    budget = Budget(restarts, sweeps)

    def loss(
        model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper,
        recall: Recall,
    ) -> tuple[Array, Metrics, Array]:  # fmt: skip
        x = _ordered(model, params, target_params, segment, hyper, recall, budget, margin)
        return 0.5 * x.error**2 + x.order, x.metrics, x.found

    return loss


def nmqmix(
    order_weight: float = 1.0,
    margin: float = 3.0,
    restarts: int = 2,
    sweeps: int = 1,
) -> Loss:
    """NM-QMIX whose order is given: TD of Q_tot, TD of the judge that is searched, and ordering.

    Where the greedy joint action is the one found, by half a margin or more, this is NM-QMIX.
    Elsewhere the utilities enter Q_tot without their gradient, so that the fit cannot hold back
    their order. The margin is large: Q_tot is made of these utilities, and has to tell them apart.
    """
    budget = Budget(restarts, sweeps)

    def loss(
        model: Model, params: Params, target_params: Params, segment: Segment, hyper: Hyper,
        recall: Recall,
    ) -> tuple[Array, Metrics, Array]:  # fmt: skip
        x = _ordered(model, params, target_params, segment, hyper, recall, budget, margin)
        q = x.online.q
        settled = jnp.all(lead(q, x.found, segment.avail) > margin / 2, axis=-1)
        q = jnp.where(settled[:, None, None], q, jax.lax.stop_gradient(q))
        gated = x.online._replace(q=q)
        q_tot = losses.mix(model, params["mixer"], gated, segment.action, segment)
        error = losses.valid(segment, q_tot - x.target)
        total = 0.5 * error**2 + 0.5 * x.error**2 + order_weight * x.order
        return total, x.metrics | losses.metrics(segment, error, q_tot, x.target), x.found

    return loss


def _ordered(
    model: Model,
    params: Params,
    target_params: Params,
    segment: Segment,
    hyper: Hyper,
    recall: Recall,
    budget: Budget,
    margin: float,
) -> Ordered:
    online = losses.utilities(model, params["utility"], segment)
    target = losses.utilities(model, target_params["utility"], segment)
    found, wanted, weight = search(model, params["mixer"], online, segment, recall, budget)
    order = weight * order_loss(online.q, margin * wanted, found, segment.avail)

    def judge(params: Params, values: Values, action: Array) -> Array:
        return losses.mix(model, params["mixer"], values, action, segment, "judge")

    best = model.bootstrap(online.q, target.q, segment)
    if model.bootstrap is targets.searched:
        better = judge(params, online, found) > judge(params, online, best)
        best = jnp.where(better[:, None], found, best)
    y = losses.returns(model, judge(target_params, target, best), segment, hyper)
    q = judge(params, online, segment.action)
    error = losses.valid(segment, q - y)
    drift = jnp.abs(q - judge(target_params, target, segment.action))
    agree = jnp.all(greedy(online.q, segment.avail) == found, axis=-1)
    metrics = losses.metrics(segment, error, q, y)
    metrics["drift"] = losses.valid(segment, drift)
    metrics["order_agreement"] = losses.valid(segment, agree.astype(jnp.float32))
    return Ordered(online, found, y, error, losses.valid(segment, order), metrics)


def search(
    model: Model, params: Any, values: Values, segment: Segment, recall: Recall, budget: Budget
) -> tuple[Array, Array, Array]:
    """Search a segment's slots.

    Args:
      model: networks and target rules.
      params: of the mixer.
      values: online utilities.
      segment: one segment.
      recall: what is remembered.
      budget: what it may cost.

    Returns:
      The best joint actions known, `[T, A]`: those found, and the elites of slots that were not
      searched (the last one never is: it is no transition). What the utilities should be, up to a
      constant of each agent, in margins, `[T, A, U]`: NaN where nothing was searched. And the
      weight of each slot in that, `[T]`.
    """
    nothing, weightless = jnp.full(values.q.shape, jnp.nan), jnp.zeros(values.q.shape[:1])
    if recall.key is None:
        return recall.elite, nothing, weightless
    n = len(segment.mask) - 1
    # Before the search, not after: nothing in it needs a derivative.
    params, values = jax.lax.stop_gradient((params, values))
    tolerance = RESOLUTION * recall.drift
    # Of all slots, as the loss evaluates its joint values: XLA computes what both need once.
    of_slot = partial(_table, model, params)
    tables = jax.vmap(of_slot, out_axes=PER_STATE)(values.hidden, segment.state)

    def one(slot: Array, key: Array) -> tuple[Array, Array, Array]:
        q, avail = values.q[slot], segment.avail[slot]
        first, others = greedy(q, avail), recall.others[:, slot]
        table = tables.at(slot)
        others = jnp.where(avail[jnp.arange(len(avail)), others], others, first)
        worth = table.value(jax.vmap(table.total)(others))
        starts = jnp.stack([first, recall.elite[slot], others[jnp.argmax(worth)]])
        best = best_joint_action(
            table, q, avail, starts, tolerance, key,
            restarts=budget.restarts, sweeps=budget.sweeps,
        )  # fmt: skip
        gain = table.value(table.total(best)) - table.value(table.total(first))
        weight = jnp.where(jnp.all(best == first), HOLD, stake(gain, recall.drift))
        return best, table.responses(best), weight

    found, response, weight = jax.vmap(one)(jnp.arange(n), jax.random.split(recall.key, n))
    wanted = wanted_utilities(response, found, segment.avail[:n], segment.mask[:n])
    return recall.elite.at[:n].set(found), nothing.at[:n].set(wanted), weightless.at[:n].set(weight)


def _table(model: Model, params: Any, hidden: Array, state: Array) -> Table:
    """All joint values of one step: `hidden[A, H]`, `state[S]`."""
    return cast(Table, model.mixer.apply(params, hidden, state, method="table"))


def seeking(model: Model, params: Any, share: float, budget: Budget) -> Revise:
    """The joint action that a search finds, instead of a `share` of those that agents pick.

    What Q thinks too well of is tried, and what it does not know yet is not only met by chance.

    Args:
      model: networks.
      params: of the mixer.
      share: of the steps.
      budget: restarts and sweeps of the search, which begins at the greedy joint action.
    """

    def revise(
        state: Array, key: Array, action: Array, q: Array, avail: Array, features: Array
    ) -> Array:
        coin, key = jax.random.split(key)
        table = _table(model, params, features, state)
        found = best_joint_action(
            table, q, avail, greedy(q, avail)[None], jnp.zeros(()), key,
            restarts=budget.restarts, sweeps=budget.sweeps,
        )  # fmt: skip
        return jnp.where(jax.random.bernoulli(coin, share), found, action)

    return revise


def wanted_utilities(response: Array, best: Array, avail: Array, mask: Array) -> Array:
    """What the utilities should be, up to a constant of each agent, in margins: `[T, A, U]`.

    0 for an agent's action in u, and -(1 + SPREAD · loss) for another one, where loss in
    [0, 1] is what the team loses by that change alone, in shares of the segment's worst such
    change. Of the segment's, not of the slot's: agents that do not see which state they are in
    should follow the states where more is at stake.

    Args:
      response: `[T, A, U]` joint values of every change of one agent's action in u.
      best: `[T, A]` int, u.
      avail: `[T, A, U]` bool.
      mask: `[T]` bool, slots that count.
    """
    taken = jnp.take_along_axis(response, best[..., None], axis=-1)
    loss = jnp.where(avail & mask[:, None, None], jnp.maximum(taken - response, 0), 0)
    loss = loss / (jnp.max(loss) + 1e-6)
    is_best = jax.nn.one_hot(best, response.shape[-1], dtype=bool)
    return jnp.where(is_best, 0.0, -(1 + SPREAD * loss))


def stake(gain: Array, drift: Array) -> Array:
    """Weight of a slot where the search beats the greedy joint action by `gain`: 1 to MOST.

    As many times what the joint value resolves as is lost there. The few slots of a predator that
    could catch its prey are else outvoted by all those where nothing that is done matters.

    Args:
      gain: `[]`, from the joint value.
      drift: `[]` of the joint value; 0 before anything was learned.
    """
    return jnp.clip(gain / (RESOLUTION * drift + 1e-6), 1.0, MOST)


def order_loss(q: Array, wanted: Array, found: Array, avail: Array) -> Array:
    """Squared errors of the differences of utilities to those of the best action: `[T]`.

    Args:
      q: utilities `[T, A, U]`.
      wanted: what they should be, `[T, A, U]`; 0 is returned where it is NaN.
      found: from `search`.
      avail: `[T, A, U]` bool.
    """
    gap = q - jnp.take_along_axis(q, found[..., None], axis=-1)
    # Before the difference: 0 · NaN is NaN in a gradient.
    wanted = jnp.where(jnp.isnan(wanted) | ~avail, jax.lax.stop_gradient(gap), wanted)
    return 0.5 * jnp.sum((gap - wanted) ** 2, axis=(-2, -1))


def lead(q: Array, wanted: Array, avail: Array) -> Array:
    """By how much each agent's wanted action leads the best of its others: `[T, A]`.

    Args:
      q: utilities `[T, A, U]`.
      wanted: `[T, A]` int.
      avail: `[T, A, U]` bool.
    """
    is_wanted = jax.nn.one_hot(wanted, q.shape[-1], dtype=bool)
    others = jnp.max(masked(q, avail & ~is_wanted), axis=-1)
    return jnp.sum(jnp.where(is_wanted, q, 0), axis=-1) - others
