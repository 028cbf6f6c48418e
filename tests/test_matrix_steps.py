"""Games of several steps: rewards and transitions by hand, best returns by brute force."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import sizes
from jaxvff.core.errors import UserError
from jaxvff.envs import matrix_steps
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import explore, rollout
from jaxvff.runs.plan import plan

SMALL = [
    {"game": "two_step"},
    {"game": "two_step", "label_seed": 1},
    {"game": "maven", "length": 2},
    {"game": "maven", "length": 4},
    {"game": "maven", "length": 4, "label_seed": 2},
    {"game": "chain", "length": 2},
    {"game": "chain", "length": 3, "label_seed": 3},
]


def play(env, *actions) -> tuple[list[float], bool, float]:
    """(rewards, whether the episode has ended, the last win_rate) of joint actions in turn."""
    step = jax.jit(env.step)
    state, rewards, ended, won = env.reset(jax.random.key(0), env.params), [], False, 0.0
    for action in actions:
        assert not ended, "an action after the end"
        state, outcome = step(jax.random.key(0), state, jnp.array(action), env.params)
        rewards.append(float(outcome.reward))
        ended, won = bool(outcome.terminated), float(outcome.results["win_rate"])
        assert not outcome.truncated
    return rewards, ended, won


def all_plays(env) -> list[tuple[float, int, float]]:
    """(return, length, win_rate) of every sequence of joint actions."""
    joint = list(itertools.product(range(env.spec.n_actions), repeat=2))
    step = jax.jit(jax.vmap(lambda s, a: env.step(jax.random.key(0), s, a, env.params), (None, 0)))
    plays, open_ = [], [(env.reset(jax.random.key(0), env.params), 0.0, 0)]
    while open_:
        state, total, length = open_.pop()
        states, outcomes = jax.device_get(step(state, jnp.array(joint)))
        for i in range(len(joint)):
            one = jax.tree.map(lambda x: x[i], (states, outcomes))
            after = (total + float(one[1].reward), length + 1)
            if one[1].terminated:
                plays.append((*after, float(one[1].results["win_rate"])))
            else:
                open_.append((one[0], *after))
    return plays


def test_the_two_step_game_is_the_one_of_the_paper() -> None:
    env = matrix_steps.make(matrix_steps.Options(game="two_step"))
    for second in itertools.product((0, 1), repeat=2):
        for other in (0, 1):  # agent 2's first action does nothing
            assert play(env, (0, other), second) == ([0, 7], True, 0)
            payoff = [[0, 1], [1, 8]][second[0]][second[1]]
            assert play(env, (1, other), second) == ([0, payoff], True, payoff == 8)
    assert play(env, (0, 0)) == ([0], False, 0)


def test_maven_rewards_the_first_agreement_again_and_again_and_a_last_switch_most() -> None:
    env = matrix_steps.make(matrix_steps.Options(game="maven", length=10))
    zeros, ones = [(0, 0)] * 10, [(1, 1)] * 10
    assert play(env, *zeros) == ([1] * 10, True, 0)
    assert play(env, *ones) == ([1] * 10, True, 0)
    assert play(env, *zeros[:9], (1, 1)) == ([1] * 9 + [4], True, 1)
    assert play(env, *zeros[:9], (0, 1)) == ([1] * 10, True, 0)
    assert play(env, *ones[:9], (0, 0)) == ([1] * 9 + [0], True, 0)
    assert play(env, (0, 1)) == ([0], True, 0)
    assert play(env, (1, 0)) == ([0], True, 0)
    assert play(env, (0, 0), (1, 1)) == ([1, 0], True, 0)
    assert play(env, (1, 1), (1, 0)) == ([1, 0], True, 0)
    assert float(env.params.best) == 13


def test_maven_shows_the_step_and_the_branch() -> None:
    env = matrix_steps.make(matrix_steps.Options(game="maven", length=3))
    state = env.reset(jax.random.key(0), env.params)
    expected = {
        (1, 1): [[1, 0, 0, 0, 0], [0, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0] * 5],
        (0, 0): [[1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 1, 1, 0], [0] * 5],
    }
    for action, rows in expected.items():
        at = state
        for row in rows:
            np.testing.assert_array_equal(env.observe(at, env.params).obs, [row, row])
            at = env.step(jax.random.key(0), at, jnp.array(action), env.params)[0]


def test_a_chain_goes_on_at_game_as_optimum_alone() -> None:
    env = matrix_steps.make(matrix_steps.Options(game="chain", length=3))
    assert play(env, (0, 0), (0, 0), (0, 0)) == ([1, 1, 1], True, 1)
    assert play(env, (0, 0), (0, 0)) == ([1, 1], False, 0)
    for action in itertools.product(range(3), repeat=2):
        if action != (0, 0):
            reward = -1.0 if 0 in action else 0.0
            assert play(env, action) == ([reward], True, 0)
            assert play(env, (0, 0), (0, 0), action) == ([1, 1, reward], True, 0)


@pytest.mark.parametrize("options", SMALL)
def test_best_return_and_limit_are_those_of_all_plays_and_only_the_best_win(options: dict) -> None:
    env = matrix_steps.make(matrix_steps.Options(**options))
    plays = all_plays(env)
    best = max(total for total, _, _ in plays)
    assert float(env.params.best) == best
    assert env.spec.episode_limit == max(length for _, length, _ in plays)
    assert all(won == (total == best) for total, _, won in plays)


def test_a_label_seed_permutes_actions_node_by_node_and_keeps_the_game() -> None:
    plain = matrix_steps.make(matrix_steps.Options(game="chain", length=30))
    mixed = matrix_steps.make(matrix_steps.Options(game="chain", length=30, label_seed=0))
    best = np.asarray(mixed.params.reward).reshape(30, 9).argmax(1)
    assert len(np.unique(best)) > 5, "the optimum is in the same place everywhere"
    best_actions = [divmod(int(b), 3) for b in best]
    assert play(mixed, *best_actions) == ([1] * 30, True, 1)
    for a, b in zip(plain.params.reward, mixed.params.reward, strict=True):
        np.testing.assert_array_equal(np.sort(a, None), np.sort(b, None))
    again = matrix_steps.make(matrix_steps.Options(game="chain", length=30, label_seed=0))
    other = matrix_steps.make(matrix_steps.Options(game="chain", length=30, label_seed=1))
    np.testing.assert_array_equal(mixed.params.reward, again.params.reward)
    assert not (mixed.params.reward == other.params.reward).all()


def test_relabelled_games_have_the_same_plays_by_other_names() -> None:
    for options in ({"game": "two_step"}, {"game": "maven", "length": 3}):
        plain, mixed = (
            matrix_steps.make(matrix_steps.Options(**options, label_seed=s)) for s in (None, 4)
        )
        assert not (plain.params.reward == mixed.params.reward).all()
        assert sorted(all_plays(plain)) == sorted(all_plays(mixed))


def test_label_seeds_share_a_program_and_games_do_not() -> None:
    args = ["env=matrix_steps/chain", "method=vdn", "seeds=2"]
    (group,) = plan([*args, "sweep.env.label_seed=[0,1,2]"])
    assert group.lanes().env_params.reward.shape == (6, 5, 3, 3)
    names = "[matrix_steps/two_step,matrix_steps/maven,matrix_steps/chain]"
    assert len(plan(["method=vdn", f"sweep.env={names}"])) == 3


@pytest.mark.parametrize(
    ("options", "n_slots"),
    [
        ({"game": "two_step"}, 8),
        ({"game": "maven", "length": 4, "label_seed": 2}, 24),
        ({"game": "chain", "length": 2}, 5),
        ({"game": "chain", "length": 300, "label_seed": 0}, 24),
    ],
)
def test_the_codec_rebuilds_segments_bit_for_bit(options: dict, n_slots: int) -> None:
    env = matrix_steps.make(matrix_steps.Options(**options))
    utility = Utility(
        Mlp(env.spec.n_actions, 4), env.spec, shared=True, agent_id=True, last_action=False
    )
    act = lambda k, q, avail: explore.epsilon_greedy(k, q, avail, jnp.array(1.0))
    player = rollout.Player(env, utility, act, utility.init(jax.random.key(0)), env.params)

    def run(key):
        segment, _ = rollout.on_device(player, key, n_slots)
        stored = env.codec.pack(segment)
        return segment, stored, env.codec.unpack(stored, env.params)

    segment, stored, back = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20))
    for name in segment._fields[:-2]:  # `before` and `context` are of some runs alone
        got, expected = getattr(back, name), getattr(segment, name)
        np.testing.assert_array_equal(got, expected, name)
        assert got.dtype == expected.dtype, name
    node = 1 if env.spec.state_size <= 256 else 2  # bytes
    assert sizes.nbytes(stored) == 20 * n_slots * (node + 2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"game": "three_step"}, "did you mean two_step"),
        ({"game": "climbing"}, "choose one of two_step, maven, chain"),
        ({"game": "two_step", "length": 3}, "leave env.length out"),
        (
            {"game": "maven", "length": 1},
            "env.length=1 is out of range; expected a value in [2, 500]",
        ),
        ({"game": "chain", "length": 501}, "env.length=501"),
        ({"game": "chain", "length": 2.5}, "env.length=2.5"),
        ({"game": "chain", "length": True}, "env.length=true"),
        (
            {"game": "chain", "label_seed": -1},
            "env.label_seed=-1 is out of range; expected a value in [0, ∞)",
        ),
        ({"game": "chain", "label_seed": "x"}, "env.label_seed='x'"),
    ],
)
def test_bad_options_are_refused_with_a_remedy(options: dict, says: str) -> None:
    with pytest.raises(UserError) as error:
        matrix_steps.make(matrix_steps.Options(**options))
    assert says in str(error.value)
