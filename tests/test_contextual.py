"""Contextual games: what is drawn, what is earned, what is stored, what is refused."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import sizes
from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec
from jaxvff.envs import contextual, matrix
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import explore, rollout
from jaxvff.runs.plan import plan

GAME_A, GAME_B = np.array(matrix.GAMES["a"]), np.array(matrix.GAMES["b"])


def is_relabelled(table: np.ndarray, original: np.ndarray) -> bool:
    orders = list(itertools.permutations(range(3)))
    return any((table == original[np.ix_(i, j)]).all() for i in orders for j in orders)


def play(env, context: int, action, key: int = 0):
    state = contextual.State(jnp.array(context), jnp.array(False))
    return env.step(jax.random.key(key), state, jnp.array(action), env.params)


def collected(env, n_slots: int):
    """Of env params: (a segment of random play, what is stored of it, what is rebuilt)."""
    utility = Utility(Mlp(3, 4), env.spec, shared=True, agent_id=True, last_action=False)
    act = lambda k, q, avail: explore.epsilon_greedy(k, q, avail, jnp.array(1.0))
    weights = utility.init(jax.random.key(0))

    def run(params):
        player = rollout.Player(env, utility, act, weights, params)
        segment, _ = rollout.on_device(player, jax.random.key(1), n_slots)
        stored = env.codec.pack(segment)
        return segment, stored, env.codec.unpack(stored, params)

    return jax.jit(run)


def test_a_third_each_is_game_a_game_b_and_random_from_minus_10_to_10() -> None:
    payoff = np.asarray(contextual.make(contextual.Options(states=192)).params.payoff)
    assert payoff.shape == (192, 3, 3)
    kinds = [
        "a" if is_relabelled(t, GAME_A) else "b" if is_relabelled(t, GAME_B) else "random"
        for t in payoff
    ]
    assert {k: kinds.count(k) for k in kinds} == {"a": 64, "b": 64, "random": 64}
    drawn = payoff[[k == "random" for k in kinds]]
    assert len(np.unique(drawn)) == drawn.size
    assert -10 <= drawn.min() < -9 and 9 < drawn.max() <= 10


def test_labels_say_nothing_about_where_the_optimum_of_game_a_is() -> None:
    payoff = np.asarray(contextual.make(contextual.Options(game="a", states=9000)).params.payoff)
    best = payoff.reshape(-1, 9).argmax(1)
    # Five standard errors of a share of 1/9 among 9,000 draws: 0.017.
    np.testing.assert_allclose(np.bincount(best, minlength=9) / 9000, 1 / 9, atol=0.017)
    assert all(is_relabelled(t, GAME_A) for t in payoff[:50])


def test_a_play_earns_the_payoff_of_its_context_and_succeeds_at_the_largest_alone() -> None:
    env = contextual.make(contextual.Options(states=6))
    payoff = np.asarray(env.params.payoff)
    places = np.array(list(itertools.product(range(6), range(3), range(3))))
    states, outcomes = jax.vmap(lambda at: play(env, at[0], at[1:]))(places)
    table, cell = payoff[places[:, 0]], tuple(places.T)
    largest = table.max((1, 2))
    np.testing.assert_array_equal(outcomes.reward, payoff[cell])
    np.testing.assert_array_equal(outcomes.results["win_rate"], payoff[cell] == largest)
    np.testing.assert_array_equal(outcomes.results["regret"], largest - payoff[cell])
    assert outcomes.terminated.all() and not outcomes.truncated.any()
    assert states.taken.all() and (states.context == places[:, 0]).all()


def test_all_agents_and_the_state_see_the_features_and_zeros_after_the_step() -> None:
    env = contextual.make(contextual.Options(states=5, features=7))
    before = contextual.State(jnp.array(3), jnp.array(False))
    view = env.observe(before, env.params)
    np.testing.assert_array_equal(view.state, env.params.features[3])
    np.testing.assert_array_equal(view.obs, [env.params.features[3]] * 2)
    after = env.observe(before._replace(taken=jnp.array(True)), env.params)
    assert not after.obs.any() and not after.state.any()
    assert view.avail.all() and view.avail.shape == (2, 3)


def test_every_context_begins_equally_many_episodes() -> None:
    env = contextual.make(contextual.Options(states=10))
    states = jax.vmap(lambda k: env.reset(k, env.params))(jax.random.split(jax.random.key(0), 9000))
    # Five standard errors of a share of 1/10 among 9,000 draws: 0.016.
    np.testing.assert_allclose(np.bincount(states.context) / 9000, 0.1, atol=0.016)
    assert not states.taken.any()


def test_noise_moves_rewards_by_its_standard_deviation_and_no_result() -> None:
    env = contextual.make(contextual.Options(states=4, noise=3.0))
    keys = jax.random.split(jax.random.key(0), 10_000)
    state = contextual.State(jnp.array(2), jnp.array(False))
    one = lambda k: env.step(k, state, jnp.array([0, 1]), env.params)[1]
    outcome = jax.vmap(one)(keys)
    expected = float(env.params.payoff[2, 0, 1])
    # Five standard errors: 3 / sqrt(10,000) of the mean, 3 / sqrt(20,000) of the deviation.
    assert abs(float(outcome.reward.mean()) - expected) < 0.15
    assert abs(float(outcome.reward.std()) - 3) < 0.11
    assert len(np.unique(outcome.results["regret"])) == 1


def test_seeds_have_games_and_features_of_their_own_and_always_the_same() -> None:
    env = contextual.make(contextual.Options(game="random", states=8))
    one, again, other = env.params_for(1), env.params_for(1), env.params_for(2)
    np.testing.assert_array_equal(one.payoff, again.payoff)
    np.testing.assert_array_equal(one.features, again.features)
    assert not (one.payoff == other.payoff).any()
    assert not (one.features == other.features).any()


def test_first_features_tell_all_contexts_apart() -> None:
    """Of 50,000 normal float32 some hundred would be the same as another one."""
    plain = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    assert len(np.unique(plain)) < 50_000
    features = contextual.make(
        contextual.Options(game="random", states=50_000, features=1)
    ).params.features
    assert len(np.unique(features)) == 50_000


@pytest.mark.parametrize("n_slots", [2, 3, 6])
def test_the_codec_rebuilds_segments_bit_for_bit_from_ten_bytes_a_slot(n_slots: int) -> None:
    env = contextual.make(contextual.Options())
    run = collected(env, n_slots)
    for noise in (0.0, 1.0):
        segment, stored, back = run(env.params._replace(noise=jnp.float32(noise)))
        for name in segment._fields[:-2]:  # `before` and `context` are of some runs alone
            got, expected = getattr(back, name), getattr(segment, name)
            np.testing.assert_array_equal(got, expected, name)
            assert got.dtype == expected.dtype, name
        assert sizes.nbytes(stored) == n_slots * (4 + 2 + 4)


def test_random_games_have_any_size() -> None:
    env = contextual.make(
        contextual.Options(game="random", states=7, n_agents=3, n_actions=4, features=2)
    )
    assert env.params.payoff.shape == (7, 4, 4, 4)
    assert env.spec == EnvSpec(3, 4, 2, 2, 1)
    assert play(env, 5, (3, 0, 2))[1].reward == env.params.payoff[5, 3, 0, 2]


def test_noises_and_seeds_share_a_program_and_other_sizes_do_not() -> None:
    args = ["env=contextual", "method=vdn", "seeds=3"]
    (group,) = plan([*args, "sweep.env.noise=[0,1,2.5]"])
    params = group.lanes().env_params
    np.testing.assert_array_equal(params.noise, np.repeat([0, 1, 2.5], 3))
    assert params.payoff.shape == (9, 192, 3, 3)
    for seed in range(3):
        np.testing.assert_array_equal(params.payoff[seed], params.payoff[3 + seed])
    assert not (params.payoff[0] == params.payoff[1]).all()
    assert len(plan([*args, "sweep.env.states=[5,6]"])) == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"game": "c"}, "choose one of mixed, random, a, b"),
        ({"states": 0}, "env.states=0 is out of range; expected a value in [1, ∞)"),
        ({"states": 2.5}, "env.states=2.5"),
        ({"features": 0}, "env.features=0"),
        ({"features": True}, "env.features=true"),
        ({"noise": -1.0}, "env.noise=-1.0 is out of range; expected a value in [0, ∞)"),
        ({"noise": float("nan")}, "env.noise=nan"),
        ({"noise": float("inf")}, "env.noise=inf"),
        ({"noise": "loud"}, "env.noise='loud'"),
        ({"n_agents": 3}, "other sizes need env.game=random"),
        ({"game": "a", "n_actions": 4}, "other sizes need env.game=random"),
        ({"game": "random", "n_agents": 1}, "env.n_agents=1"),
        ({"game": "random", "n_actions": 1}, "env.n_actions=1"),
        ({"game": "random", "n_agents": 9, "n_actions": 9}, "exceeds 1000000 payoffs"),
        ({"states": 200_000}, "take fewer"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(options: dict, says: str) -> None:
    with pytest.raises(UserError) as error:
        contextual.make(contextual.Options(**options))
    assert says in str(error.value)


def test_every_context_is_drawn_the_first_and_the_last_included() -> None:
    env = contextual.make(contextual.Options(states=10))
    keys = jax.random.split(jax.random.key(0), 1000)
    states = jax.jit(jax.vmap(lambda k: env.reset(k, env.params)))(keys)
    assert set(np.unique(states.context)) == set(range(10))
