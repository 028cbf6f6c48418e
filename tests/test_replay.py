"""Replay: what prioritised sampling draws, how it is weighted, and that training moves priorities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import segments
from jaxvff.core.types import EnvSpec
from jaxvff.learning import replay
from jaxvff.learning.options import REPLAYS, ReplayOptions
from jaxvff.learning.samples import Sample
from jaxvff.losses.ordered import elites
from tests.lanes import start

ERRORS = np.array([0.1, 0.4, 1.6, 3.2], np.float32)
SMALL = ("hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64", "seeds=1")


def ranked(exponents: tuple[float, float]) -> tuple[replay.Replay, object]:
    """A full replay of four items with the priorities of ERRORS, sampled 256 at a time."""
    a, b = exponents
    options = ReplayOptions(
        buffer_size=256, batch_size=256, priority_exponent=a, importance_exponent=b
    )
    buffer = replay.prioritised(options)
    state = buffer.init({"x": jnp.array(0)})
    state = buffer.add(state, {"x": jnp.arange(4)})
    everything = Sample({"x": jnp.arange(4)}, None, jnp.arange(4))
    return buffer, buffer.prioritise(state, everything, jnp.asarray(ERRORS))


def test_segments_are_drawn_in_proportion_to_their_error_to_the_power_a() -> None:
    for a in (0.0, 0.6, 1.0):
        buffer, state = ranked((a, 0.4))
        keys = jax.random.split(jax.random.key(0), 100)
        drawn = jax.vmap(lambda k: buffer.sample(state, k).stored["x"])(keys)
        shares = np.bincount(np.asarray(drawn).ravel(), minlength=4) / drawn.size
        expected = ERRORS**a / np.sum(ERRORS**a)
        # Four standard errors of a share of one half among 25,600 draws: 0.0125.
        np.testing.assert_allclose(shares, expected, atol=0.0125, err_msg=f"a={a}")


def test_weights_are_inverse_probabilities_to_the_power_b_below_the_largest() -> None:
    buffer, state = ranked((0.6, 0.4))
    sample = buffer.sample(state, jax.random.key(1))
    p = (ERRORS**0.6 / np.sum(ERRORS**0.6))[np.asarray(sample.stored["x"])]
    expected = (len(ERRORS) * p) ** -0.4
    np.testing.assert_allclose(sample.weight, expected / expected.max(), rtol=1e-3)


def test_an_error_of_zero_leaves_a_segment_in_reach() -> None:
    buffer, state = ranked((0.6, 0.4))
    everything = Sample({"x": jnp.arange(4)}, None, jnp.arange(4))
    state = buffer.prioritise(state, everything, jnp.zeros(4))
    assert set(np.asarray(buffer.sample(state, jax.random.key(0)).stored["x"])) == {0, 1, 2, 3}


def test_a_new_segment_is_drawn_about_as_often_as_the_worst_known_one() -> None:
    """flashbax rounds the largest priority down to a whole number, which is never below 1."""
    buffer, state = ranked((0.6, 0.4))
    state = buffer.add(state, {"x": jnp.array([4])})
    priority = np.asarray(state.sum_tree_state.nodes)[-256:][:5]
    np.testing.assert_allclose(priority[:4], ERRORS**0.6, rtol=1e-4)
    assert max(1, ERRORS.max() ** 0.6 - 1) <= priority[4] <= ERRORS.max() ** 0.6


def test_a_ring_of_segments_forgets_the_oldest_first() -> None:
    for name, make in REPLAYS.items():
        buffer = make(ReplayOptions(buffer_size=4, batch_size=4))
        state = buffer.init({"x": jnp.array(0)})
        for i in range(6):
            state = buffer.add(state, {"x": jnp.array([i])})
        keys = jax.random.split(jax.random.key(0), 16)
        drawn = jax.vmap(lambda k, b=buffer, s=state: b.sample(s, k).stored["x"])(keys)
        assert set(np.unique(drawn)) == {2, 3, 4, 5}, name


def test_uniform_samples_have_no_weights_and_no_priorities_to_move() -> None:
    drawn = []
    for exponents in ((0.6, 0.4), (1.0, 1.0)):
        a, b = exponents
        options = ReplayOptions(
            buffer_size=64, batch_size=16, priority_exponent=a, importance_exponent=b
        )
        buffer = replay.uniform(options)
        state = buffer.add(buffer.init({"x": jnp.array(0)}), {"x": jnp.arange(8)})
        sample = buffer.sample(state, jax.random.key(0))
        assert sample.weight is None
        assert buffer.prioritise(state, sample, jnp.ones(16)) is state
        drawn.append(sample.stored["x"])
    np.testing.assert_array_equal(*drawn)


@pytest.mark.slow
def test_training_moves_priorities_and_only_when_asked() -> None:
    program, carry, lane = start("replay=prioritised", *SMALL)
    before = np.array(carry.state.learner.replay.sum_tree_state.nodes)
    carry = program.advance(carry, lane, 0, 16)
    filled = np.array(carry.state.learner.replay.sum_tree_state.nodes)
    carry = program.advance(carry, lane, 16, 20)
    after = np.array(carry.state.learner.replay.sum_tree_state.nodes)
    assert not np.array_equal(before, filled)
    leaves = after[0, -64:][:16]  # of the segments that were there before the last four
    assert len(np.unique(leaves)) > 1, "all segments have the priority they came with"
    program, carry, _ = start(*SMALL)
    assert not hasattr(carry.state.learner.replay, "sum_tree_state")


def test_what_a_transition_touches_is_no_padding_the_final_observation_included() -> None:
    """Two slots of an episode, its final one, and one that nothing leads to."""
    spec = EnvSpec(n_agents=2, n_actions=3, obs_size=2, state_size=2, episode_limit=3)
    mask = jnp.array([True, True, False, False])
    blank = segments.blank_segment(spec, 4)
    full = jax.tree.map(lambda x: jnp.ones_like(x), blank)._replace(
        mask=mask, is_first=jnp.array([True, False, False, False]), avail=blank.avail
    )
    clean = segments.without_padding(full)
    for field in ("obs", "state", "avail", "action"):
        np.testing.assert_array_equal(getattr(clean, field)[:3], getattr(full, field)[:3], field)
    for field in ("obs", "state", "action"):
        assert not np.any(getattr(clean, field)[3]), field
    assert clean.avail[3].all()
    np.testing.assert_array_equal(clean.reward, [1, 1, 0, 0])
    np.testing.assert_array_equal(clean.terminated, mask)
    np.testing.assert_array_equal(clean.is_first, [True, False, False, True])


def test_the_drift_is_a_mean_over_about_a_hundred_updates() -> None:
    spec = EnvSpec(n_agents=2, n_actions=3, obs_size=1, state_size=1, episode_limit=1)
    ring = elites.no_elites(spec, 4, 2, jax.random.key(0))
    nowhere = (jnp.array([4]), jnp.zeros((1, 2, 2), jnp.int32), jnp.array([0]))
    seen = []
    for k in range(200):
        ring = ring.improve(*nowhere, jnp.array(5.0 + (-1) ** k))
        seen.append(float(ring.drift))
    np.testing.assert_allclose(seen[0], 0.06, rtol=1e-5)
    np.testing.assert_allclose(seen[99], 5 * (1 - 0.99**100), rtol=0.01)
    assert abs(seen[-1] - seen[-2]) < 0.1, "it follows every update"
