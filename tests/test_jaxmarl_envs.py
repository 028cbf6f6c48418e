"""JaxMARL's other environments: what plays, what is padded, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.core.types import Env, Episodes, Segment
from jaxvff.envs import jaxmarl
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import rollout
from jaxvff.runs.plan import plan
from tests.lanes import params_of, start

SLOW = pytest.mark.slow
SPREAD = {"name": "MPE_simple_spread_v3", "team_reward": "sum"}
GAMES = {
    "spread": SPREAD,
    "riddle": {"name": "switch_riddle"},
    "overcooked": {"name": "overcooked", "options": {"layout": "cramped_room", "max_steps": 40}},
    "hanabi": {"name": "hanabi", "max_steps": 12},
    # Unequal observations and actions: the speaker says one of 3 words, the listener moves 5 ways.
    "speaker": {"name": "MPE_simple_speaker_listener_v4", "team_reward": "mean"},
}


@functools.cache
def played(game: str, n_slots: int = 60, n_envs: int = 4) -> tuple[Env, Segment, Episodes]:
    """Random play, as NumPy arrays `[N, T]`."""
    env = jaxmarl.make(jaxmarl.Options(**GAMES[game]))
    utility = Utility(
        Mlp(env.spec.n_actions, 1), env.spec, shared=True, agent_id=False, last_action=False
    )
    act = lambda key, q, avail: jax.random.categorical(key, jnp.log(avail.astype(float)))
    player = rollout.Player(env, utility, act, utility.init(jax.random.key(0)), env.params)
    play = jax.jit(jax.vmap(lambda key: rollout.on_device(player, key, n_slots)))
    segment, episodes = play(jax.random.split(jax.random.key(0), n_envs))
    return env, *jax.tree.map(np.asarray, (segment, episodes))


@pytest.mark.slow
def test_a_game_without_a_length_is_cut_where_the_user_says() -> None:
    """Hanabi ends by itself when the lives are gone; what is left of its episodes is cut."""
    env, segment, episodes = played("hanabi")
    assert env.spec.episode_limit == 12
    lengths = episodes.length[episodes.ended]
    assert lengths.max() == 12
    assert lengths.min() < 12
    cut = episodes.length == 12
    # The step before the final observation of a cut episode is a truncation: it does not end.
    t = np.argwhere(cut & episodes.ended)
    assert len(t) > 3
    for i, slot in t:
        assert not segment.terminated[i, slot - 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "sizes"),  # agents, actions, observation
    [
        ("spread", (3, 5, 18)),
        ("riddle", (3, 3, 2)),
        pytest.param("overcooked", (2, 6, 520), marks=SLOW),
        ("speaker", (2, 5, 11)),
    ],
)
def test_a_segment_has_the_declared_shapes_and_available_actions(game: str, sizes: tuple) -> None:
    env, segment, episodes = played(game)
    spec = env.spec
    assert (spec.n_agents, spec.n_actions, spec.obs_size) == sizes
    assert segment.obs.shape == (4, 60, spec.n_agents, spec.obs_size)
    assert segment.state.shape == (4, 60, spec.state_size)
    assert segment.avail.shape == (4, 60, spec.n_agents, spec.n_actions)
    np.testing.assert_array_equal(segment.state, segment.obs.reshape(4, 60, -1))
    taken = np.take_along_axis(segment.avail, segment.action[..., None], -1)
    assert taken.all()
    assert episodes.ended.any()
    assert episodes.length[episodes.ended].max() <= spec.episode_limit
    assert all(np.isfinite(x).all() for x in (segment.obs, segment.state, segment.reward))


@SLOW
def test_images_are_told_from_rows_of_numbers() -> None:
    """A kitchen of 5x4 tiles with 26 layers; what the others show is no image."""
    (job,) = plan(["env=jaxmarl/overcooked", "utility=cnn"])
    *sides, layers = job.env.spec.obs_shape
    assert sorted(sides) == [4, 5]
    assert layers == 26
    with pytest.raises(UserError, match="utility=cnn needs observations that are images"):
        plan(["env=jaxmarl/simple_spread", "utility=cnn"])


def test_actions_and_observations_beyond_an_agents_own_are_padding() -> None:
    _, segment, _ = played("speaker")
    np.testing.assert_array_equal(segment.avail[..., 0, :].all((0, 1)), [1, 1, 1, 0, 0])
    assert not segment.avail[..., 0, 3:].any()
    assert segment.avail[..., 1, :].all()
    assert (segment.obs[..., 0, 3:] == 0).all(), "the speaker sees a colour of three numbers"
    assert (segment.obs[..., 1, 3:] != 0).any()


def test_episodes_of_mpe_end_by_their_clock_alone_and_bootstrap() -> None:
    env, segment, episodes = played("spread")
    assert (episodes.length[episodes.ended] == env.spec.episode_limit).all()
    assert not segment.terminated.any()


def test_the_team_reward_is_the_sum_or_the_mean_of_all_agents() -> None:
    """Against JaxMARL's own rewards for one joint action from one state."""
    jaxmarl_ = jaxmarl.quiet_import()
    game = jaxmarl_.make("MPE_simple_spread_v3")
    key, action = jax.random.key(3), jnp.array([1, 4, 2])
    outcomes = {}
    for team in ("sum", "mean"):
        env = jaxmarl.make(
            jaxmarl.Options(name="MPE_simple_spread_v3", team_reward=team, reward_scale=2.0)
        )
        outcomes[team] = jax.jit(env.step)(key, env.reset(key, ()), action, ())[1]
    joint = dict(zip(game.agents, action, strict=True))
    rewards = game.step_env(key, game.reset(key)[1], joint)[2]
    total = sum(float(r) for r in rewards.values())
    np.testing.assert_allclose(outcomes["sum"].reward, 2 * total, rtol=1e-5)
    np.testing.assert_allclose(outcomes["mean"].reward, 2 * total / 3, rtol=1e-5)


@SLOW
def test_a_game_of_jaxmarl_trains() -> None:
    program, carry, lane = start(
        "env=jaxmarl/simple_spread", "seeds=1", "n_envs=2", "batch_size=4", "learn_start=4",
        "buffer_size=16", "hidden_dim=8",
    )  # fmt: skip
    before = params_of(carry)
    carry = program.advance(carry, lane, 0, 4)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params_of(carry), before)
    assert max(jax.tree.leaves(moved)) > 0
    assert int(carry.state.stopped_at[0]) == -1
    assert int(carry.state.env_steps[0]) == 4 * 2 * 26


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"name": "MPE_simple_facmac_v1"}, "continuous actions"),
        ({"name": "MPE_simple_spread_v3"}, "set env.team_reward=sum"),
        ({"name": "MPE_simple_spred_v3"}, "did you mean MPE_simple_spread_v3"),
        ({"name": "hanabi"}, "hanabi does not say how long its episodes are; set env.max_steps="),
        ({"name": "SMAX"}, "use env=smax/<map>"),
        ({**SPREAD, "team_reward": "most"}, "choose one of shared, sum, mean"),
        (
            {**SPREAD, "reward_scale": 0},
            r"env.reward_scale=0 is out of range; expected a value in \(0, ",
        ),
        ({**SPREAD, "reward_scale": float("nan")}, "env.reward_scale=nan is out of range"),
        ({"name": "switch_riddle", "options": {"agents": 3}}, "switch_riddle cannot be made"),
        ({"name": "overcooked", "options": {"layout": "kitchen"}}, "layout='kitchen' is unknown"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(options: dict[str, Any], says) -> None:
    with pytest.raises(UserError, match=says):
        jaxmarl.make(jaxmarl.Options(**options))


def test_a_segment_holds_an_episode_of_mpe_which_is_a_step_longer_than_it_says() -> None:
    plan(["env=jaxmarl/simple_spread", "segment_length=27"])
    with pytest.raises(UserError, match="set segment_length=27 or more"):
        plan(["env=jaxmarl/simple_spread", "segment_length=26"])
