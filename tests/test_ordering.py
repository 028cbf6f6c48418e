"""The search on a joint value, what it remembers, and the order that it gives to utilities."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.actions import greedy
from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec
from jaxvff.learning.batch_loss import BatchInput, batch_loss
from jaxvff.learning.learner import init_params
from jaxvff.learning.samples import Sample, Stored
from jaxvff.losses.contract import Loss, LossInput, LossOutput
from jaxvff.losses.ordered import elites, losses, order, search
from jaxvff.losses.ordered.search import Budget
from jaxvff.losses.terms import UtilityValues, joint_steps
from jaxvff.mixers.searchable import SearchableValue
from jaxvff.settings import build, config
from jaxvff.training import loop
from tests.lanes import start as begin
from tests.streams import random_segment

A, U, E = 3, 4, 8
JOINT = np.array(list(itertools.product(range(U), repeat=A)))


def table(seed: int) -> SearchableValue:
    """A random table; those of odd seeds have a list."""
    keys = jax.random.split(jax.random.key(seed), 6)
    shapes = ((A, U, E + 2), (E + 2,), (E,), (), (U**A, 2), (2,))
    t = SearchableValue(*(jax.random.normal(k, s) for k, s in zip(keys, shapes, strict=True)))
    places = U ** np.arange(A)[::-1, None] * np.arange(U)
    t = t._replace(parts=t.parts.at[..., -1].set(places), bias=t.bias.at[-1].set(0))
    return t if seed % 2 else t._replace(list_rows=None, list_weight=None)


def values(t: SearchableValue) -> np.ndarray:
    """An oracle: every joint value in NumPy, `[U] * A`."""
    t = jax.tree.map(lambda x: np.asarray(x, np.float64), t)
    total = t.bias + sum(t.parts[i][JOINT[:, i]] for i in range(A))
    hidden, added = total[:, :-2], total[:, -2]
    hidden = np.where(hidden > 0, hidden, np.expm1(hidden))
    listed = 0 if t.list_rows is None else t.list_rows @ t.list_weight
    return (hidden @ t.out + added + listed + t.offset).reshape((U,) * A)


def avail(seed: int) -> np.ndarray:
    can = np.random.default_rng(seed).random((A, U)) < 0.6
    can[:, seed % U] = True
    return can


def start(can: np.ndarray) -> jnp.ndarray:
    return jnp.asarray(can.argmax(1), jnp.int32)


@pytest.mark.parametrize("seed", range(8))
def test_an_ascent_never_falls_and_ends_where_no_agent_alone_can_improve(seed: int) -> None:
    t, can = table(seed), avail(seed)
    q = values(t)
    way = [start(can)]
    for _ in range(U**A):
        way.append(search.ascend(t, jnp.asarray(can), way[-1], 1))
        if np.array_equal(way[-1], way[-2]):
            break
    earned = [q[tuple(a)] for a in way]
    assert np.all(np.diff(earned) >= -1e-6)
    assert all(can[i, a] for step in way for i, a in enumerate(step))
    end = np.asarray(way[-1])
    for agent, action in itertools.product(range(A), range(U)):
        other = end.copy()
        other[agent] = action
        assert not can[agent, action] or q[tuple(other)] <= q[tuple(end)] + 1e-5


def test_sweeps_are_ascents_one_after_the_other() -> None:
    t, can = table(3), jnp.asarray(avail(3))
    once = search.ascend(t, can, start(np.asarray(can)), 1)
    np.testing.assert_array_equal(
        search.ascend(t, can, start(np.asarray(can)), 2), search.ascend(t, can, once, 1)
    )


def test_responses_are_the_values_of_one_change_each() -> None:
    t, action = table(0), np.array([1, 3, 0])
    got, q = t.responses(jnp.asarray(action)), values(t)
    for agent, other in itertools.product(range(A), range(U)):
        changed = action.copy()
        changed[agent] = other
        np.testing.assert_allclose(got[agent, other], q[tuple(changed)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_with_many_restarts_the_best_joint_action_is_found(seed: int) -> None:
    t, can = table(seed), avail(seed)
    allowed = can[0][:, None, None] & can[1][None, :, None] & can[2][None, None, :]
    best = np.unravel_index(np.where(allowed, values(t), -np.inf).argmax(), (U,) * A)
    found = search.best_joint_action(
        t, jnp.zeros((A, U)), jnp.asarray(can), starts=start(can)[None],
        tolerance=jnp.array(0.0), key=jax.random.key(seed), budget=Budget(restarts=64, sweeps=2),
    )  # fmt: skip
    np.testing.assert_array_equal(found, best)


def test_utilities_choose_among_what_the_joint_value_cannot_tell_apart() -> None:
    t, can = table(1), jnp.ones((A, U), bool)
    q = jax.random.normal(jax.random.key(9), (A, U))
    sought = functools.partial(
        search.best_joint_action, t, q, can, starts=jnp.zeros((1, A), jnp.int32),
        key=jax.random.key(0), budget=Budget(restarts=32, sweeps=2),
    )  # fmt: skip
    np.testing.assert_array_equal(sought(tolerance=jnp.array(1e6)), greedy(q, can))
    exact = np.unravel_index(values(t).argmax(), (U,) * A)
    np.testing.assert_array_equal(sought(tolerance=jnp.array(0.0)), exact)


@pytest.mark.parametrize("max_listed", [26, 27])
@pytest.mark.parametrize("method", ["ordered_joint", "ordered_nmqmix"])
def test_the_table_that_is_searched_is_the_joint_value_that_learns(
    method: str, max_listed: int
) -> None:
    """Two programs for one value; and 27 joint actions have a list where so many are allowed."""
    one = config.load([
        f"method={method}", f"method.max_listed={max_listed}", "env=matrix/random",
        "env.n_agents=3", "hidden_dim=8",
    ])  # fmt: skip
    model = build.model(one, build.environment(one.env))
    params = init_params(model, jax.random.key(0))["mixer"]
    lists = [x for x in jax.tree.leaves(params) if x.shape == (27, 5)]
    assert len(lists) == (max_listed == 27)
    # Random, since a list begins at zero.
    noise = jax.random.split(jax.random.key(3), len(jax.tree.leaves(params)))
    noise = jax.tree.unflatten(jax.tree.structure(params), list(noise))
    params = jax.tree.map(lambda x, key: x + jax.random.normal(key, x.shape), params, noise)
    spec = model.utility.spec
    seen = UtilityValues(
        *(jax.random.normal(jax.random.key(k), (3, n)) for k, n in ((1, 3), (2, 8)))
    )
    state = jnp.arange(spec.state_size, dtype=jnp.float32)
    t = model.mixer.apply(params, seen.features, state, method=losses.searchable)
    for action in itertools.product(range(3), repeat=3):
        step = joint_steps(seen, jnp.array(action), jnp.ones((3, 3), bool), state)
        np.testing.assert_allclose(
            t.value(t.total(jnp.array(action))),
            model.mixer.apply(params, step, method=losses.joint_value),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_wanted_utilities_lead_by_a_margin_and_follow_the_responses() -> None:
    high_stakes, low_stakes = (
        [[5.0, 1.0, 3.0], [5.0, 5.0, -3.0]],
        [[2.0, 2.0, 1.0], [2.0, 2.0, 2.0]],
    )
    response = jnp.array([high_stakes, low_stakes, [[99.0, -99.0, 0.0]] * 2])
    can, valid = jnp.ones((3, 2, 3), bool), jnp.array([True, True, False])
    wanted = order.target_utilities(response, jnp.array([[0, 1]] * 3), can, valid)
    s = order.SPREAD
    np.testing.assert_allclose(wanted[0], [[0, -1 - s / 2, -1 - s / 4], [-1, 0, -1 - s]], rtol=1e-5)
    np.testing.assert_allclose(wanted[1], [[0, -1, -1 - s / 8], [-1, 0, -1]], rtol=1e-5)


def test_the_ordering_loss_is_zero_at_what_is_wanted_whatever_is_added_to_an_agent() -> None:
    rng = np.random.default_rng(0)
    found = jnp.asarray(rng.integers(0, U, (2, A)))
    can = jnp.ones((2, A, U), bool)
    response = jnp.asarray(rng.normal(size=(2, A, U)))
    wanted = order.target_utilities(response, found, can, jnp.ones(2, bool))
    shifted = wanted + jnp.asarray(rng.normal(size=(2, A, 1)))
    np.testing.assert_allclose(order.order_loss(shifted, wanted, found, can), 0, atol=1e-10)
    nothing = jnp.full_like(wanted, jnp.nan)
    loss, grad = jax.value_and_grad(lambda q: jnp.sum(order.order_loss(q, nothing, found, can)))(
        shifted
    )
    assert loss == 0
    assert not np.any(grad)


def given(value: SearchableValue, segment: Any, recalled: elites.Recalled) -> LossInput:
    """What the loss of a segment is given, whose slots all have the same joint value."""
    model: Any = SimpleNamespace(mixer=SimpleNamespace(apply=lambda *_, **__: value))
    return LossInput(model, {"mixer": None}, None, segment, None, recalled)


def weights(q: np.ndarray, drift: float) -> np.ndarray:
    """Of a segment of two slots, both of which have `table(0)` and utilities `q[A, U]`."""
    n, action = 2, jnp.zeros((2, A), jnp.int32)
    segment: Any = SimpleNamespace(
        avail=jnp.ones((n, A, U), bool), state=jnp.zeros((n, 1)), mask=jnp.array([True, False])
    )
    seen = UtilityValues(jnp.stack([jnp.asarray(q)] * n), jnp.zeros((n, A, 1)))
    recalled = elites.Recalled(action, action[None], jnp.array(drift), jax.random.key(1))
    budget = Budget(restarts=64, sweeps=2)
    return np.asarray(losses.search(given(table(0), segment, recalled), seen, budget).weight)


@pytest.mark.slow
def test_a_slot_weighs_what_its_greedy_joint_action_loses_in_drifts_of_the_joint_value() -> None:
    q = values(table(0))
    best, worst = (np.eye(U)[list(np.unravel_index(i, q.shape))] for i in (q.argmax(), q.argmin()))
    lost = q.max() - q.min()
    np.testing.assert_allclose(weights(worst, lost / 70), [70, 0], rtol=1e-4)
    assert weights(worst, lost / 1e6)[0] == weights(worst, 0)[0] == order.MAX_WEIGHT
    np.testing.assert_allclose(weights(best, lost / 7), [order.AGREED_WEIGHT, 0], rtol=1e-6)
    np.testing.assert_allclose(weights(worst, 2 * lost), [order.AGREED_WEIGHT, 0], rtol=1e-6)


def test_elites_are_a_ring_that_only_gets_written_where_it_should() -> None:
    spec = EnvSpec(2, 3, 1, 1, episode_limit=1)
    ring = elites.no_elites(spec, capacity=4, n_slots=2, key=jax.random.key(0))
    for k in range(3):
        ring, row = ring.add(jnp.full((2, 2, 2), k))
    np.testing.assert_array_equal(row, [0, 1])  # the oldest ones were replaced
    np.testing.assert_array_equal(ring.action[:, 0, 0], [2, 2, 1, 1])
    found = jnp.stack([jnp.full((2, 2), 9), jnp.full((2, 2), 8)])
    better = ring.improve(jnp.array([3, 4]), found, jnp.array([1]), jnp.array(1.0))
    np.testing.assert_array_equal(better.action[:, 0, 0], [2, 2, 1, 9])
    np.testing.assert_array_equal(better.recent, np.full_like(better.recent, 8))


def test_no_action_is_special_before_anything_was_found() -> None:
    spec = EnvSpec(2, 3, 1, 1, episode_limit=1)
    recent = elites.no_elites(spec, 4, 2, jax.random.key(0)).recent
    assert set(np.unique(recent[:, 0, 0])) == {0, 1, 2}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [9, 15, 35])
def test_the_best_that_other_segments_found_is_a_start(seed: int) -> None:
    """One sweep does not find the optimum of these tables; one of four others is it."""
    t, n = table(seed), 2
    t = t._replace(list_weight=10 * t.list_weight)  # payoffs of a list are as good as independent
    q = values(t)
    best = np.array(np.unravel_index(q.argmax(), q.shape))
    segment: Any = SimpleNamespace(
        avail=jnp.ones((n, A, U), bool), state=jnp.zeros((n, 1)), mask=jnp.array([True, False])
    )
    worst = np.array(np.unravel_index(q.argmin(), q.shape))
    others = jnp.asarray(np.stack([worst, worst, best, worst]))[:, None].repeat(n, axis=1)
    seen = UtilityValues(jnp.zeros((n, A, U)), jnp.zeros((n, A, 1)))
    elite = jnp.zeros((n, A), jnp.int32)
    found = [
        losses.search(
            given(t, segment, elites.Recalled(elite, known, jnp.zeros(()), jax.random.key(1))),
            seen, Budget(restarts=1, sweeps=1),
        ).action[0]
        for known in (others, others[:2])
    ]  # fmt: skip
    np.testing.assert_array_equal(found[0], best)
    assert not np.array_equal(found[1], best)


def test_what_one_search_finds_spreads_within_a_few_updates() -> None:
    """The chance that nobody asks for it in the next update is (1 - OTHERS / RECENT)^RECENT."""
    spec = EnvSpec(A, U, 1, 1, episode_limit=1)
    ring = elites.no_elites(spec, 4, 2, jax.random.key(0))
    ring = ring._replace(recent=jnp.zeros_like(ring.recent).at[5].set(1))
    row = jnp.zeros(elites.RECENT, jnp.int32)
    for k in range(8):
        recalled = elites.recall(ring, row, jax.random.key(k))
        found = recalled.others.max(axis=1)  # each takes the better of those it sees
        ring = ring.improve(row, found, jnp.arange(len(row)), jnp.array(0.0))
    assert ring.recent.min() == 1


@pytest.mark.parametrize("asked", ["target=search", "act_search=0.1"])
def test_only_a_method_that_searches_bootstraps_or_acts_on_a_search(asked: str) -> None:
    with pytest.raises(UserError, match=rf"{asked} .* ordered_nmqmix"):
        config.load(["method=qmix", asked])
    config.load(["method=ordered_joint", asked])


def trained(overrides: list[str]) -> dict[str, np.ndarray]:
    program, carry, lane = begin(*overrides)
    *_, (_, _, report) = loop.run(program, carry, lane)
    return report.metrics


SETTINGS = ["hidden_dim=32", "lr=3e-3", "lr_final=0.01", "lr_steps=4000", "total_steps=4000",
            "n_envs=4", "batch_size=512", "learn_start=512", "epsilon_end=1.0", "seeds=8",
            "seed=500"]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ordered_joint", "ordered_nmqmix"])
@pytest.mark.parametrize("game", ["b", "minus_b"])
def test_a_game_and_its_negative_are_both_solved(method: str, game: str) -> None:
    """No mixer trained by TD alone can do both (docs/theory.md, "Symmetry")."""
    metrics = trained([f"method={method}", f"env=matrix/{game}", *SETTINGS])
    assert metrics["optimal"].all()
    if method == "ordered_joint":
        assert metrics["fit"].all()


@pytest.mark.slow
def test_a_team_that_acts_on_its_search_earns_the_optimum_while_agents_explore() -> None:
    earned = [
        trained(["method=ordered_joint", "env=matrix/climbing", *SETTINGS, f"act_search={share}"])
        for share in (0, 0.5)
    ]
    assert np.all(np.abs(earned[0]["train_return"] + 31 / 9) < 1)  # the mean of the table
    assert np.all(earned[1]["train_return"] > 2)  # 11 in every other play


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_as_for_users")
def test_gru_utilities_learn_with_search_bootstraps_and_a_share_of_slots_searched() -> None:
    metrics = trained([
        "method=ordered_joint", "env=matrix_steps/two_step", "target=search", "utility=gru",
        "search_fraction=0.5", "seeds=4", "seed=500", "hidden_dim=16",
    ])  # fmt: skip
    assert metrics["test_return"].min() == 8  # 7 without coordination in the second step


def test_what_is_recalled_of_merged_segments_is_what_their_examples_know() -> None:
    """Four plays, of which three are merged into one; a loss that shows what was recalled."""
    asked = config.load([
        "method=ordered_joint", "env=matrix/file", "env.payoff=[[1,2],[3,4]]", "search_fraction=1",
        "utility=mlp", "hidden_dim=4",
    ])  # fmt: skip
    env = build.environment(asked.env)

    def show_recalled(x: LossInput) -> LossOutput:
        nothing = jnp.zeros(2)
        return LossOutput(nothing, {"td_error_abs": nothing}, x.recalled)

    parts = build.parts(asked, env)._replace(loss=show_recalled)
    memory = elites.no_elites(env.spec, capacity=8, n_slots=2, key=jax.random.key(0))
    known = jnp.arange(8)[:, None, None] * jnp.ones((8, 2, 2), jnp.int32)
    played = jnp.array([[0, 1], [1, 0], [1, 0], [1, 0]])
    action = jnp.stack([played, jnp.zeros_like(played)], axis=1).astype(jnp.uint8)
    row = jnp.array([5, 2, 7, 0])
    given = BatchInput(
        params=None,
        target_params=None,
        sample=Sample(Stored((action, jnp.zeros((4, 2))), row), None, None),
        unit=jnp.ones(()),
        extra=None,
        targets=None,
        counts=None,
        memory=memory._replace(action=known, drift=jnp.array(0.5)),
        key=jax.random.key(1),
        env_params=env.params,
        traced=None,
    )
    evaluated = batch_loss(parts, given)[1].evaluated
    recalled = evaluated.found
    np.testing.assert_array_equal(evaluated.copies, [0, 1, 3, 0])
    np.testing.assert_array_equal(recalled.elite[:, 0, 0], row[evaluated.example])
    first, merged = evaluated.example[1:3]
    assert first == 0
    assert merged in (1, 2, 3)
    np.testing.assert_array_equal(recalled.drift, [0.5] * 4)
    assert recalled.others.shape == (4, elites.OTHERS, 2, 2)


def test_a_list_adds_a_number_of_its_own_to_a_joint_action_in_any_state() -> None:
    asked = config.load(["method=ordered_joint", "method.max_listed=9", "hidden_dim=8"])
    model = build.model(asked, build.environment(asked.env))
    params = init_params(model, jax.random.key(0))["mixer"]
    raised = jax.tree.map(lambda x: x, params)
    raised["params"]["list"] = params["params"]["list"].at[5, -1].add(2.0)
    seen = UtilityValues(
        *(jax.random.normal(jax.random.key(k), (2, n)) for k, n in ((1, 3), (2, 8)))
    )

    @jax.jit
    def all_values(params: Any, state: Any) -> jnp.ndarray:
        def one(action: Any) -> jnp.ndarray:
            step = joint_steps(seen, action, jnp.ones((2, 3), bool), state)
            return model.mixer.apply(params, step)

        joint = jnp.array(list(itertools.product(range(3), repeat=2)))
        return jax.vmap(one)(joint)

    for state in (jnp.array([1.0, 0.0]), jnp.array([-3.0, 2.0])):
        more = all_values(raised, state) - all_values(params, state)
        assert sorted(np.round(more, 4)) == [0] * 8 + [2]


def test_an_ascent_keeps_its_actions_where_nothing_is_better() -> None:
    flat = jax.tree.map(jnp.zeros_like, table(0))
    can = jnp.ones((A, U), bool)
    for begin_at in ([3, 1, 2], [0, 0, 0], [1, 3, 3]):
        np.testing.assert_array_equal(search.ascend(flat, can, jnp.array(begin_at), 2), begin_at)


def loss_and_input(method: str, *overrides: str) -> tuple[Loss, LossInput]:
    """The loss of a method, and a segment without rewards or terminations for it.

    The parameters are random, and those of the target network are others.
    """
    asked = config.load([f"method={method}", "utility=mlp", "hidden_dim=8", "gamma=1",
                         "returns=one_step", *overrides])  # fmt: skip
    spec = EnvSpec(n_agents=2, n_actions=3, obs_size=4, state_size=5, episode_limit=4)
    env: Any = SimpleNamespace(spec=spec)
    model = build.model(asked, env)
    segment = random_segment(np.random.default_rng(5), spec, 24)._replace(
        reward=jnp.zeros(24), terminated=jnp.zeros(24, bool), avail=jnp.ones((24, 2, 3), bool)
    )
    elite = jnp.zeros((24, 2), jnp.int32)
    return build.loss(asked.method), LossInput(
        model=model,
        params=init_params(model, jax.random.key(0)),
        target_params=init_params(model, jax.random.key(1)),
        segment=segment,
        traced=jax.tree.map(jnp.float32, asked.traced()),
        recalled=elites.Recalled(elite, elite[None], jnp.zeros(()), jax.random.key(2)),
    )


def test_a_search_bootstraps_on_the_better_of_what_it_found_and_the_greedy_joint_action() -> None:
    """With one set of parameters, without rewards or ends, a target is a joint value."""
    targets = {}
    for rule in ("double", "search"):
        loss, x = loss_and_input("ordered_joint", f"target={rule}")
        f = lambda p, loss=loss, x=x: loss(x._replace(params=p, target_params=p)).metrics["target"]
        targets[rule] = np.asarray(jax.jit(f)(x.params))[x.segment.mask]
    assert (targets["search"] >= targets["double"] - 1e-5).all()
    assert (targets["search"] > targets["double"] + 1e-3).any()


def test_the_drift_is_how_far_the_joint_value_is_from_the_target_networks() -> None:
    loss, x = loss_and_input("ordered_joint")
    drift = jax.jit(lambda target: loss(x._replace(target_params=target)).found.drift)
    np.testing.assert_allclose(drift(x.params), 0, atol=1e-6)
    assert (drift(x.target_params)[x.segment.mask] > 0).all()


@pytest.mark.parametrize("method", ["ordered_joint", "ordered_nmqmix"])
def test_hysteresis_lowers_the_loss_where_the_joint_value_is_above_its_target(method: str) -> None:
    """By the share that it takes away of the squared error; elsewhere the loss is the same."""
    loss, x = loss_and_input(method)

    @jax.jit
    def both(params: Any) -> Any:
        given = x._replace(params=params)
        outs = [dataclasses.replace(loss, hysteresis=h)(given) for h in (1.0, 0.25)]
        return *outs, losses._joint_and_order(given, loss).metrics

    out, less, joint = both(x.params)
    error = np.where(x.segment.mask, joint["q_tot"] - joint["target"], 0)
    assert min((error > 0).sum(), (error < 0).sum()) > 3
    expected = np.where(error > 0, 0.75 * 0.5 * error**2, 0)
    np.testing.assert_allclose(out.per_slot - less.per_slot, expected, rtol=1e-3, atol=1e-3)


def test_the_fit_moves_utilities_where_they_are_settled_and_nowhere_else() -> None:
    """The layer that makes the utilities learns of Q_tot alone, if the order weighs nothing."""
    _, x = loss_and_input("ordered_nmqmix")

    @jax.jit
    def gradient(margin: Any) -> Any:
        loss = losses.OrderedNmqmix(order_weight=0.0, margin=margin)
        f = lambda utility: jnp.sum(
            loss(x._replace(params=x.params | {"utility": utility})).per_slot
        )
        return jax.grad(f)(x.params["utility"])

    def moved(margin: float) -> float:
        heads = [g for g in jax.tree.leaves(gradient(margin)) if g.shape == (3,)]
        assert len(heads) == 1
        return float(jnp.abs(heads[0]).max())

    settled, unsettled = moved(-1e6), moved(1e6)
    assert settled > unsettled == 0
