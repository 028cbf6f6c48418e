"""RND: new states earn a bonus, known ones lose it, and nothing else changes it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import segments
from jaxvff.core.types import EnvSpec, Segment
from jaxvff.learning.bonus import rnd
from jaxvff.learning.learner import LearnInput
from jaxvff.learning.options import BonusOptions
from jaxvff.settings import build, config
from tests import toy
from tests.lanes import start_in
from tests.streams import random_segment

SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=2, state_size=5, episode_limit=4)
SLOTS, BATCH, LR = 12, 8, 1e-2
RND = rnd(BonusOptions(rnd_dim=16))
reward, update = jax.jit(RND.reward), jax.jit(RND.update)


@functools.cache
def fresh() -> Any:
    return RND.init(jax.random.key(0), SPEC.state_size)


def batch(seed: int = 0, garbage: float | None = None) -> Segment:
    rng = np.random.default_rng(seed)
    segments = [random_segment(rng, SPEC, SLOTS, garbage) for _ in range(BATCH)]
    return jax.tree.map(lambda *x: jnp.stack(x), *segments)


def train_on(segments: Segment, n_updates: int, state: Any = None) -> Any:
    state = fresh() if state is None else state
    for _ in range(n_updates):
        state = update(state, segments, LR)
    return state


def mean(bonus: Any, segments: Segment) -> float:
    return float(jnp.sum(bonus) / jnp.sum(segments.mask))


def reached(segments: Segment) -> np.ndarray:
    """The states that transitions lead to, `[n, S]`."""
    return np.asarray(segments.state)[:, 1:][np.asarray(segments.mask)[:, :-1]]


def same(a: Any, b: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_only_transitions_earn_a_bonus() -> None:
    segments = batch(seed=1)
    earned = np.asarray(reward(fresh(), segments))
    assert earned.shape == (BATCH, SLOTS)
    assert (earned[~np.asarray(segments.mask)] == 0).all()
    assert (earned[np.asarray(segments.mask)] > 0).all()


def test_a_step_earns_the_novelty_of_the_state_it_leads_to() -> None:
    """Changing state t+1 changes the bonus of the step t -> t+1, and no other."""
    segments = batch(seed=1)
    moved = segments._replace(state=segments.state.at[:, 3].add(1.0))
    changed = np.asarray(reward(fresh(), segments) != reward(fresh(), moved))
    np.testing.assert_array_equal(changed[:, 2], segments.mask[:, 2])
    assert not changed[:, [0, 1, *range(3, SLOTS)]].any()


def test_the_bonus_falls_where_states_repeat_and_stays_where_they_are_new() -> None:
    known = batch(seed=1)
    new = known._replace(state=known.state + 6.0)  # six standard deviations away
    state = train_on(known, 1)
    before = mean(reward(state, known), known)
    state = train_on(known, 300, state)
    after, elsewhere = mean(reward(state, known), known), mean(reward(state, new), new)
    assert after < before / 5
    assert elsewhere > 5 * after


def test_running_moments_are_those_of_all_states_that_were_reached() -> None:
    state, seen = fresh(), []
    for seed in range(4):
        segments = batch(seed)
        segments = segments._replace(state=3.0 + (1 + seed) * segments.state)
        state = update(state, segments, LR)
        seen.append(reached(segments))
    seen = np.concatenate(seen).astype(np.float64)
    assert state.states.n == len(seen)
    # float32 sums of some hundred numbers of size ten
    np.testing.assert_allclose(state.states.mean, seen.mean(0), rtol=1e-4)
    np.testing.assert_allclose(state.states.var, seen.var(0), rtol=1e-4)


def test_the_moments_of_the_error_are_those_of_all_errors() -> None:
    """With a predictor that does not learn: its errors are known from the networks themselves."""
    state, errors = fresh(), []
    for seed in range(3):
        segments = batch(seed)
        state = update(state, segments, 0.0)
        raw = reward(state, segments) * jnp.sqrt(state.errors.var + 1e-8)
        errors.append(np.asarray(raw)[np.asarray(segments.mask)])
    errors = np.concatenate(errors).astype(np.float64)
    np.testing.assert_allclose(state.errors.mean, errors.mean(), rtol=1e-4)
    np.testing.assert_allclose(state.errors.var, errors.var(), rtol=1e-3)
    earned = reward(state, segments)  # in standard deviations of all of that
    np.testing.assert_allclose(
        np.asarray(earned)[np.asarray(segments.mask)], errors[-int(segments.mask.sum()) :] / errors.std(),
        rtol=1e-3,
    )  # fmt: skip


def test_rewards_do_not_matter_to_the_bonus() -> None:
    plain = batch(seed=1)
    rich = plain._replace(reward=100 * plain.reward)
    same(train_on(plain, 5), train_on(rich, 5))
    same(reward(fresh(), plain), reward(fresh(), rich))


@pytest.mark.parametrize("scale", [0.1, 1000.0])
def test_the_unit_of_the_state_hardly_matters_to_the_bonus(scale: float) -> None:
    """Inputs are normalised; what is left is the 1e-8 under the root, 1e-6 of a variance of 0.01."""
    plain = batch(seed=1)
    scaled = plain._replace(state=scale * plain.state)
    a, b = (reward(train_on(x, 20), x) for x in (plain, scaled))
    np.testing.assert_allclose(mean(a, plain), mean(b, plain), rtol=0.02)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30])
def test_padding_reaches_neither_predictor_nor_normaliser(garbage: float) -> None:
    clean = jax.jit(jax.vmap(segments.without_padding))
    dirty, tidy = (clean(batch(seed=2, garbage=g)) for g in (garbage, 0.0))
    assert not np.isfinite(batch(seed=2, garbage=garbage).state).all() or garbage == 1e30
    state = train_on(dirty, 3)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))
    same(state, train_on(tidy, 3))
    same(reward(state, dirty), reward(state, tidy))


def test_a_batch_of_padding_teaches_nothing_and_earns_nothing() -> None:
    empty = jax.tree.map(lambda x: jnp.stack([x] * 2), segments.blank_segment(SPEC, SLOTS))
    state = train_on(batch(), 2)
    after = update(state, empty, LR)
    same(after.states, state.states)
    same(after.errors, state.errors)
    assert not np.any(reward(after, empty))


def test_the_frozen_network_never_moves() -> None:
    same(train_on(batch(), 10).frozen, fresh().frozen)


def run(bonus: str, *betas: float) -> tuple[Any, dict[str, np.ndarray]]:
    """Parameters and summed metrics of a lane per beta, which all start as the same seed."""
    program, carry, lane = start_in(
        [toy.make() for _ in betas], f"bonus={bonus}", "method=qmix", "utility=mlp", "seeds=1",
        "hidden_dim=8", "segment_length=12", "batch_size=8", "learn_start=8", "buffer_size=32",
        "rnd_dim=8", "total_steps=100000",
    )  # fmt: skip
    lane = lane._replace(traced=lane.traced._replace(bonus_beta=jnp.array(betas)))
    carry = program.advance(carry, lane, 0, 40)
    return jax.tree.map(np.array, (carry.state.learner.params, carry.totals))


@pytest.mark.slow
def test_a_beta_of_zero_is_no_bonus_bit_for_bit() -> None:
    """33 updates: the same draws, the same parameters, the same metrics but for the bonus itself."""
    without, zero = run("none", 0.0, 1.0), run("rnd", 0.0, 1.0)
    assert zero[1]["learned"][0] == 33
    assert zero[1].pop("bonus")[0] > 0
    first = lambda tree: jax.tree.map(lambda x: x[0], tree)
    same(first(without), first(zero))
    moved = jax.tree.map(lambda a, b: np.abs(a[1] - b[1]).max(), without[0], zero[0])
    assert max(jax.tree.leaves(moved)) > 1e-4, "a bonus changes nothing, so it proves nothing"


def test_beta_is_the_factor_of_the_bonus_in_the_targets() -> None:
    """One-step games, an update with the same draws each time: y = r + beta * bonus."""
    asked = config.load([
        "method=vdn", "utility=mlp", "hidden_dim=4", "bonus=rnd", "rnd_dim=4", "n_envs=8",
        "batch_size=8", "learn_start=8", "buffer_size=16",
    ])  # fmt: skip
    env = build.environment(asked.env)
    learner, traced = build.learner(asked, env), jax.tree.map(jnp.float32, asked.traced())
    blank = segments.blank_segment(env.spec, 2)
    plays = jax.tree.map(lambda x: jnp.stack([x] * 8), blank)
    given = LearnInput(
        segments=plays._replace(reward=jnp.ones((8, 2)) * jnp.array([3.0, 0.0])),
        env_params=env.params,
        traced=traced,
        iteration=jnp.array(0),
        env_steps=jnp.array(8),
        running=jnp.array(True),
        keys=jax.random.split(jax.random.key(1), learner.n_keys),
    )
    state = jax.jit(learner.init)(jax.random.key(0), traced)
    learn = jax.jit(learner.learn)
    for beta in (0.0, 0.5, 2.0):
        with_beta = traced._replace(bonus_beta=jnp.float32(beta))
        metrics = learn(state, given._replace(traced=with_beta)).metrics
        assert metrics["bonus"] > 0.01
        np.testing.assert_allclose(metrics["target"], 3 + beta * metrics["bonus"], rtol=1e-5)


def test_a_state_is_no_newer_than_five_standard_deviations_make_it() -> None:
    state = train_on(batch(), 3)
    far = batch()._replace(state=1e3 * jnp.ones_like(batch().state))
    farther = far._replace(state=1e2 * far.state)
    same(reward(state, far), reward(state, farther))
    near = far._replace(state=1e-3 * far.state)
    assert (reward(state, near) != reward(state, far))[far.mask].all()
