"""Segments hold what the environment did, slot by slot, against a slow loop."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import actions, schedules
from jaxvff.networks.utility import Gru, Utility
from jaxvff.playing import evaluate, explore, rollout
from tests import toy

UTILITY = Utility(Gru(3, 8), toy.SPEC, shared=True, agent_id=True, last_action=True)
PARAMS = UTILITY.init(jax.random.key(0))


def player(epsilon: float) -> rollout.Player:
    def act(key, q, avail):
        return explore.epsilon_greedy(key, q, avail, jnp.array(epsilon))

    return rollout.Player(toy.make(), UTILITY, act, PARAMS, ())


def collect(seed: int, n_slots: int, epsilon: float = 1.0):
    return rollout.on_device(player(epsilon), jax.random.key(seed), n_slots)


@pytest.mark.parametrize("n_slots", [2, 6, 23])
def test_segments_equal_a_slow_loop(n_slots: int) -> None:
    for seed in range(10):
        segment, episodes = collect(seed, n_slots)
        expected = toy.slow(np.asarray(segment.action))
        for name in ("is_first", "mask", "reward", "terminated"):
            np.testing.assert_array_equal(
                getattr(segment, name), [s[name] for s in expected], f"{name}, seed {seed}"
            )
        np.testing.assert_array_equal(segment.state[:, 0], [s["count"] for s in expected])
        np.testing.assert_array_equal(segment.state[:, 1], [s["total"] for s in expected])
        np.testing.assert_array_equal(episodes.ended, [s["ended"] for s in expected])


def test_streams_hold_every_kind_of_end() -> None:
    segments, episodes = jax.vmap(lambda s: collect(s, 23))(jnp.arange(20))
    ends = np.asarray(episodes.ended)
    truncated = ends[:, 1:] & ~np.asarray(segments.terminated)[:, :-1]
    assert np.asarray(segments.terminated).any()
    assert truncated.any()
    assert (~ends[:, -1]).any(), "no episode was cut by the segment's end"


def test_actions_are_always_available() -> None:
    segments, _ = jax.vmap(lambda s: collect(s, 23))(jnp.arange(20))
    taken = jnp.take_along_axis(segments.avail, segments.action[..., None], -1)
    assert taken.all()


def test_utilities_in_a_rollout_are_those_of_the_unroll() -> None:
    """Greedy actions recorded step by step are greedy in the unrolled segment: same memory."""
    segment, _ = collect(3, 23, epsilon=0.0)
    q, _ = UTILITY.unroll(PARAMS, segment)
    np.testing.assert_array_equal(actions.greedy(q, segment.avail), segment.action)


def slow_episodes(actions: np.ndarray) -> list[dict]:
    """The whole episodes that a slow loop finds in the actions of a segment."""
    ends, now = [], {"return": 0.0, "length": 0, "won": False}
    for slot in toy.slow(actions):
        if slot["ended"]:
            ends.append(now)
            now = {"return": 0.0, "length": 0, "won": False}
        elif slot["mask"]:
            now["return"] += slot["reward"]
            now["length"] += 1
            now["won"] |= slot["terminated"]
    return ends


@pytest.mark.slow
def test_episodes_of_a_segment_have_the_returns_lengths_and_results_of_a_slow_loop() -> None:
    for seed in range(10):
        segment, episodes = collect(seed, 23)
        ended = np.asarray(episodes.ended)
        expected = slow_episodes(np.asarray(segment.action))
        np.testing.assert_allclose(episodes.return_[ended], [e["return"] for e in expected])
        np.testing.assert_array_equal(episodes.length[ended], [e["length"] for e in expected])
        won = episodes.results["win_rate"][ended]
        np.testing.assert_array_equal(won, [e["won"] for e in expected])


def test_greedy_evaluation_plays_one_whole_episode_from_every_start() -> None:
    """The toy has one start and greedy play no dice: every episode is the first of a segment."""
    greedy = evaluate.greedy_player(toy.make(), UTILITY, PARAMS, ())
    measured = evaluate.greedy_episodes(greedy, jax.random.key(0), 4)
    segment, _ = collect(0, 15, epsilon=0.0)
    first = slow_episodes(np.asarray(segment.action))[0]
    assert measured.keys() == {"test_return", "test_length", "test_win_rate"}
    np.testing.assert_allclose(measured["test_return"], first["return"], rtol=1e-6)
    assert measured["test_length"] == first["length"]
    assert measured["test_win_rate"] == first["won"]


@pytest.mark.slow
def test_evaluation_means_are_over_episodes_however_long_they_are() -> None:
    """Random play: one episode per environment, equal to episodes that are played alone."""
    keys = jax.random.split(jax.random.key(5), 16)
    alone = [rollout.episode(player(1.0), k) for k in keys]
    lengths = [int(play.length) for play in alone]
    assert len(set(lengths)) > 1, "all episodes are of one length, so it proves nothing"
    measured = evaluate.greedy_episodes(player(1.0), jax.random.key(5), 16)
    np.testing.assert_allclose(measured["test_length"], np.mean(lengths), rtol=1e-6)
    np.testing.assert_allclose(
        measured["test_return"], np.mean([play.return_ for play in alone]), rtol=1e-6
    )
    for play in alone:
        assert play.ended
        assert play.length <= toy.SPEC.episode_limit


def test_any_available_joint_action_is_as_likely_as_any_other() -> None:
    avail = jnp.array([[True, False, True, True], [False, False, True, True]])
    drawn = np.asarray(actions.any_available(jax.random.key(0), avail, 60_000))
    joint = np.zeros((4, 4))
    np.add.at(joint, tuple(drawn.T), 1 / len(drawn))
    expected = np.outer(avail[0], avail[1]) / 6
    np.testing.assert_array_equal(joint[expected == 0], 0)
    np.testing.assert_allclose(joint, expected, atol=0.01)  # 6 standard deviations


def test_epsilon_greedy_explores_with_probability_epsilon() -> None:
    q, avail = jnp.array([[1.0, 3.0, 2.0, 9.0]]), jnp.array([[True, True, True, False]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    actions = jax.vmap(lambda k: explore.epsilon_greedy(k, q, avail, jnp.array(0.3)))(keys)
    shares = np.bincount(np.asarray(actions)[:, 0], minlength=4) / len(keys)
    # Four standard errors of a share of 0.8: 0.011.
    np.testing.assert_allclose(shares, [0.1, 0.8, 0.1, 0.0], atol=0.012)


def test_softmax_follows_the_utilities_of_available_actions() -> None:
    q, avail = jnp.array([[0.0, 1.0, 5.0]]), jnp.array([[True, True, False]])
    keys = jax.random.split(jax.random.key(0), 20_000)
    actions = jax.vmap(lambda k: explore.softmax(k, q, avail, jnp.array(0.5)))(keys)
    share = np.mean(np.asarray(actions) == 1)
    assert abs(share - 1 / (1 + np.exp(-2.0))) < 0.01
    assert not (np.asarray(actions) == 2).any()


def test_epsilon_falls_linearly_and_stays() -> None:
    for step, expected in ((0, 1.0), (50, 0.6), (100, 0.2), (10_000, 0.2)):
        np.testing.assert_allclose(
            schedules.linear_schedule(1.0, 0.2, jnp.array(step), 100.0), expected, rtol=1e-6
        )


def test_separate_parameters_give_agents_their_own_networks() -> None:
    own = UTILITY._replace(shared=False, agent_id=False)
    params = own.init(jax.random.key(0))
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(params))
    segment, _ = collect(0, 6)
    q, _ = own.unroll(params, segment._replace(obs=jnp.ones_like(segment.obs)))
    assert not np.allclose(q[:, 0], q[:, 1])
