"""Segments hold what the environment did, slot by slot, against a slow loop."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import actions, schedules
from jaxvff.networks.utility import Gru, Utility
from jaxvff.playing import evaluate, explore, rollout
from jaxvff.playing.options import EXPLORERS
from jaxvff.settings import config
from tests import toy
from tests.lanes import start

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


def collect_going_on(seed: int, lengths: list[int], epsilon: float) -> list[tuple]:
    """Segments of one game, each of which begins where the one before has ended; their Episodes."""
    me, key, out = player(epsilon), jax.random.key(seed), []
    go_on = jax.jit(partial(rollout.going_on, me), static_argnums=2)
    play = rollout.begin(me, key)
    for i, n_slots in enumerate(lengths):
        play, segment, ends = go_on(play, jax.random.fold_in(key, i), n_slots)
        out.append((segment, ends))
    return out


def once(pieces: list[tuple], name: str) -> np.ndarray:
    """A field of consecutive segments, every slot once.

    The last slot of a segment is the first of the next, unless it has a final observation.
    """
    kept = [len(s.mask) - (not ends.ended[-1]) for s, ends in pieces[:-1]] + [None]
    return np.concatenate(
        [np.asarray(getattr(s, name))[:n] for (s, _), n in zip(pieces, kept, strict=True)]
    )


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [[2] * 12, [4, 3, 7, 2, 9]])
def test_games_that_go_on_equal_one_long_slow_loop(lengths: list[int]) -> None:
    for seed in range(5):
        pieces = collect_going_on(seed, lengths, 1.0)
        expected = toy.slow(once(pieces, "action"))
        for name in ("is_first", "mask", "reward", "terminated"):
            np.testing.assert_array_equal(once(pieces, name), [s[name] for s in expected], name)
        np.testing.assert_array_equal(once(pieces, "state")[:, 1], [s["total"] for s in expected])
        for (before, ends), (after, _) in itertools.pairwise(pieces):
            assert not before.mask[-1]
            assert after.is_first[0] == (ends.ended[-1] or before.is_first[-1])
        ended = sum(int(ends.ended.sum()) for _, ends in pieces)
        assert ended == sum(s["ended"] for s in expected), "an episode was counted twice, or never"


@pytest.mark.slow
def test_memory_goes_on_with_the_game() -> None:
    """Utilities of short segments are those of one long one, to float32 rounding."""
    pieces = collect_going_on(3, [4, 3, 7, 2, 9], 0.0)
    for segment, _ in pieces:
        q, _ = UTILITY.unroll(PARAMS, segment)
        np.testing.assert_array_equal(actions.greedy(q, segment.avail), segment.action)
    known = [
        (s._replace(reward=UTILITY.unroll(PARAMS, s)[0]), ends) for s, ends in pieces
    ]  # utilities in place of rewards
    ((long, _),) = collect_going_on(3, [len(once(pieces, "mask"))], 0.0)
    np.testing.assert_array_equal(once(pieces, "obs"), long.obs)
    np.testing.assert_allclose(once(known, "reward"), UTILITY.unroll(PARAMS, long)[0], atol=1e-5)


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


def test_a_team_explores_all_at_once_or_not_at_all() -> None:
    """Greedy with probability 1 - ε; else each joint action of available actions alike."""
    q = jnp.array([[1.0, 3.0, 2.0, 9.0], [0.0, 1.0, 2.0, 3.0]])
    avail = jnp.array([[True, True, True, False], [False, False, True, True]])
    keys = jax.random.split(jax.random.key(0), 60_000)
    epsilon = jnp.array(0.3)
    drawn = np.asarray(jax.vmap(lambda k: explore.team_epsilon_greedy(k, q, avail, epsilon))(keys))
    joint = np.zeros((4, 4))
    np.add.at(joint, tuple(drawn.T), 1 / len(drawn))
    expected = 0.3 * np.outer(avail[0], avail[1]) / 6
    expected[1, 3] += 0.7  # the greedy joint action: available actions of the largest utility
    np.testing.assert_array_equal(joint[expected == 0], 0)
    np.testing.assert_allclose(joint, expected, atol=0.01)  # five standard errors


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


def test_an_episode_that_ends_has_the_return_and_length_of_a_slow_loop() -> None:
    """Rewards after a final observation are of no episode, nor those of the episode before."""
    segments, episodes = jax.jit(jax.vmap(lambda s: collect(s, 23)))(jnp.arange(4))
    n_ended = 0
    for k in range(4):
        ended = np.asarray(episodes.ended[k])
        expected = slow_episodes(np.asarray(segments.action[k]))
        np.testing.assert_allclose(episodes.return_[k][ended], [e["return"] for e in expected])
        np.testing.assert_array_equal(episodes.length[k][ended], [e["length"] for e in expected])
        won = episodes.results["win_rate"][k][ended]
        np.testing.assert_array_equal(won, [e["won"] for e in expected])
        n_ended += len(expected)
    assert n_ended > 8


def test_every_episode_of_a_segment_begins_with_a_draw_of_its_own() -> None:
    """The toy, and beside its state what its start drew, which the world state shows."""
    game = toy.make()

    def observe(state, params):
        view = game.observe(state[0], ())
        return view._replace(state=jnp.stack([view.state[0], state[1]]))

    def step(key, state, action, params):
        after, outcome = game.step(key, state[0], action, ())
        return (after, state[1]), outcome

    env = game._replace(
        reset=lambda key, params: (game.reset(key, ()), jax.random.uniform(key)),
        step=step,
        observe=observe,
    )
    played = jax.jit(lambda key: rollout.on_device(player(1.0)._replace(env=env), key, 23)[0])
    starts = [
        np.asarray(s.state[:, 1])[np.asarray(s.is_first)]
        for s in (played(jax.random.key(k)) for k in range(3))
    ]
    drawn = np.concatenate(starts)
    assert len(drawn) > 9
    assert len(np.unique(drawn)) == len(drawn)


def test_a_run_explores_from_epsilon_start_to_epsilon_end_and_by_its_temperature() -> None:
    """What training asks for, by the name of the explorer and the traced options of a lane."""
    traced = config.load(
        ["epsilon_start=0.9", "epsilon_end=0.1", "epsilon_steps=100", "temperature=0.5"]
    ).traced()
    q, avail = jnp.array([[0.0, 1.0]]), jnp.ones((1, 2), bool)
    keys = jax.random.split(jax.random.key(0), 10_000)

    def share(name: str, step: int) -> float:
        """Of the second action."""
        act = lambda k: EXPLORERS[name](k, q, avail, traced, jnp.array(step))
        return float(jnp.mean(jax.vmap(act)(keys)))

    # Five standard errors of a share of one half among 10,000 draws: 0.025.
    for step, epsilon in ((0, 0.9), (50, 0.5), (100, 0.1), (1000, 0.1)):
        for name in ("epsilon_greedy", "team_epsilon_greedy"):
            assert abs(share(name, step) - (1 - epsilon / 2)) < 0.025
    for step in (0, 1000):
        assert abs(share("softmax", step) - 1 / (1 + np.exp(-1 / 0.5))) < 0.025


@pytest.mark.slow
def test_a_greedy_evaluation_begins_where_neither_training_nor_another_one_does() -> None:
    """Starts are drawn: those of the evaluation are none of those that training goes on with."""
    program, carry, lane = start(
        "env=contextual", "env.states=5000", "env.features=1", "env.game=random", "method=vdn",
        "utility=mlp", "hidden_dim=4", "seeds=1", "n_envs=7", "eval_episodes=8", "learn_start=64",
        "batch_size=4", "buffer_size=64",
    )  # fmt: skip
    tested = []
    for i in range(2):
        played = program.record(carry, lane, [0], 8)
        tested.append(np.asarray(played.states.context)[0, :, 0])
        carry = program.advance(carry, lane, i, i + 1)
    first = np.asarray(carry.state.learner.replay.experience.packed.feature)[0]
    first = first.reshape(-1, 2)[:14, 0]  # seven segments an iteration
    trained = [int(np.flatnonzero(lane.env_params.features[0, :, 0] == x)[0]) for x in first]
    everything = [*trained, *tested[0].tolist(), *tested[1].tolist()]
    # 30 draws of 5,000: some two are the same in one of twelve programs, and this one is fixed.
    assert len(set(everything)) >= 29


def test_a_greedy_evaluation_takes_available_actions_alone() -> None:
    """Action 2 has by far the largest value; agent 1 may not take it at odd steps."""
    params = jax.tree.map(lambda x: x, PARAMS)
    head = params["params"]["Dense_1"]
    head["bias"] = head["bias"] + jnp.array([0.0, 0.0, 100.0])
    best = jnp.argmax(UTILITY.unroll(params, collect(0, 6)[0])[0], axis=-1)
    assert (best == 2).all()
    greedy = evaluate.greedy_player(toy.make(), UTILITY, params, ())
    _, actions, play = rollout.recorded(greedy, jax.random.key(0))
    assert play.length == 2  # the sum of actions is 6 or more
    assert actions[0].tolist() == [2, 2]
    assert actions[1, 0] == 2 and actions[1, 1] < 2


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.7, 1.0])
def test_epsilon_greedy_draws_what_the_categorical_of_distrax_draws(epsilon: float) -> None:
    """Bit for bit, on random utilities and masks: a library's word for what is written by hand."""
    import distrax

    rng = np.random.default_rng(3)
    q = jnp.asarray(rng.normal(size=(64, 5, 7)), jnp.float32)
    avail = rng.random((64, 5, 7)) < 0.5
    avail[..., 2] = True
    keys = jax.random.split(jax.random.key(11), 64)

    def by_distrax(key, q, avail):
        best = jnp.arange(7) == actions.greedy(q, avail)[..., None]
        probs = (1 - epsilon) * best + epsilon * avail / jnp.sum(avail, axis=-1, keepdims=True)
        return distrax.Categorical(probs=probs).sample(seed=key)

    ours = jax.vmap(lambda *x: explore.epsilon_greedy(*x, jnp.array(epsilon)))(keys, q, avail)
    np.testing.assert_array_equal(ours, jax.vmap(by_distrax)(keys, q, avail))
    assert np.take_along_axis(avail, np.asarray(ours)[..., None], -1).all()
