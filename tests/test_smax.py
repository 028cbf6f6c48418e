"""SMAX: the battles are JaxMARL's, transition by transition; what replay stores loses nothing."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments.smax.heuristic_enemy_smax_env import State as JaxmarlState

from jaxvff.core import segments, sizes
from jaxvff.core.errors import UserError
from jaxvff.core.types import Env, Episodes, Outcome, Segment
from jaxvff.envs import smax
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import rollout
from jaxvff.runs.plan import plan
from jaxvff.settings import config
from tests.lanes import start

MAPS = [name.removeprefix("smax/") for name in config.config_names("env") if "smax/" in name]
SLOW = pytest.mark.slow
STOP = 4  # the action
KINDS = ["3m", *(pytest.param(m, marks=SLOW) for m in ("3s_vs_5z", "corridor", "smacv2_5_units"))]


def shoot(key: Any, q: Any, avail: Any) -> Any:
    """Random play that mostly shoots the first enemy in reach: battles are won, lost and drawn out."""
    attacks = avail & (jnp.arange(avail.shape[-1]) > STOP)
    first = attacks & (jnp.cumsum(attacks, axis=-1) == 1)
    stop = jnp.arange(avail.shape[-1]) == STOP
    return jax.random.categorical(key, jnp.log(avail + 6.0 * stop + 200.0 * first))


def player(env: Env) -> rollout.Player:
    utility = Utility(
        Mlp(env.spec.n_actions, 1), env.spec, shared=True, agent_id=False, last_action=False
    )
    return rollout.Player(env, utility, shoot, utility.init(jax.random.key(0)), env.params)


def collect(env: Env, n_envs: int, n_slots: int, seed: int = 0) -> tuple[Segment, Episodes]:
    """Segments `[N, T]` of random play, as NumPy arrays."""
    keys = jax.random.split(jax.random.key(seed), n_envs)
    play = jax.vmap(lambda key: rollout.on_device(player(env), key, n_slots))
    return jax.tree.map(np.asarray, jax.jit(play)(keys))


# --- the same battles as JaxMARL's


def beside_jaxmarl(name: str) -> Env:
    """Our env, which also takes each step in JaxMARL's own, and reports how far they are apart.

    Both start from our state at every step: rounding differs by 1e-6 in a position, and over an
    episode a battle amplifies it.
    """
    ours = smax.make(smax.Options(map=name, time_limit=10_000, scale_state=False))
    scenario = smax.smax_env.MAP_NAME_TO_SCENARIO[name]
    theirs = smax.HeuristicEnemySMAX(scenario=scenario, max_steps=10_000)

    def apart(view: Any, obs: Any, state: Any) -> dict[str, Any]:
        avail = theirs.get_avail_actions(state)
        seen = jnp.stack([obs[a] for a in theirs.agents])
        legal = jnp.stack([avail[a] for a in theirs.agents]) > 0
        return {
            "obs": jnp.max(jnp.abs(view.obs - seen)),
            "state": jnp.max(jnp.abs(view.state - obs["world_state"])),
            "avail": jnp.sum(view.avail != legal),
        }

    def step(key: Any, battle: Any, action: Any, params: Any) -> tuple[Any, Outcome]:
        moved, shot = theirs._env._decode_discrete_actions(battle.last)
        before = battle.smax.replace(prev_movement_actions=moved, prev_attack_actions=shot)
        state = JaxmarlState(state=before, enemy_policy_state=battle.enemy)
        joint = dict(zip(theirs.agents, action, strict=True))
        obs, state, reward, done, _ = theirs.step_env(key, state, joint)
        after, outcome = ours.step(key, battle, action, params)
        memory = zip(*map(jax.tree.leaves, (after.enemy, state.enemy_policy_state)), strict=True)
        results = apart(ours.observe(after, params), obs, state) | {
            "reward": jnp.max(jnp.abs(jnp.stack([outcome.reward - r for r in reward.values()]))),
            "ends": outcome.terminated != done["__all__"],
            "clock": after.smax.step != state.state.step,
            "memory": sum(jnp.sum(a != b) for a, b in memory),
        }
        return after, outcome._replace(results=results)

    return ours._replace(step=step)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_every_transition_is_the_one_that_jaxmarl_makes(name: str) -> None:
    """The same state, key and actions: the same observations, actions to choose from and rewards."""
    segment, episodes = collect(beside_jaxmarl(name), 32, 64)
    assert segment.terminated.sum() > 5, "few battles ended, so it proves little"
    assert (segment.reward >= 1).any() or name != "3m", "no battle was won"
    apart = {k: np.max(v) for k, v in episodes.results.items()}
    # Shares of at most 1, from sums over units and eight world steps in another order.
    assert apart["obs"] < 1e-5
    assert apart["reward"] < 1e-6
    # Map units: the last bit of 32 is 4e-6, and a crowd of 24 zerglings pushes each other around.
    assert apart["state"] < 1e-4
    for name in ("avail", "ends", "clock", "memory"):
        assert apart[name] == 0, name


# --- what happens in a battle


LIMITS = {"3m": 20, "3s_vs_5z": 40, "corridor": 40, "smacv2_5_units": 40}  # some end before


@functools.cache
def battles(name: str, scale_state: bool = True) -> tuple[Env, Segment, Episodes]:
    """Random play."""
    env = smax.make(smax.Options(map=name, time_limit=LIMITS[name], scale_state=scale_state))
    return env, *collect(env, 32, 64)


def health(env: Env, segment: Segment) -> np.ndarray:
    """The shares of health of all units `[N, T, n]`, from the world state."""
    n, block = env.spec.n_agents, env.spec.agent_state_size
    units = (env.spec.state_size) // (block + 2)  # a block, a team and a type each
    assert n < units
    return segment.state[..., : units * block].reshape(*segment.mask.shape, units, block)[..., 0]


def test_dead_agents_may_only_stop_and_do() -> None:
    env, segment, _ = battles("3m")
    dead = health(env, segment)[..., : env.spec.n_agents] <= 0
    assert dead.any()
    stop_only = np.arange(env.spec.n_actions) == STOP
    assert (segment.avail[dead] == stop_only).all()
    assert (segment.action[dead] == STOP).all()
    assert (segment.obs[dead] == 0).all()
    alive = ~dead
    assert segment.avail[alive][:, : STOP + 1].all(), "the living may move and stop"
    taken = np.take_along_axis(segment.avail, segment.action[..., None], -1)
    assert taken.all()


def test_every_episode_ends_in_one_way_which_is_that_of_the_survivors() -> None:
    env, segment, episodes = battles("3m")
    ended, a = episodes.ended, env.spec.n_agents
    won, lost, draw, timeout = (
        episodes.results[f"{k}_rate"] for k in ("win", "loss", "draw", "timeout")
    )
    np.testing.assert_array_equal((won + lost + draw + timeout)[ended], 1)
    allies = (health(env, segment)[..., :a] > 0).any(-1)
    enemies = (health(env, segment)[..., a:] > 0).any(-1)
    np.testing.assert_array_equal(won[ended], (allies & ~enemies)[ended])
    np.testing.assert_array_equal(lost[ended], (~allies & enemies)[ended])
    np.testing.assert_array_equal(draw[ended], (~allies & ~enemies)[ended])
    np.testing.assert_array_equal(timeout[ended], (allies & enemies)[ended])
    assert all(rate[ended].any() for rate in (won, lost, draw, timeout)), "some end never came"


def test_an_episode_is_truncated_exactly_at_its_limit() -> None:
    """JaxMARL compares its clock before it moves: its episodes last a step longer."""
    env, segment, episodes = battles("3m")
    limit = env.spec.episode_limit
    timeout = episodes.ended & (episodes.results["timeout_rate"] == 1)
    assert (episodes.length[timeout] == limit).all()
    assert (episodes.length[episodes.ended] <= limit).all()
    before = np.roll(timeout, -1, axis=1)
    assert not segment.terminated[before].any()
    over = episodes.ended & ~timeout
    assert segment.terminated[np.roll(over, -1, axis=1)].all()


@functools.cache
def one_step(reward_scale: float = 1.0) -> Any:
    """`(clock, health of the last two, positions apart) -> Outcome` of ally 0 shooting enemy 0.

    The others are dead, on both sides.
    """
    env = smax.make(smax.Options(map="3m", time_limit=9, reward_scale=reward_scale))

    @jax.jit
    def play(clock: Any, ally: Any, enemy: Any, distance: Any) -> Outcome:
        battle = env.reset(jax.random.key(0), ())
        left = jnp.zeros(6).at[0].set(ally).at[3].set(enemy)
        spots = jnp.tile(jnp.array([[8.0, 16.0]]), (6, 1)).at[3, 0].add(distance)
        state = battle.smax.replace(
            step=clock, unit_health=left, unit_alive=left > 0, unit_positions=spots
        )
        action = jnp.array([5, 4, 4])  # shoot the first enemy; the dead stop
        return env.step(jax.random.key(1), battle._replace(smax=state), action, ())[1]

    return play


def test_two_last_shots_at_once_are_a_draw_without_a_bonus() -> None:
    draw = one_step()(3, 1.0, 1.0, 2.0)
    assert draw.terminated and not draw.truncated
    assert draw.results == {"win_rate": 0, "loss_rate": 0, "draw_rate": 1, "timeout_rate": 0}
    np.testing.assert_allclose(draw.reward, 1 / 45 / 3, rtol=1e-6)  # 1 of 45 health, of 3 enemies


def test_a_last_shot_at_the_limit_is_a_victory_and_no_truncation() -> None:
    won = one_step()(8, 45.0, 1.0, 2.0)
    assert won.terminated and not won.truncated
    assert won.results == {"win_rate": 1, "loss_rate": 0, "draw_rate": 0, "timeout_rate": 0}
    np.testing.assert_allclose(won.reward, 1 + 1 / 45 / 3, rtol=1e-6)
    for clock, over in ((7, False), (8, True)):  # out of reach: nothing happens but time
        late = one_step()(clock, 45.0, 45.0, 20.0)
        assert late.truncated == over and not late.terminated
        assert late.results["timeout_rate"] == over


def test_reward_scale_scales_rewards() -> None:
    for health in (1.0, 45.0):
        one, ten = (one_step(scale)(3, 45.0, health, 2.0) for scale in (1.0, 10.0))
        assert one.reward > 0
        np.testing.assert_allclose(ten.reward, 10 * one.reward, rtol=1e-6)


def test_the_world_state_shows_each_agent_as_it_sees_itself() -> None:
    """With scale_state; positions and cooldowns within [0, 1], not map units and seconds."""
    env, segment, _ = battles("3m")
    a, block = env.spec.n_agents, env.spec.agent_state_size
    shown = segment.state[..., : a * block].reshape(*segment.mask.shape, a, block)
    np.testing.assert_array_equal(shown, segment.obs[..., -block:])
    assert segment.state.min() >= 0
    assert segment.state[..., : -len(segment.state[0, 0]) // 6].max() <= 1


# --- replay


CODECS = [("3s_vs_5z", True), *(
    pytest.param(name, scale, marks=SLOW)
    for name, scale in (("3s_vs_5z", False), ("corridor", True), ("corridor", False),
                        ("smacv2_5_units", True), ("smacv2_5_units", False))
)]  # fmt: skip


@pytest.mark.parametrize(("name", "scale_state"), CODECS)
def test_what_replay_stores_of_a_battle_brings_back_every_bit(name: str, scale_state: bool) -> None:
    env, segment, _ = battles(name, scale_state)
    stored = jax.jit(jax.vmap(env.codec.pack))(segment)
    back = jax.jit(jax.vmap(lambda x: env.codec.unpack(x, env.params)))(stored)
    for field in Segment._fields[:-2]:  # `before` and `context` are of some runs alone
        mine, theirs = getattr(back, field), getattr(segment, field)
        assert mine.dtype == theirs.dtype, field
        np.testing.assert_array_equal(mine, theirs, field)
    assert (segment.obs != 0).any() and segment.terminated.any()


def test_a_slot_of_a_battle_takes_a_tenth_of_the_bytes_that_jaxmarl_stores() -> None:
    """3s_vs_5z: JaxMARL's Q-learning stores 1,694 bytes a step (obs, avail, action, reward, done)."""
    env = smax.make(smax.Options(map="3s_vs_5z"))
    size = sizes.nbytes(env.codec.pack(segments.blank_segment(env.spec, 64))) / 64
    assert size == 148
    assert size < 1694 / 10


@SLOW
def test_training_on_compact_segments_is_training_on_plain_ones() -> None:
    """To 1e-5 after 24 updates of size 1e-3: two programs, which round in their own ways."""
    runs = []
    for compact in ("true", "false"):
        program, carry, lane = start(
            "env=smax/3m", "learner=replay", "env.time_limit=20", f"env.compact={compact}", "segment_length=21",
            "seeds=1", "n_envs=4", "batch_size=4", "learn_start=4", "buffer_size=16", "updates=4",
            "hidden_dim=8", "epsilon_end=1", "lr=1e-3", "total_steps=10000",
        )  # fmt: skip
        carry = program.advance(carry, lane, 0, 6)
        runs.append(jax.tree.map(np.array, carry.state.learner.params))
        assert carry.state.stopped_at == -1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *runs)


# --- all maps, many battles


@pytest.mark.parametrize("name", MAPS)
def test_every_map_has_the_shapes_it_declares(name: str) -> None:
    env = smax.make(smax.Options(map=name, time_limit="smac"))
    spec = env.spec
    state = jax.eval_shape(env.reset, jax.random.key(0), env.params)
    view = jax.eval_shape(env.observe, state, env.params)
    assert view.obs.shape == (spec.n_agents, spec.obs_size)
    assert view.state.shape == (spec.state_size,)
    assert view.avail.shape == (spec.n_agents, spec.n_actions)
    assert view.avail.dtype == bool
    assert spec.episode_limit == smax.SMAC_LIMITS[name]


def test_there_are_all_maps_of_jaxmarl_and_corridor() -> None:
    assert len(MAPS) == 15
    assert set(MAPS) == set(smax.smax_env.MAP_NAME_TO_SCENARIO)


def test_battles_side_by_side_are_the_battles_apart() -> None:
    """One, 16 in a vmap, 4 x 4 in two (lanes and environments) with a key a row: to 1e-5.

    A crowd with random health, cooldowns and types: units shoot, push each other, and die.
    """
    game = smax.HeuristicEnemySMAX(scenario=smax.smax_env.MAP_NAME_TO_SCENARIO["smacv2_5_units"])
    physics = smax.Physics(game._env)
    rng, n = np.random.default_rng(0), physics.n_units
    start = game.reset(jax.random.key(0))[1].state
    alive = rng.random((16, n)) < 0.8
    states = jax.tree.map(lambda x: jnp.tile(x, (16,) + (1,) * x.ndim), start).replace(
        unit_positions=jnp.asarray(rng.uniform(12, 18, (16, n, 2)), jnp.float32),
        unit_health=jnp.asarray(alive * rng.uniform(1, 40, (16, n)), jnp.float32),
        unit_alive=jnp.asarray(alive),
        unit_types=jnp.asarray(rng.integers(0, 6, (16, n)), jnp.uint8),
        unit_weapon_cooldowns=jnp.asarray(rng.uniform(-0.5, 0.5, (16, n)), jnp.float32),
    )
    keys = jax.random.split(jax.random.key(1), 4)
    each = jnp.repeat(keys, 4)
    actions = jnp.asarray(rng.integers(0, 10, (16, n)))
    fold = lambda tree: jax.tree.map(lambda x: x.reshape(4, 4, *x.shape[1:]), tree)
    flat = lambda tree: jax.tree.map(lambda x: x.reshape(16, *x.shape[2:]), tree)

    def same(a: Any, b: Any) -> None:
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)

    one = jax.jit(physics.step)
    apart = [one(*jax.tree.map(lambda x: x[i], (each, states, actions))) for i in range(16)]
    apart = jax.tree.map(lambda *x: jnp.stack(x), *apart)
    assert (apart.unit_alive != states.unit_alive).any(), "nobody died"
    same(jax.jit(jax.vmap(physics.step))(each, states, actions), apart)
    twice = jax.jit(jax.vmap(jax.vmap(physics.step, (None, 0, 0))))
    same(flat(twice(keys, fold(states), fold(actions))), apart)


# --- mistakes


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"map": "3s_vs_5x"}, r"env\.map='3s_vs_5x' is unknown; did you mean 3s_vs_5z"),
        ({"map": "nowhere"}, "corridor"),
        ({"time_limit": 0}, "env.time_limit=0 is out of range"),
        ({"time_limit": "foo"}, "env.time_limit='foo' must be"),
        ({"time_limit": True}, "env.time_limit=true must be"),
        ({"time_limit": 2.5}, "env.time_limit=2.5 must be"),
        ({"reward_scale": 0}, r"env.reward_scale=0 is out of range; expected a value in \(0, "),
        ({"reward_scale": float("nan")}, "env.reward_scale=nan is out of range"),
        ({"reward_scale": "ten"}, "env.reward_scale='ten' must be a number"),
    ],
)
def test_mistakes_are_named_with_what_would_do(options: dict, says: str) -> None:
    with pytest.raises(UserError, match=says):
        smax.make(smax.Options(**options))


def test_a_segment_that_cannot_hold_an_episode_is_refused_with_the_length_it_takes() -> None:
    with pytest.raises(UserError, match="set segment_length=101 or more"):
        plan(["env=smax/3m", "learner=replay", "segment_length=100"])
    with pytest.raises(UserError, match="set segment_length=251 or more"):
        plan(["env=smax/3s_vs_5z", "learner=replay", "env.time_limit=smac", "segment_length=128"])
    plan(["env=smax/3m", "learner=replay", "segment_length=101"])
    plan(["env=smax/3m", "segment_length=9"])  # games go on


def test_a_step_earns_the_share_that_it_took_of_each_enemys_own_health() -> None:
    """Enemies of two kinds: a zealot's health is not a stalker's."""
    env = smax.make(smax.Options(map="2s3z", time_limit=9))
    scenario = smax.smax_env.MAP_NAME_TO_SCENARIO["2s3z"]
    game = smax.HeuristicEnemySMAX(scenario=scenario)
    full = np.asarray(game._env.unit_type_health)[np.asarray(scenario.unit_types)]
    assert len(np.unique(full[5:])) == 2

    @jax.jit
    def play(enemy: Any) -> tuple[Any, Any]:
        """Ally 0 shoots an enemy two map units away; everybody else is out of reach."""
        battle = env.reset(jax.random.key(0), ())
        positions = jnp.tile(jnp.array([[2.0, 16.0]]), (10, 1)) + jnp.arange(10)[:, None] * 0.1
        positions = positions.at[5:, 0].add(25.0).at[0].set(jnp.array([14.0, 4.0]))
        positions = positions.at[5 + enemy].set(jnp.array([16.0, 4.0]))
        state = battle.smax.replace(unit_positions=positions)
        action = jnp.full(5, STOP).at[0].set(STOP + 1 + enemy)
        after, outcome = env.step(jax.random.key(1), battle._replace(smax=state), action, ())
        return after.smax.unit_health, outcome.reward

    for enemy in range(5):
        health, reward = play(enemy)
        taken = (full - np.asarray(health))[5:] / full[5:]
        assert taken[enemy] > 0
        np.testing.assert_allclose(reward, taken.sum() / 5, rtol=1e-5)
