"""Targets equal slow loops on random streams of episodes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxvff.core.types import EnvSpec
from jaxvff.losses.options import BOOTSTRAPS, RETURNS
from jaxvff.losses.targets import Bootstrap, n_step, td_lambda
from tests.oracles import returns as oracle
from tests.streams import random_segment, spans

SPEC = EnvSpec(2, 3, 1, 1, 4)
TOLERANCE = 1e-5  # float32 sums of up to twelve terms of size one
compiled = jax.jit(td_lambda)


def bootstrap(seed: int, n_slots: int, gamma: float) -> Bootstrap:
    rng = np.random.default_rng(seed)
    s = random_segment(rng, SPEC, n_slots)
    value = rng.normal(size=n_slots).astype(np.float32)
    discount = gamma * (1 - np.asarray(s.terminated, np.float32))
    return Bootstrap(s.reward, jnp.asarray(discount), jnp.asarray(value), s.mask)


streams = st.tuples(st.integers(0, 10**6), st.sampled_from([1, 2, 3, 12]), st.floats(0, 1))


@given(streams, st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_td_lambda_is_the_weighted_mean_of_n_step_returns(stream, lambda_) -> None:
    x = bootstrap(*stream)
    expected = oracle.td_lambda(*map(np.asarray, x), lambda_)
    np.testing.assert_allclose(compiled(x, lambda_), expected, atol=TOLERANCE)


@given(streams, st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_n_step_is_the_sum_of_n_rewards_and_a_value(stream, n) -> None:
    x = bootstrap(*stream)
    expected = oracle.n_step(*map(np.asarray, x), n)
    np.testing.assert_allclose(n_step(x, n), expected, atol=TOLERANCE)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_returns_of_a_segment_are_those_of_its_episodes_alone(seed, gamma, lambda_) -> None:
    """Terminated, truncated, cut by the segment's end, one step long: from the flags of the segment."""
    rng = np.random.default_rng(seed)
    s = random_segment(rng, SPEC, 23)
    value = rng.normal(size=23).astype(np.float32)
    discount = gamma * (1.0 - s.terminated)
    mine = compiled(Bootstrap(s.reward, discount, jnp.asarray(value), s.mask), lambda_)
    arrays = (np.asarray(s.reward), value, np.asarray(s.terminated))
    expected = oracle.recursion(*arrays, spans(s), gamma, lambda_)
    np.testing.assert_allclose(mine, expected, atol=TOLERANCE)


def test_random_streams_hold_every_kind_of_episode() -> None:
    kinds = set()
    for seed in range(50):
        s = random_segment(np.random.default_rng(seed), SPEC, 23)
        for first, last in spans(s):
            end = "terminated" if s.terminated[last - 1] else "cut" if last == 22 else "truncated"
            kinds.add((end, last - first == 1))
    assert kinds == {(e, one) for e in ("terminated", "truncated", "cut") for one in (True, False)}


def test_a_terminated_step_bootstraps_nothing_and_a_truncated_one_its_last_value() -> None:
    reward, value = jnp.array([1.0, 0.0]), jnp.array([5.0, 7.0])
    mask = jnp.array([True, False])
    for discount, expected in ((0.0, 1.0), (0.5, 4.5)):  # 0: terminated; γ: the limit cut it
        x = Bootstrap(reward, jnp.array([discount, discount]), value, mask)
        for name, f in RETURNS.items():
            np.testing.assert_allclose(f(x, 0.8, 3), [expected, 0.0], err_msg=name)


def test_lambda_zero_and_n_one_are_the_one_step_target() -> None:
    x = bootstrap(3, 12, 0.9)
    one = RETURNS["one_step"](x, 0.5, 3)
    np.testing.assert_allclose(td_lambda(x, 0.0), one, atol=TOLERANCE)
    np.testing.assert_allclose(n_step(x, 1), one, atol=TOLERANCE)


@pytest.mark.parametrize("f", RETURNS.values(), ids=RETURNS)
def test_garbage_in_padding_reaches_no_target(f) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        s = random_segment(rng, SPEC, 9)
        used = np.asarray(s.mask) | np.append(False, np.asarray(s.mask)[:-1])
        value = np.where(used, rng.normal(size=9), np.nan).astype(np.float32)
        reward = jnp.where(s.mask, s.reward, jnp.nan)
        discount = jnp.where(s.mask, 0.9, jnp.nan)
        dirty = f(Bootstrap(reward, discount, jnp.asarray(value), s.mask), 0.7, 2)
        clean = f(
            Bootstrap(s.reward, jnp.full(9, 0.9), jnp.nan_to_num(jnp.asarray(value)), s.mask),
            0.7,
            2,
        )
        np.testing.assert_array_equal(dirty, clean)


def test_bootstrap_rules_take_the_taken_the_target_and_the_online_greedy_action() -> None:
    s = random_segment(np.random.default_rng(0), SPEC, 6)
    online, target = jax.random.normal(jax.random.key(0), (2, 6, 2, 3))
    masked_best = lambda q: np.argmax(np.where(s.avail, q, -np.inf), -1)
    for name, expected in (
        ("sarsa", s.action),
        ("max", masked_best(target)),
        ("double", masked_best(online)),
    ):
        np.testing.assert_array_equal(BOOTSTRAPS[name](online, target, s), expected, name)


def test_wrong_ranks_and_lengths_are_refused() -> None:
    x = bootstrap(0, 4, 0.9)
    with pytest.raises(AssertionError):
        td_lambda(x._replace(reward=x.reward[:, None]), 0.5)
    with pytest.raises(AssertionError):
        n_step(x._replace(value=x.value[:-1]), 2)
    with pytest.raises(AssertionError):
        n_step(x, 0)


def test_the_n_of_a_run_is_the_number_of_rewards_in_its_targets() -> None:
    x = bootstrap(1, 12, 0.9)
    for n in (1, 2, 3, 5):
        np.testing.assert_array_equal(RETURNS["n_step"](x, 0.5, n), n_step(x, n))
    assert not np.allclose(n_step(x, 2), n_step(x, 3))
