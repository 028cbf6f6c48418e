"""What a team draws for an episode: it stays, it is stored, and a method without one pays nothing."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.actions import greedy
from jaxvff.core.segments import blank_segment
from jaxvff.core.types import Segment
from jaxvff.learning.learner import init_params
from jaxvff.losses import terms
from jaxvff.networks.contexts import LatentPolicy, RelatedTasks, split_tasks
from jaxvff.networks.heads import successor_features
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.host.play import Collector, Evaluator
from jaxvff.playing.host.policy import BatchedPolicy
from jaxvff.playing.host.pool import Pool
from jaxvff.playing.options import EXPLORERS
from jaxvff.settings import build, config
from jaxvff.training import loop, sharding
from jaxvff.training.host import host_program
from tests import toy
from tests.hosts import SMALL_RUN, job_in, toy_game

DRAWING = ("maven", "uneven")
ONE_FAST = (pytest.param("maven", marks=pytest.mark.slow), "uneven")
KEY = jax.random.key(3)


def player(method: str, *overrides: str, env=None) -> rollout.Player:
    """Random agents that draw as they do while experience is collected."""
    asked = config.load([f"method={method}", "hidden_dim=8", *overrides])
    env = env or toy.make()
    model = build.model(asked, env)
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    act = lambda key, q, avail: jax.random.categorical(key, jnp.where(avail, 0.0, -jnp.inf))
    draw = evaluate.drawing(model, params, greedy=False)
    return rollout.Player(env, model.utility, act, params["utility"], env.params, draw=draw)


def check_one_draw_an_episode(segment: Segment) -> int:
    """Every episode has one context; returns how many different ones the segment holds."""
    context = np.asarray(segment.context)
    for t in range(1, len(context) - 1):  # nothing comes of what is drawn in the last slot
        if not segment.is_first[t]:
            np.testing.assert_array_equal(context[t], context[t - 1])
    return len(np.unique(context[:-1], axis=0))


@pytest.mark.parametrize("method", ONE_FAST)
def test_a_context_is_drawn_anew_for_every_episode_and_stays_in_it(method: str) -> None:
    collect = jax.jit(partial(rollout.on_device, player(method), n_slots=40))
    segment, episodes = collect(KEY)
    assert 4 < check_one_draw_an_episode(segment) <= int(episodes.ended.sum()) + 1


@pytest.mark.slow
def test_a_context_goes_on_with_an_episode_from_one_segment_into_the_next() -> None:
    who = player("uneven")
    collect = jax.jit(partial(rollout.going_on, who, n_slots=4))
    play, pieces = rollout.begin(who, KEY), []
    for i in range(8):
        play, segment, _ = collect(play, jax.random.fold_in(KEY, i))
        pieces.append(jax.tree.map(lambda x: x[:-1], segment._replace(before=None)))
    whole = jax.tree.map(lambda *x: jnp.concatenate(x), *pieces)
    assert check_one_draw_an_episode(whole) == int(whole.is_first.sum()) > 2


@pytest.mark.parametrize("method", ONE_FAST)
def test_replay_keeps_the_context_beside_what_an_environment_packs(method: str) -> None:
    asked = config.load([f"method={method}", "env=matrix_steps/two_step", "hidden_dim=8"])
    env = build.environment(asked.env)
    segment, _ = jax.jit(partial(rollout.on_device, player(method, env=env), n_slots=9))(KEY)
    codec = build.parts(asked, env).codec
    assert codec.merge is None  # what the environment calls equal may differ in its context
    back = codec.unpack(codec.pack(segment), env.params)
    used = np.asarray(back.mask)
    np.testing.assert_array_equal(back.context[used], segment.context[used])
    np.testing.assert_array_equal(back.state[used], segment.state[used])


def test_a_method_that_draws_nothing_has_no_array_for_it() -> None:
    asked = config.load(["method=qmix", "env=matrix/a", "hidden_dim=8"])
    env = build.environment(asked.env)
    model, parts = build.model(asked, env), build.parts(asked, env)
    assert model.context is None
    assert blank_segment(env.spec, 2).context is None
    assert model.utility.blank_context() is None
    assert set(jax.eval_shape(partial(init_params, model), KEY)) == {"utility", "mixer"}
    assert parts.codec.merge is not None  # the environment's own codec
    assert evaluate.drawing(model, {}, greedy=False) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", DRAWING)
def test_on_the_host_an_episode_is_stored_with_what_was_drawn_for_it(method: str) -> None:
    """Every stored action is the greedy one of the utilities with the context that is stored."""
    job = job_in(toy_game(), *SMALL_RUN, f"method={method}", "epsilon_start=0", "epsilon_end=0")
    model, explorer = build.model(job.config, job.env), EXPLORERS["epsilon_greedy"]
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    params["utility"] = jax.tree.map(lambda x: 3 * x, params["utility"])  # contexts matter
    with Pool(job.env, 4, [0]) as pool:
        policy = BatchedPolicy(model, explorer, job.lanes().traced, n_games=4, seed=[0])
        collector = Collector(job.config, job.env, policy=policy, pool=pool, n_lanes=1)
        acting = policy.copy_params(jax.tree.map(lambda x: x[None], params))
        segments = collector.collect(acting, np.zeros(1, np.int32)).segments
    drawn = set()
    for n in range(4):
        used = int(np.flatnonzero(segments.mask[0, n])[-1]) + 2  # what follows is padding
        segment = jax.tree.map(lambda x, n=n, used=used: jnp.asarray(x[0, n, :used]), segments)
        check_one_draw_an_episode(segment)
        drawn |= {tuple(c) for c in np.asarray(segment.context)[np.asarray(segment.mask)]}
        q = terms.utilities(model, params["utility"], segment).q
        best = greedy(q, segment.avail)
        np.testing.assert_array_equal(best[segment.mask], segment.action[segment.mask])
        blank = segment._replace(context=jnp.zeros_like(segment.context))
        assert not np.allclose(terms.utilities(model, params["utility"], blank).q, q)
    assert len(drawn) > 4


@pytest.mark.slow
def test_a_greedy_team_on_the_host_draws_its_best_latent() -> None:
    job = job_in(toy_game(), *SMALL_RUN, "method=maven")
    model = build.model(job.config, job.env)
    params = jax.jit(partial(init_params, model))(jax.random.key(0))
    bias = params["context"]["params"]["net"]["layers_4"]["bias"]
    params["context"]["params"]["net"]["layers_4"]["bias"] = bias.at[5].set(10.0)
    with Pool(job.env, 4, [0]) as pool:
        policy = BatchedPolicy(model, None, job.lanes().traced, n_games=4, seed=[0])
        evaluator = Evaluator(job.env, policy=policy, pool=pool, n_lanes=1)
        acting = policy.copy_params(jax.tree.map(lambda x: x[None], params))
        ends = [policy.context(game) for _, game in evaluator.play(acting, 8, [0])]
    np.testing.assert_array_equal(ends, np.tile(np.eye(16)[5], (8, 1)))


@pytest.mark.slow
@pytest.mark.parametrize("method", DRAWING)
def test_a_method_that_draws_learns_from_games_on_the_host(method: str) -> None:
    """After 10,400 steps of the toy the greedy return is better than what it began with."""
    settings = ("total_steps=10400", "eval_interval=5200", "hidden_dim=32", "batch_size=32")
    job = job_in(toy_game(), *SMALL_RUN, f"method={method}", *settings, "epsilon_steps=3000")
    with host_program(job.config, job.env, 1) as program:
        lane = sharding.spread(job.lanes(), program.mesh)
        carry = program.init(lane)
        untrained = program.evaluate(carry, lane)["test_return"]
        *_, (_, _, last) = loop.run(program, carry, lane)
    assert last.metrics["test_return"] > untrained


def test_latents_are_drawn_by_what_they_return() -> None:
    """Frequencies of 20,000 draws: a softmax over returns, and a share that is uniform."""
    policy = LatentPolicy(toy.SPEC, latents=4, latent_temperature=0.5, latent_floor=0.2)
    state = jnp.array([0.3, -0.7])
    params = policy.init(KEY, state, KEY, greedy=True)
    bias = params["params"]["net"]["layers_4"]["bias"]
    params["params"]["net"]["layers_4"]["bias"] = bias + jnp.array([0.0, 0.5, 1.0, 0.2])
    returns = np.asarray(policy.apply(params, state, method=LatentPolicy.returns))
    weights = np.exp(returns / 0.5)
    expected = 0.8 * weights / weights.sum() + 0.2 / 4
    draw = jax.jit(jax.vmap(lambda k: policy.apply(params, state, k, greedy=False)))
    drawn = np.asarray(draw(jax.random.split(KEY, 20_000)))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    assert (drawn.sum(axis=1) == 1).all()
    np.testing.assert_allclose(drawn.mean(axis=0), expected, atol=0.015)  # 4 standard errors
    greedy = policy.apply(params, state, KEY, greedy=True)
    np.testing.assert_array_equal(greedy, np.eye(4)[returns.argmax()])


@pytest.mark.parametrize("act_for", ["uniform", "target", "greedy"])
def test_related_tasks_forgive_penalties_and_the_first_one_is_the_target(act_for: str) -> None:
    context = RelatedTasks(toy.SPEC, tasks=3, task_spread=0.5, act_for=act_for)
    params = context.init(KEY, jnp.zeros(2), KEY, greedy=True)
    draw = jax.jit(jax.vmap(lambda k: context.apply(params, jnp.zeros(2), k, greedy=False)))
    tasks, acts_for = map(np.asarray, split_tasks(draw(jax.random.split(KEY, 4000))))
    assert (tasks[:, 0] == 1).all()
    assert (tasks[..., 0] == 1).all()
    penalty = tasks[:, 1:, 1]
    assert penalty.min() == 0  # two standard deviations below 1
    np.testing.assert_allclose((penalty == 0).mean(), 0.0228, atol=0.006)
    np.testing.assert_allclose(np.median(penalty), 1, atol=0.02)
    share = {"uniform": [0.25] * 4, "target": [1, 0, 0, 0], "greedy": [1] * 4}[act_for]
    np.testing.assert_allclose(acts_for.mean(axis=0), share, atol=0.03)
    alone, target = split_tasks(context.apply(params, jnp.zeros(2), KEY, greedy=True))
    assert (np.asarray(alone) == 1).all()
    assert target.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize("utility", ["mlp", "gru"])
def test_values_to_act_by_are_those_of_generalised_policy_improvement(utility: str) -> None:
    """A slow loop over tasks that are acted for, and over policies."""
    who = player("uneven", f"utility={utility}", "method.tasks=2")
    tasks = np.array([[1, 1], [1, 0.2], [1, 0]], np.float32)
    for acts_for in ([1, 0, 0], [0, 0, 1], [1, 1, 1]):
        context = jnp.concatenate([jnp.asarray(tasks).ravel(), jnp.array(acts_for, jnp.float32)])
        x = who.utility.inputs(jnp.ones((2, 3)), jnp.zeros(2, int), jnp.array(True))
        _, q, features = who.utility.step(who.params, who.utility.initial_carry(), x, context)
        psi = np.asarray(successor_features(features, 3))  # [A, K, U, 2]
        expected = np.full((2, 3), -np.inf)
        for k in np.flatnonzero(acts_for):
            for j in range(3):
                expected = np.maximum(expected, psi[:, j] @ tasks[k])
        np.testing.assert_allclose(q, expected, rtol=1e-5, atol=1e-6)
