"""What no loss may depend on, and what each one is."""

from __future__ import annotations

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvff.core import segments
from jaxvff.core.types import Array, Codec, Env, EnvSpec, JointStep, Segment
from jaxvff.learning.batch_loss import BatchInput, batch_loss, loss_and_gradient
from jaxvff.learning.learner import Parts, init_params
from jaxvff.learning.samples import Sample, Stored
from jaxvff.losses.contract import LossInput
from jaxvff.losses.ordered.elites import Elites, Found
from jaxvff.losses.qtran import QtranLoss
from jaxvff.losses.td import Td
from jaxvff.losses.terms import mix, returns, utilities
from jaxvff.methods.table import METHODS
from jaxvff.mixers.maven import Maven
from jaxvff.mixers.qtran import Qtran
from jaxvff.mixers.wqmix import Wqmix
from jaxvff.networks.contexts import LatentPolicy, split_tasks
from jaxvff.networks.heads import successor_features
from jaxvff.settings import build, config
from jaxvff.training.program import EFFORT
from tests.streams import drawn, random_segment

SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=4, state_size=5, episode_limit=4)
AS_IS = Codec(lambda s: s, lambda s, params: s)
ENV = Env(SPEC, (), None, None, None, "test")  # type: ignore[arg-type]  # its sizes only
SLOTS, BATCH = 9, 6


def elites(action: int) -> Elites:
    """One row for every segment of a batch, with the same joint actions in all slots."""
    rows = jnp.full((BATCH, SLOTS, SPEC.n_agents), action, jnp.int32)
    return Elites(
        rows, jnp.zeros((64, SLOTS, SPEC.n_agents), jnp.int32), jnp.array(0), jnp.zeros(())
    )


def setup(*overrides: str) -> tuple[Parts, BatchInput]:
    """The parts of a learner, and a batch with random parameters."""
    asked = config.load(["hidden_dim=8", *overrides])
    parts = build.parts(asked, ENV)
    params, target = (init_params(parts.model, jax.random.key(k)) for k in (0, 1))
    searches = METHODS[asked.method["name"]].act_on_search
    return parts, BatchInput(
        params=params,
        target_params=target,
        sample=sample(batch(context=parts.model.context)),
        unit=jnp.ones(()),
        extra=None,
        targets=None,
        counts=None,
        memory=elites(0) if searches else (),
        key=jax.random.key(2),
        env_params=(),
        traced=jax.tree.map(jnp.float32, asked.traced()),
    )


def sample(segments: Segment, weight: jax.Array | None = None) -> Sample:
    return Sample(Stored(segments, jnp.arange(BATCH)), weight, jnp.arange(BATCH))


def of_segment(parts: Parts, given: BatchInput, seed: int) -> tuple[Segment, LossInput]:
    """The first segment of a random batch, and what its loss is given."""
    segment = jax.tree.map(lambda x: x[0], batch(seed=seed, context=parts.model.context))
    model = parts.model
    return segment, LossInput(model, given.params, given.target_params, segment, given.traced)


@functools.cache
def loss_and_grad(name: str, *overrides: str):
    """`f(segments, params, target) -> (loss, grads)`, random parameters, and what is drawn."""
    parts, given = setup(
        f"method={name}", "utility=gru", "last_action=true", "td_lambda=0.7", "returns=td_lambda",
        *overrides,
    )  # fmt: skip

    def f(segments: Segment, params=given.params, target=given.target_params):
        x = given._replace(sample=sample(segments), target_params=target)
        return jax.value_and_grad(lambda p: batch_loss(parts, x._replace(params=p))[0])(params)

    return jax.jit(f), given.params, given.target_params, parts.model.context


def batch(garbage: float | None = None, seed: int = 0, context: nn.Module | None = None) -> Segment:
    rng = np.random.default_rng(seed)
    segments = [random_segment(rng, SPEC, SLOTS, garbage) for _ in range(BATCH)]
    segments = [drawn(segment, context, garbage) for segment in segments]
    return jax.tree.map(lambda *x: jnp.stack(x), *segments)


def same(a, b) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", METHODS)
def test_padding_changes_no_loss_and_no_gradient(name: str) -> None:
    """NaN, infinities, huge numbers: whatever the padding holds, not a bit changes."""
    f, *_, context = loss_and_grad(name)
    clean = f(batch(garbage=0.0, context=context))
    assert np.isfinite(clean[0])
    assert clean[0] > 0
    for garbage in (np.nan, np.inf, 1e30):
        same(f(batch(garbage, context=context)), clean)


@pytest.mark.parametrize("name", METHODS)
def test_a_batch_of_padding_has_no_loss_and_no_gradient(name: str) -> None:
    f, *_, context = loss_and_grad(name)
    empty = segments.blank_segment(SPEC, SLOTS, 0 if context is None else context.size)
    loss, grads = f(jax.tree.map(lambda x: jnp.stack([x] * BATCH), empty))
    assert loss == 0
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(grads))


def test_importance_weights_lower_what_a_segment_adds_and_not_what_it_is_divided_by() -> None:
    """The loss is linear in the weights: with all of them 1 it is the loss without weights."""
    parts, given = setup("method=qmix", "utility=mlp")

    @jax.jit
    def loss(weight) -> tuple[jax.Array, jax.Array]:
        value, out = batch_loss(parts, given._replace(sample=sample(batch(), weight)))
        return value, out.error

    plain, error = loss(None)
    np.testing.assert_allclose(loss(jnp.ones(BATCH))[0], plain, rtol=1e-6)
    each = np.array([loss(row)[0] for row in jnp.eye(BATCH)])
    np.testing.assert_allclose(each.sum(), plain, rtol=1e-5)
    weight = np.linspace(0.1, 1, BATCH).astype(np.float32)
    half, weighted_error = loss(weight)
    np.testing.assert_allclose(half, weight @ each, rtol=1e-5)
    np.testing.assert_array_equal(weighted_error, error)  # what priorities are made of


def test_a_gradient_in_parts_is_that_of_the_whole_batch() -> None:
    """Whatever a part holds: nothing but padding too, and with weights that are not all the same."""
    parts, given = setup("method=vdn", "utility=mlp")
    sampled = batch()
    sampled = sampled._replace(mask=sampled.mask.at[:2].set(False))

    def of(slots_at_once: int | None, weight: jax.Array | None) -> tuple:
        some = parts._replace(n_slots=SLOTS, slots_at_once=slots_at_once)

        @jax.jit
        def made() -> tuple:
            x = given._replace(sample=Sample(Stored(sampled, ()), weight, None))
            (loss, out), gradient = loss_and_gradient(some, x)
            return loss, gradient, out.metrics, out.error, out.n_valid

        return made()

    for weight in (None, jnp.linspace(0.1, 1, BATCH)):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),  # float32 sums
            of(2 * SLOTS, weight),
            of(None, weight),
        )


@pytest.mark.slow
def test_a_share_of_the_segments_is_searched_and_the_others_keep_their_elites() -> None:
    unknown = 255  # no action: a search that starts there would not end there

    def outcome(fraction: float) -> tuple[Array, Found, Elites]:
        share = f"search_fraction={fraction}"
        parts, given = setup("method=ordered_joint", "utility=mlp", share)

        def learn(given: BatchInput) -> tuple[Array, Found, Elites]:
            _, out = batch_loss(parts, given)
            return out.error, out.evaluated.found, parts.memory.update(given.memory, out.evaluated)

        return jax.jit(learn)(given._replace(memory=elites(unknown)))

    (errors, everyone, all_kept), (error, some, kept) = outcome(1.0), outcome(0.4)
    np.testing.assert_allclose(error, errors, rtol=1e-6)  # each in its own row
    searched = np.asarray(some.searched)
    assert np.all(everyone.searched)
    assert searched.sum() == 3  # 2.4 of 6, rounded up
    # Nothing is written for the others: one of them may be a sampled segment's second copy.
    assert np.all(kept.action[~searched] == unknown)
    np.testing.assert_array_equal(kept.action[searched], all_kept.action[searched])
    assert np.all(kept.action[searched, :-1] < SPEC.n_actions)
    found = np.asarray(some.action)
    recent = found[np.flatnonzero(searched)[np.arange(len(kept.recent)) % 3]]
    np.testing.assert_array_equal(kept.recent, recent)


@pytest.mark.parametrize("rule", ["sarsa", "max", "double"])
def test_the_rules_differ_in_what_they_bootstrap_on(rule: str) -> None:
    losses = {
        r: float(loss_and_grad("nmqmix", f"target={r}")[0](batch())[0])
        for r in ("sarsa", "max", "double")
    }
    assert sum(abs(losses[rule] - x) > 1e-6 for x in losses.values()) == 2


def relabel_actions(segments: Segment, order: np.ndarray) -> Segment:
    """The same play with the actions under other names: new name k was order[k]."""
    return segments._replace(
        action=jnp.asarray(np.argsort(order))[segments.action], avail=segments.avail[..., order]
    )


@pytest.mark.parametrize("name", ["iql", "vdn", "qmix", "nmqmix", "qatten"])
def test_relabelling_actions_permutes_the_gradient_of_the_head(name: str) -> None:
    f, params, target, _ = loss_and_grad(name, "last_action=false")
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
    parts, given = setup("method=qtran", "gamma=0.9")
    model, params, target = parts.model, given.params, given.target_params
    segment, x = of_segment(parts, given, seed=5)
    per_slot = parts.loss(x).per_slot

    online, old = (utilities(model, p["utility"], segment) for p in (params, target))
    best = np.argmax(np.where(segment.avail, online.q, -np.inf), -1)
    q_jt, q_best, q_next = (
        np.asarray(mix(model, p["mixer"], v, action=a, segment=segment))
        for p, v, a in (
            (params, online, segment.action),
            (params, online, best),
            (target, old, best),
        )
    )
    v_of = lambda s: model.mixer.apply(params["mixer"], s, method=Qtran.state_value)
    v = [float(v_of(s)) for s in segment.state]
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


class ValuesWithCentral(NamedTuple):
    """What losses with a central Q̂* are made of, in a segment."""

    q: jax.Array  # [T, A, U] utilities
    best: jax.Array  # [T, A] greedy actions
    greedy_value: jax.Array  # [T] Q̂* of them, by the target network
    y: jax.Array  # [T] targets
    q_tot: jax.Array  # [T] of the joint actions taken
    q_star: jax.Array  # [T] Q̂* of the same


def values_with_central(x: LossInput) -> ValuesWithCentral:
    model, params, target, segment = x.model, x.params, x.target_params, x.segment
    online = utilities(model, params["utility"], segment)
    central = utilities(model, params["central"], segment)
    old = utilities(model, target["central"], segment)
    best = jnp.argmax(jnp.where(segment.avail, online.q, -jnp.inf), -1)
    value = functools.partial(mix, model, segment=segment)
    greedy_value = value(target["mixer"], old, action=best, head=Wqmix.central)
    return ValuesWithCentral(
        q=online.q,
        best=best,
        greedy_value=greedy_value,
        y=returns(x, greedy_value),
        q_tot=value(params["mixer"], online, action=segment.action),
        q_star=value(params["mixer"], central, action=segment.action, head=Wqmix.central),
    )


@pytest.mark.parametrize("name", ["cw_qmix", "ow_qmix"])
def test_weighted_qmix_weighs_its_errors_as_published(name: str) -> None:
    """Loss = w e² + e_c²/2 with w in {1, α}: solve for w and compare with the published rule."""
    parts, given = setup(f"method={name}", "gamma=0.9")
    seen = set()
    for seed in range(6):
        segment, x = of_segment(parts, given, seed)
        per_slot = parts.loss(x).per_slot
        _, best, greedy_value, y, q_tot, q_star = values_with_central(x)
        for t in np.flatnonzero(segment.mask):
            weight = float((per_slot[t] - 0.5 * (q_star[t] - y[t]) ** 2) / (q_tot[t] - y[t]) ** 2)
            if name == "ow_qmix":
                full = bool(q_tot[t] < y[t])
            else:
                full = bool((segment.action[t] == best[t]).all() or y[t] > greedy_value[t])
            np.testing.assert_allclose(weight, 1.0 if full else 0.1, rtol=2e-2)
            seen.add(full)
    assert seen == {True, False}


@pytest.mark.parametrize("tolerance", [0.03, 0.1])
def test_pow_qmix_trains_q_tot_on_what_the_recogniser_takes_for_optimal(tolerance: float) -> None:
    """An oracle in NumPy: the recogniser's sum over agents, its set, and the three errors."""
    parts, given = setup(
        "method=pow_qmix", "gamma=0.9", f"method.tolerance={tolerance}", "method.alpha=0.25"
    )
    own = given.params["mixer"]["params"]

    def layers(name: str, x: np.ndarray) -> np.ndarray:
        for k in (0, 2, 4):
            weights = own[name][f"layers_{k}"]
            x = x @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])
            x = np.maximum(x, 0) if k < 4 else x
        return x

    seen = set()
    for seed in range(4):
        segment, x = of_segment(parts, given, seed)
        per_slot = parts.loss(x).per_slot
        q, best, _, y, q_tot, q_star = values_with_central(x)
        for t in np.flatnonzero(segment.mask):
            state, action = np.asarray(segment.state[t]), np.asarray(segment.action[t])
            joint = np.concatenate([state, np.eye(SPEC.n_actions)[action].ravel()])
            w1 = np.abs(layers("recogniser_w1", joint)).reshape(SPEC.n_agents, -1)
            w2 = np.abs(layers("recogniser_w2", joint))
            below = 0.0
            for i in range(SPEC.n_agents):
                worse = float(q[t, i, action[i]] - q[t, i, best[t, i]])
                below += sum(w1[i] * w2) * worse
            q_r = layers("recogniser_v", state)[0] + below
            full = below >= -tolerance
            expected = (
                (1.0 if full else 0.25) * (q_tot[t] - y[t]) ** 2
                + (q_r - y[t]) ** 2
                + (q_star[t] - y[t]) ** 2
            ) / 2
            np.testing.assert_allclose(per_slot[t], expected, rtol=1e-3)
            seen.add(full)
    assert seen == {True, False}


GAME_A = [[12.0, -12, -12], [-12, 0, 0], [-12, 0, 0]]


@functools.cache
def fitted(*overrides: str) -> tuple[np.ndarray, np.ndarray]:
    """Game A by gradient descent on all nine payoffs at once, from 8 initialisations.

    Returns:
      The largest error of the joint value `[8]`, and whether greedy agents earn 12 `[8]`.
    """
    spec = EnvSpec(n_agents=2, n_actions=3, obs_size=1, state_size=1, episode_limit=1)
    asked = config.load(["hidden_dim=16", "env=matrix/a", *overrides])
    parts = build.parts(asked, ENV._replace(spec=spec))
    joint = jnp.array([[i, j] for i in range(3) for j in range(3)])
    plays = jax.vmap(
        lambda action: Segment(
            obs=jnp.ones((2, 2, 1)),
            state=jnp.ones((2, 1)),
            avail=jnp.ones((2, 2, 3), bool),
            action=jnp.stack([action, action]),
            reward=jnp.array([jnp.array(GAME_A)[action[0], action[1]], 0.0]),
            terminated=jnp.array([True, False]),
            is_first=jnp.array([True, False]),
            mask=jnp.array([True, False]),
        )
    )(joint)
    traced = jax.tree.map(jnp.float32, asked.traced())
    adam = optax.adam(3e-3)

    def outputs(params):
        return jax.vmap(lambda s: parts.loss(LossInput(parts.model, params, params, s, traced)))(
            plays
        )

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: outputs(p).per_slot.sum())(params)
        updates, state = adam.update(grads, state)
        return (optax.apply_updates(params, updates), state), None

    def run(key):
        params = init_params(parts.model, key)
        (params, _), _ = jax.lax.scan(step, (params, adam.init(params)), length=2000)
        first = jax.tree.map(lambda x: x[0], plays)
        q = utilities(parts.model, params["utility"], first).q[0]
        error = outputs(params).metrics["td_error_abs"].max()
        return error, jnp.array(GAME_A)[tuple(q.argmax(-1))] == 12

    run_all = jax.jit(jax.vmap(run), compiler_options={EFFORT: 1})
    error, optimal = run_all(jax.random.split(jax.random.key(5), 8))
    return np.asarray(error), np.asarray(optimal)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [("resq",), *(("qfix", f"fixee={fixee}") for fixee in ("sum", "mono", "lin"))],
    ids="-".join,
)
def test_resq_and_qfix_represent_game_a_where_monotone_mixers_cannot(method: tuple) -> None:
    name, *options = method
    error, optimal = fitted(f"method={name}", *(f"method.{o}" for o in options))
    assert np.any((error < 0.1) & optimal)
    assert fitted("method=qmix")[0].min() > 5


def test_mavens_loss_is_td_less_how_well_latents_are_told_and_the_error_of_the_bandit() -> None:
    """An oracle in NumPy, slot by slot and episode by episode."""
    parts, given = setup("method=maven", "gamma=0.9", "returns=one_step", "method.mi_weight=0.7",
                         "method.latents=3")  # fmt: skip
    model, params, target = parts.model, given.params, given.target_params
    segment, x = of_segment(parts, given, seed=5)
    out = parts.loss(x)
    online, old = (utilities(model, p["utility"], segment) for p in (params, target))
    best = np.argmax(np.where(segment.avail, online.q, -np.inf), axis=-1)
    value = functools.partial(mix, model, segment=segment)
    q_tot = np.asarray(value(params["mixer"], online, action=segment.action))
    q_next = np.asarray(value(target["mixer"], old, action=best))
    z, surprises = np.argmax(segment.context, axis=-1), 0

    def surprise(t: int) -> float:
        q = np.where(segment.avail[t], online.q[t], -np.inf)
        behaviour = np.exp(q - q.max(-1, keepdims=True))
        behaviour /= behaviour.sum(-1, keepdims=True)
        logits = np.asarray(model.mixer.apply(
            params["mixer"], jnp.asarray(behaviour), segment.state[t], method=Maven.guess
        ))  # fmt: skip
        return float(np.log(np.exp(logits).sum()) - logits[z[t]])

    def rest(t: int) -> float:
        """The discounted return from slot t on, with the joint value where it was cut."""
        if not segment.mask[t]:
            return float(q_next[t])
        return float(segment.reward[t]) + 0.9 * (not segment.terminated[t]) * rest(t + 1)

    for t in range(SLOTS):
        if not segment.mask[t]:
            assert out.per_slot[t] == 0
            continue
        y = segment.reward[t] + 0.9 * (1 - segment.terminated[t]) * q_next[t + 1]
        expected = 0.5 * (q_tot[t] - y) ** 2 + 0.7 * surprise(t)
        if segment.is_first[t]:
            returns = model.context.apply(
                params["context"], segment.state[t], method=LatentPolicy.returns
            )
            expected += 0.5 * (returns[z[t]] - rest(t)) ** 2
            surprises += 1
        np.testing.assert_allclose(out.per_slot[t], expected, rtol=1e-4)
    assert surprises > 1


def test_unevens_loss_is_the_td_error_of_the_successor_features_of_every_task() -> None:
    """An oracle in NumPy: each task follows its own greedy policy, both agents together."""
    parts, given = setup("method=uneven", "gamma=0.9", "utility=mlp", "method.tasks=2")
    segment, x = of_segment(parts, given, seed=5)
    out = jax.jit(lambda p: parts.loss(x._replace(params=p)))(x.params)
    tasks = np.asarray(split_tasks(segment.context)[0])  # [T, K, 2]
    psi, old = (
        np.asarray(successor_features(utilities(x.model, p["utility"], segment).features, 3))
        for p in (x.params, x.target_params)
    )  # [T, A, K, U, 2]
    checked = 0
    for t in np.flatnonzero(segment.mask):
        phi = np.array([max(segment.reward[t], 0), min(segment.reward[t], 0)])
        errors = []
        for j in range(3):
            y, taken = phi.copy(), np.zeros(2)
            for i in range(2):
                taken += psi[t, i, j, segment.action[t, i]]
                q = np.where(segment.avail[t + 1, i], psi[t + 1, i, j] @ tasks[t + 1, j], -np.inf)
                y += 0.9 * (not segment.terminated[t]) * old[t + 1, i, j, q.argmax()]
            errors.append(taken - y)
        np.testing.assert_allclose(out.per_slot[t], 0.5 * np.square(errors).sum() / 3, rtol=1e-4)
        np.testing.assert_allclose(
            out.metrics["td_error_abs"][t], abs(errors[0].sum()), rtol=1e-4, atol=1e-5
        )
        checked += not segment.terminated[t]
    assert checked > 2


def test_uneven_without_related_tasks_learns_the_target_values_of_vdn() -> None:
    """With the target task alone, ψ · (1, 1) and its targets are VDN's Q_tot and targets."""
    parts, given = setup("method=uneven", "gamma=0.9", "utility=gru", "method.task_spread=0",
                         "method.act_for=target")  # fmt: skip
    _, x = of_segment(parts, given, seed=5)
    ours, vdn = parts.loss(x).metrics, Td()(x).metrics
    for name in ours:
        np.testing.assert_allclose(ours[name], vdn[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["vdn", "qmix", "iql"])
def test_a_target_is_the_target_networks_value_of_the_online_networks_choice(name: str) -> None:
    """An oracle in NumPy: double Q-learning, one step; every agent for itself where none mixes."""
    parts, given = setup(f"method={name}", "utility=mlp", "gamma=0.9", "returns=one_step")
    segment, x = of_segment(parts, given, seed=5)
    out = jax.jit(lambda p, t: parts.loss(x._replace(params=p, target_params=t)))(
        x.params, x.target_params
    )
    online, old = (
        np.array(utilities(x.model, p["utility"], segment).q) for p in (x.params, x.target_params)
    )
    best = np.argmax(np.where(segment.avail, online, -np.inf), axis=-1)
    taken = np.asarray(segment.action)

    def mixed(params, q, action, t) -> np.ndarray:
        q_taken = jnp.asarray(q[t, np.arange(2), action[t]])
        step = JointStep(
            q_taken=q_taken,
            q_max=q_taken,
            action=jnp.zeros((2, 3)),
            features=jnp.zeros((2, 8)),
            state=segment.state[t],
        )
        return np.asarray(x.model.mixer.apply(params["mixer"], step))

    checked = 0
    for t in np.flatnonzero(segment.mask):
        discount = 0.9 * (1 - float(segment.terminated[t]))
        y = float(segment.reward[t]) + discount * mixed(x.target_params, old, best, t + 1)
        error = mixed(x.params, online, taken, t) - y
        np.testing.assert_allclose(out.metrics["target"][t], y.mean(), rtol=1e-4, atol=1e-5)
        loss = 0.5 * np.mean(error**2)
        np.testing.assert_allclose(out.per_slot[t], loss, rtol=1e-3, atol=1e-5)
        checked += discount > 0
    assert checked > 2


def test_qtran_ties_the_utilities_to_its_joint_value_and_not_the_other_way() -> None:
    """The joint network learns by TD alone, whatever the other two conditions weigh."""
    _, x = of_segment(*setup("method=qtran", "utility=mlp", "gamma=0.9"), seed=5)

    @jax.jit
    def gradient(opt_weight, nopt_weight):
        loss = QtranLoss(opt_weight, nopt_weight)
        f = lambda mixer: jnp.sum(loss(x._replace(params=x.params | {"mixer": mixer})).per_slot)
        return jax.grad(f)(x.params["mixer"])["params"]

    tied, alone = gradient(1.0, 0.1), gradient(0.0, 0.0)
    for layers in ("encode", "q"):
        same(tied[layers], alone[layers])
    v = lambda grads: max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads["v"]))
    assert v(alone) == 0 < v(tied)


def test_the_priority_of_a_segment_is_its_mean_error_over_transitions_however_many() -> None:
    parts, given = setup("method=vdn", "utility=mlp")

    @jax.jit
    def errors(segments) -> tuple[jax.Array, jax.Array]:
        _, out = batch_loss(parts, given._replace(sample=sample(segments)))
        x = LossInput(parts.model, given.params, given.target_params, None, given.traced)
        each = jax.vmap(lambda s: parts.loss(x._replace(segment=s)).metrics["td_error_abs"])
        return out.error, each(segments)

    error, each = map(np.asarray, errors(batch()))
    mask = np.asarray(batch().mask)
    assert len(set(mask.sum(1))) > 1
    expected = [row[used].mean() if used.any() else 0 for row, used in zip(each, mask, strict=True)]
    np.testing.assert_allclose(error, expected, rtol=1e-5)
