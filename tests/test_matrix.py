"""Matrix games: payoffs of any kind, and what is wrong with the others."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from jaxvff.core.errors import UserError
from jaxvff.core.scores import score_table
from jaxvff.core.types import Judged, TableScore
from jaxvff.envs import matrix
from jaxvff.reports import statistics


def play(env, action) -> float:
    state = env.reset(jax.random.key(0), env.params)
    before = env.observe(state, env.params)
    state, outcome = env.step(jax.random.key(0), state, jnp.array(action), env.params)
    after = env.observe(state, env.params)
    assert outcome.terminated
    assert not outcome.truncated
    np.testing.assert_array_equal(before.state, [1, 0])
    np.testing.assert_array_equal(after.state, [0, 1])
    np.testing.assert_array_equal(before.obs, [before.state] * env.spec.n_agents)
    return float(outcome.reward)


@pytest.mark.parametrize("game", matrix.GAMES)
def test_every_joint_action_earns_its_payoff(game: str) -> None:
    env, table = matrix.make(matrix.Options(game=game)), np.array(matrix.GAMES[game])
    for action in itertools.product(range(3), repeat=2):
        assert play(env, action) == table[action]


def test_the_papers_games_are_table_1() -> None:
    assert matrix.GAMES["a"] == [[12, -12, -12], [-12, 0, 0], [-12, 0, 0]]
    assert matrix.GAMES["b"] == [[12, 0, 10], [0, 0, 10], [10, 10, 10]]


def test_random_games_have_any_size_and_follow_their_seed() -> None:
    env = matrix.make(matrix.Options(game="random", n_agents=4, n_actions=5, game_seed=3))
    assert env.spec.n_agents == 4
    assert env.params.shape == (5,) * 4
    assert play(env, (4, 0, 2, 1)) == env.params[4, 0, 2, 1]
    again = matrix.make(matrix.Options(game="random", n_agents=4, n_actions=5, game_seed=3))
    other = matrix.make(matrix.Options(game="random", n_agents=4, n_actions=5, game_seed=4))
    assert (env.params == again.params).all()
    assert not (env.params == other.params).any()


def test_a_batch_of_games_is_one_vmapped_program() -> None:
    env = matrix.make(matrix.Options(game="a"))
    games = jnp.stack([matrix.make(matrix.Options(game=g)).params for g in matrix.GAMES])
    state = env.reset(jax.random.key(0), env.params)
    step = lambda params: env.step(jax.random.key(0), state, jnp.array([0, 2]), params)[1].reward
    np.testing.assert_array_equal(jax.vmap(step)(games), games[:, 0, 2])


def test_payoffs_come_from_npy_yaml_and_json_files(tmp_path) -> None:
    table = np.arange(8.0).reshape(2, 2, 2)
    np.save(tmp_path / "game.npy", table)
    (tmp_path / "game.yaml").write_text(yaml.safe_dump(table.tolist()))
    (tmp_path / "game.json").write_text(str(table.tolist()))
    for name in ("game.npy", "game.yaml", "game.json"):
        env = matrix.make(matrix.Options(file=str(tmp_path / name)))
        assert env.spec.n_agents == 3
        np.testing.assert_array_equal(env.params, table)


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ([[1, float("nan")], [0, 1]], "payoff[0, 1] is nan"),
        ([[1, float("inf")], [0, 1]], "must be finite"),
        ([[1, 2], [3]], "ragged"),
        ([1, 2, 3], "shape (3,)"),
        ([[1, 2, 3], [4, 5, 6]], "shape (2, 3)"),
        ([["x", 1], [2, 3]], "is a text"),
        ([[1]], "shape (1, 1)"),
        ("hello", "is a text"),
    ],
)
def test_bad_payoffs_are_refused_and_named(table, says: str, tmp_path) -> None:
    path = tmp_path / "game.yaml"
    path.write_text(yaml.safe_dump(table))
    with pytest.raises(UserError) as error:
        matrix.make(matrix.Options(file=str(path)))
    assert says in str(error.value)
    assert "game.yaml" in str(error.value)


def test_files_that_are_missing_strange_or_broken_are_refused(tmp_path) -> None:
    (tmp_path / "game.npy").write_bytes(b"not numpy")
    (tmp_path / "game.csv").write_text("1,2")
    for name, says in (
        ("none.npy", "does not exist"),
        ("game.npy", "is no .npy file"),
        ("game.csv", "kind"),
    ):
        with pytest.raises(UserError, match=says):
            matrix.make(matrix.Options(file=str(tmp_path / name)))


def score(q_tot, utilities, payoff) -> TableScore:
    return score_table(jnp.array(q_tot, float), jnp.array(utilities, float), payoff)


def test_a_learner_is_asked_for_every_joint_action_in_the_order_of_the_payoffs() -> None:
    """A judge that knows a random game of three agents, by looking joint actions up one by one."""
    options = matrix.Options(game="random", n_agents=3, n_actions=4)
    env = matrix.make(options)
    payoff = np.asarray(env.params)
    best = np.unravel_index(np.argmax(payoff), payoff.shape)

    def judge(view, joint) -> Judged:
        np.testing.assert_array_equal(view.state, [1, 0])  # before the step
        asked = [tuple(row) for row in np.asarray(joint).tolist()]
        assert asked == list(itertools.product(range(4), repeat=3))
        return Judged(jnp.array([payoff[a] + 0.05 for a in asked]), jnp.eye(4)[jnp.array(best)])

    got = env.score(judge, env.params)
    np.testing.assert_allclose(got.q_tot, payoff + 0.05, rtol=1e-6)
    np.testing.assert_allclose(got.max_error, 0.05, atol=1e-5)  # float32 of numbers up to 10
    assert got.fit and got.optimal and got.both and got.regret == 0


def test_scores_count_ties_and_non_finite_values_as_failures() -> None:
    y = jnp.array([[12.0, 0.0], [0.0, 4.0]])
    good = score(y + 0.09, [[1, 0], [1, 0]], y)
    assert good.fit and good.optimal and good.both
    wrong = score(y, [[0, 1], [1, 0]], y)
    assert wrong.fit and not wrong.optimal and not wrong.both
    for utilities in (
        [[1, 1], [1, 0]],
        [[np.nan, 0], [1, 0]],
        [[1, 0], [1, np.nan]],
        [[np.inf, 0], [1, 0]],
    ):
        assert not score(y, utilities, y).optimal, utilities
    for q_tot in (y + 0.11, y.at[1, 1].set(jnp.nan), y.at[1, 1].set(jnp.inf)):
        assert not score(q_tot, [[1, 0], [1, 0]], y).fit


@pytest.mark.parametrize("where", [np.s_[:], 0, 15_000])
def test_a_large_table_with_a_non_finite_value_does_not_fit(where) -> None:
    y = jnp.zeros((5,) * 6)
    utilities = jnp.eye(5)[jnp.zeros(6, int)]
    assert score_table(y, utilities, y).fit
    q_tot = y.ravel().at[where].set(jnp.nan).reshape(y.shape)
    got = jax.jit(score_table)(q_tot, utilities, y)
    assert not got.fit and np.isnan(got.max_error)


def test_any_of_several_optima_counts() -> None:
    y = jnp.array([[10.0, 0.0], [0.0, 10.0]])
    for utilities in ([[1, 0], [1, 0]], [[0, 1], [0, 1]]):
        assert score(y, utilities, y).optimal
    assert not score(y, [[1, 0], [0, 1]], y).optimal


def test_wilson_intervals_are_the_published_ones() -> None:
    """Brown, Cai & DasGupta (2001), eq. 4, by hand for 7 of 20."""
    n, p, z = 20, 7 / 20, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    rate = statistics.wilson(7, 20)
    np.testing.assert_allclose([rate.low, rate.high], [centre - half, centre + half], rtol=1e-9)
    assert statistics.wilson(0, 10).low == 0
    assert statistics.wilson(10, 10).high == 1


def test_the_median_seed_is_the_lower_median_and_diverged_ones_rank_last() -> None:
    assert statistics.median_seed(np.array([3.0, 1.0, 2.0])) == 2
    assert statistics.median_seed(np.array([np.nan, 1.0, np.inf, 2.0])) == 3


def test_merged_plays_count_as_often_as_they_were_played() -> None:
    """Joint actions in order, each with its payoff, and a row where it was played."""
    env = matrix.make(matrix.Options(payoff=[[1, 2], [3, 4]]))
    played = np.array([[0, 1], [1, 1], [0, 1], [1, 0], [0, 1], [1, 1]])
    action = np.stack([played, np.zeros_like(played)], axis=1).astype(np.uint8)
    reward = np.stack([np.asarray(env.params)[tuple(played.T)], np.zeros(6)], axis=1)
    stored = (jnp.asarray(action), jnp.asarray(reward, jnp.float32))
    merged, count, example = env.codec.merge(stored, env.params)
    np.testing.assert_array_equal(count, [0, 3, 1, 2])
    np.testing.assert_array_equal(merged[0][:, 0], [[0, 0], [0, 1], [1, 0], [1, 1]])
    np.testing.assert_array_equal(merged[1], [[1, 0], [2, 0], [3, 0], [4, 0]])
    np.testing.assert_array_equal(played[np.asarray(example)[1:]], [[0, 1], [1, 0], [1, 1]])
