"""What no loss may depend on, and what each one is."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff import config, learner, replay
from jaxvff.methods import METHODS
from jaxvff.options import bind_loss
from jaxvff.ordering import Recall
from jaxvff.types import Codec, Env, EnvSpec, Segment
from tests.streams import random_segment

SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=4, state_size=5, episode_limit=4)
AS_IS = Codec(lambda s: s, lambda s, params: s)
ENV = Env(SPEC, (), None, None, None, "test")  # type: ignore[arg-type]  # its sizes only
SLOTS, BATCH = 9, 6


ELITE = jnp.zeros((BATCH, SLOTS, SPEC.n_agents), jnp.int32)
RECALL = Recall(ELITE, ELITE[:, None], jnp.zeros(BATCH), jax.random.split(jax.random.key(2), BATCH))


def recall(rows: jax.Array) -> Recall:
    return jax.tree.map(lambda x: x[rows], RECALL)


@functools.cache
def setup(name: str, *overrides: str):
    """`loss_and_grad(segments, params, target) -> (loss, grads)`, and random parameters."""
    one = config.load([f"method={name}", "utility=gru", "last_action=true", "hidden_dim=8",
                       "td_lambda=0.7", "returns=td_lambda", *overrides])  # fmt: skip
    model = learner.make_model(one, ENV)
    params, target = (learner.init_params(one, model, jax.random.key(k)) for k in (0, 1))
    hyper = jax.tree.map(jnp.float32, one.hyper())

    def f(segments: Segment, params=params, target=target):
        objective = lambda p: learner.batch_loss(
            model, bind_loss(one.method), AS_IS, p, target,
            replay.Sample(segments, None, None), None, (), hyper,
            recall if METHODS[name].searches else None,
        )[0]  # fmt: skip
        return jax.value_and_grad(objective)(params)

    return jax.jit(f), params, target


def batch(garbage: float | None = None, seed: int = 0) -> Segment:
    rng = np.random.default_rng(seed)
    segments = [random_segment(rng, SPEC, SLOTS, garbage) for _ in range(BATCH)]
    return jax.tree.map(lambda *x: jnp.stack(x), *segments)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_no_loss_and_no_gradient(name: str) -> None:
    """NaN, infinities, huge numbers: whatever the padding holds, not a bit changes."""
    f, *_ = setup(name)
    clean = f(batch(garbage=0.0))
    assert np.isfinite(clean[0])
    assert clean[0] > 0
    for garbage in (np.nan, np.inf, 1e30):
        same(f(batch(garbage)), clean)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_padding_has_no_loss_and_no_gradient(name: str) -> None:
    f, *_ = setup(name)
    empty = replay.blank_segment(SPEC, SLOTS)
    loss, grads = f(jax.tree.map(lambda x: jnp.stack([x] * BATCH), empty))
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_importance_weights_lower_what_a_segment_adds_and_not_what_it_is_divided_by() -> None:
    """The loss is linear in the weights: with all of them 1 it is the loss without weights."""
    one = config.load(["method=qmix", "hidden_dim=8", "utility=mlp"])
    model = learner.make_model(one, ENV)
    params, target = (learner.init_params(one, model, jax.random.key(k)) for k in (0, 1))
    hyper = jax.tree.map(jnp.float32, one.hyper())

    @jax.jit
    def loss(weight):
        sample = replay.Sample(batch(), weight, jnp.arange(BATCH))
        return learner.batch_loss(
            model, bind_loss(one.method), AS_IS, params, target, sample, None, (), hyper
        )

    plain, (_, error, _) = loss(None)
    np.testing.assert_allclose(loss(jnp.ones(BATCH))[0], plain, rtol=1e-6)
    each = np.array([loss(row)[0] for row in jnp.eye(BATCH)])
    np.testing.assert_allclose(each.sum(), plain, rtol=1e-5)
    weight = np.linspace(0.1, 1, BATCH).astype(np.float32)
    half, (_, weighted_error, _) = loss(weight)
    np.testing.assert_allclose(half, weight @ each, rtol=1e-5)
    np.testing.assert_array_equal(weighted_error, error)  # what priorities are made of


def test_a_share_of_the_segments_is_searched_and_the_others_keep_their_elites() -> None:
    one = config.load(["method=ordered_joint", "hidden_dim=8", "utility=mlp"])
    model = learner.make_model(one, ENV)
    params, target = (learner.init_params(one, model, jax.random.key(k)) for k in (0, 1))
    hyper = jax.tree.map(jnp.float32, one.hyper())

    def unknown(rows: jax.Array) -> Recall:
        return recall(rows)._replace(elite=jnp.full_like(ELITE, -1))

    def outcome(fraction: float):
        return learner.batch_loss(
            model, bind_loss(one.method), AS_IS, params, target,
            replay.Sample(batch(), None, None), None, (), hyper, unknown, fraction,
        )  # fmt: skip

    _, (_, all_errors, (everyone, all_found, _)) = outcome(1.0)
    _, (_, errors, (whose, found, rows)) = outcome(0.4)
    np.testing.assert_allclose(errors, all_errors, rtol=1e-6)  # each in its own row
    searched = np.all(found[:, :-1] >= 0, axis=(1, 2))
    np.testing.assert_array_equal(everyone, np.arange(BATCH))
    # Nothing is written for the others: one of them may be a sampled segment's second copy.
    np.testing.assert_array_equal(whose, np.where(searched, np.arange(BATCH), BATCH))
    np.testing.assert_array_equal(rows, np.flatnonzero(searched))
    assert len(rows) == 3  # 2.4 of 6, rounded up
    np.testing.assert_array_equal(found[searched], all_found[searched])
    assert np.all(found[~searched] == -1)


@pytest.mark.parametrize("rule", ["sarsa", "max", "double"])
def test_the_rules_differ_in_what_they_bootstrap_on(rule: str) -> None:
    losses = {
        r: float(setup("nmqmix", f"target={r}")[0](batch())[0]) for r in ("sarsa", "max", "double")
    }
    assert sum(abs(losses[rule] - x) > 1e-6 for x in losses.values()) == 2


def relabel_actions(segments: Segment, order: np.ndarray) -> Segment:
    """The same play with the actions under other names: new name k was order[k]."""
    return segments._replace(
        action=jnp.asarray(np.argsort(order))[segments.action], avail=segments.avail[..., order]
    )


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix", "nmqmix", "qatten"])
def test_relabelling_actions_permutes_the_gradient_of_the_head(name: str) -> None:
    f, params, target = setup(name, "last_action=false")
    order = np.array([2, 0, 1])

    def permute(tree):
        tree = jax.tree.map(lambda x: x, tree)
        head = tree["utility"]["params"]["Dense_1"]
        head["kernel"], head["bias"] = head["kernel"][..., order], head["bias"][..., order]
        return tree

    loss, grads = f(batch())
    moved_loss, moved_grads = f(relabel_actions(batch(), order), permute(params), permute(target))
    np.testing.assert_allclose(moved_loss, loss, rtol=1e-6)  # sums over actions in another order
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        moved_grads,
        permute(grads),
    )


def test_qtran_is_zero_where_its_three_conditions_hold() -> None:
    """An oracle in NumPy for one transition: L_td + L_opt + 0.1 L_nopt, from the mixer's outputs."""
    one = config.load(["method=qtran", "hidden_dim=8", "gamma=0.9"])
    model = learner.make_model(one, ENV)
    params, target = (learner.init_params(one, model, jax.random.key(k)) for k in (0, 1))
    segment = jax.tree.map(lambda x: x[0], batch(seed=5))
    hyper = jax.tree.map(jnp.float32, one.hyper())
    per_slot, _ = bind_loss(one.method)(model, params, target, segment, hyper)

    from jaxvff.losses import mix, utilities

    online, old = (utilities(model, p["utility"], segment) for p in (params, target))
    best = np.argmax(np.where(segment.avail, online.q, -np.inf), -1)
    q_jt, q_best, q_next = (
        np.asarray(mix(model, p["mixer"], v, a, segment))
        for p, v, a in (
            (params, online, segment.action),
            (params, online, best),
            (target, old, best),
        )
    )
    v = [float(model.mixer.apply(params["mixer"], s, method="state_value")) for s in segment.state]
    for t in np.flatnonzero(segment.mask):
        y = segment.reward[t] + 0.9 * (1 - segment.terminated[t]) * q_next[t + 1]
        taken = sum(float(online.q[t, i, segment.action[t, i]]) for i in range(2))
        top = sum(float(online.q[t, i, best[t, i]]) for i in range(2))
        expected = (
            (q_jt[t] - y) ** 2
            + (top - q_best[t] + v[t]) ** 2
            + 0.1 * min(taken - q_jt[t] + v[t], 0.0) ** 2
        )
        np.testing.assert_allclose(per_slot[t], expected, rtol=1e-4)


@pytest.mark.parametrize("name", ["cw_qmix", "ow_qmix"])
def test_weighted_qmix_weighs_its_errors_as_published(name: str) -> None:
    """Loss = w e² + e_c²/2 with w in {1, α}: solve for w and compare with the published rule."""
    one = config.load([f"method={name}", "hidden_dim=8", "gamma=0.9"])
    model = learner.make_model(one, ENV)
    params, target = (learner.init_params(one, model, jax.random.key(k)) for k in (0, 1))
    hyper = jax.tree.map(jnp.float32, one.hyper())
    from jaxvff.losses import mix, returns, utilities

    seen = set()
    for seed in range(6):
        segment = jax.tree.map(lambda x: x[0], batch(seed=seed))
        per_slot, _ = bind_loss(one.method)(model, params, target, segment, hyper)
        online = utilities(model, params["utility"], segment)
        central = utilities(model, params["central"], segment)
        old = utilities(model, target["central"], segment)
        best = jnp.argmax(jnp.where(segment.avail, online.q, -jnp.inf), -1)
        greedy_value = mix(model, target["mixer"], old, best, segment, "central")
        y = returns(model, greedy_value, segment, hyper)
        q_tot = mix(model, params["mixer"], online, segment.action, segment)
        q_star = mix(model, params["mixer"], central, segment.action, segment, "central")
        for t in np.flatnonzero(segment.mask):
            weight = float((per_slot[t] - 0.5 * (q_star[t] - y[t]) ** 2) / (q_tot[t] - y[t]) ** 2)
            if name == "ow_qmix":
                full = bool(q_tot[t] < y[t])
            else:
                full = bool((segment.action[t] == best[t]).all() or y[t] > greedy_value[t])
            np.testing.assert_allclose(weight, 1.0 if full else 0.1, rtol=2e-2)
            seen.add(full)
    assert seen == {True, False}
