"""The compiled update: what it stores, when it learns, what it syncs; lanes are independent."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxvff.core import sizes
from jaxvff.core.segments import blank_segment
from jaxvff.learning.batch_loss import BatchInput, batch_loss
from jaxvff.learning.learner import LearnInput, init_params
from jaxvff.learning.options import OPTIMIZERS
from jaxvff.learning.samples import Sample, Stored
from jaxvff.settings import build, config
from jaxvff.training import loop
from tests.lanes import params_of, start

SMALL = ("hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64")


def difference(a, b) -> float:
    return max(
        float(np.abs(x - y).max()) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    )


def test_learning_starts_when_the_replay_holds_learn_start_segments() -> None:
    program, carry, lane = start("seeds=1", *SMALL)
    before = params_of(carry)
    carry = program.advance(carry, lane, 0, 15)
    assert difference(params_of(carry), before) == 0
    carry = program.advance(carry, lane, 15, 16)
    assert difference(params_of(carry), before) > 0


@pytest.mark.slow
def test_a_hard_sync_copies_and_a_soft_one_moves_a_share() -> None:
    for tau, interval in ((1.0, 5), (0.25, 1)):
        program, carry, lane = start(
            "seeds=1", f"target_tau={tau}", f"target_interval={interval}", *SMALL
        )
        target = params_of(carry)
        for i in range(15 + 2 * interval):
            carry = program.advance(carry, lane, i, i + 1)
            if i >= 15 and (i - 14) % interval == 0:
                online = params_of(carry)
                target = jax.tree.map(lambda t, p, tau=tau: (1 - tau) * t + tau * p, target, online)
            now = jax.tree.map(np.array, carry.state.learner.target_params)
            assert difference(now, target) <= 1e-7, f"tau={tau}, iteration {i}"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_take_the_step_that_optax_takes(name: str) -> None:
    ours = OPTIMIZERS[name]()
    theirs = {
        "adam": optax.adam(0.1),
        "radam": optax.radam(0.1),
        "sgd": optax.sgd(0.1),
        "rmsprop": optax.rmsprop(0.1, decay=0.99, eps=1e-5, eps_in_sqrt=False),
    }[name]
    grad = jnp.array([1.0, -2.0, 0.5])
    state, their_state = ours.init(grad), theirs.init(grad)
    for _ in range(3):
        step, state = ours.update(grad, state)
        their_step, their_state = theirs.update(grad, their_state)
        np.testing.assert_allclose(-0.1 * step, their_step, rtol=1e-6)


@pytest.mark.slow
def test_gradients_are_clipped_by_their_global_norm() -> None:
    program, carry, lane = start("seeds=1", "optimizer=sgd", "lr=1", "grad_clip=0.01", *SMALL)
    before = params_of(carry)
    after = params_of(program.advance(carry, lane, 0, 16))
    moved = jax.tree.map(lambda a, b: a - b, after, before)
    np.testing.assert_allclose(optax.tree.norm(moved), 0.01, rtol=1e-3)


@pytest.mark.slow
def test_merging_a_batch_into_a_histogram_changes_no_gradient() -> None:
    """128 samples of 9 joint actions, or 9 of them with counts: equal but for float32 sums."""
    large = ["env=matrix/random", "env.n_actions=17"]  # 289 cells: more than a uint8 counts
    cases = [(m, ["env=matrix/b"], 128) for m in ("qplex", "cw_qmix")]
    for name, game, n in [*cases, ("nmqmix", large, 512)]:
        asked = config.load([f"method={name}", *game, "hidden_dim=8"])
        env = build.environment(asked.env)
        parts = build.parts(asked, env)
        params, target = (init_params(parts.model, jax.random.key(k)) for k in (0, 1))
        action = jax.random.randint(jax.random.key(2), (n, 2, 2), 0, env.spec.n_actions)
        reward = jnp.stack([env.params[tuple(action[:, 0].T)], jnp.zeros(n)], 1)
        given = BatchInput(
            params=params,
            target_params=target,
            sample=Sample(Stored((action.astype(jnp.uint8), reward), ()), None, None),
            unit=jnp.ones(()),
            extra=None,
            targets=None,
            counts=None,
            memory=(),
            key=jax.random.key(3),
            env_params=env.params,
            traced=jax.tree.map(jnp.float32, asked.traced()),
        )
        grads = []
        for codec in (env.codec, env.codec._replace(merge=None)):
            f = lambda p, codec=codec: batch_loss(
                parts._replace(codec=codec), given._replace(params=p)
            )[0]
            grads.append(jax.jit(jax.grad(f))(params))
        scale = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(grads[1]))
        assert difference(*grads) < 2e-6 * scale, name


@pytest.mark.slow
def test_the_matrix_codec_rebuilds_the_segments_that_were_collected() -> None:
    from jaxvff.envs import matrix
    from jaxvff.networks.utility import Mlp, Utility
    from jaxvff.playing import explore, rollout

    env = matrix.make(matrix.Options(game="b"))
    utility = Utility(Mlp(3, 4), env.spec, True, True, False)
    act = lambda k, q, avail: explore.epsilon_greedy(k, q, avail, jnp.array(1.0))
    player = rollout.Player(env, utility, act, utility.init(jax.random.key(0)), env.params)
    for slots in (2, 3, 6, 7):
        segment, _ = rollout.on_device(player, jax.random.key(1), slots)
        back = env.codec.unpack(env.codec.pack(segment), env.params)
        for name in segment._fields:
            np.testing.assert_array_equal(getattr(back, name), getattr(segment, name), name)
        assert sizes.nbytes(env.codec.pack(segment)) == slots * (2 + 4)


@pytest.mark.slow
def test_vmapped_seeds_equal_separate_runs() -> None:
    """To 1e-4 after 300 updates of size 1e-3, on random play.

    Not bit for bit: a batched product of small matrices sums in another order than a single one,
    and Adam divides by small numbers. ε = 1 keeps a last-bit difference from flipping an action.
    """
    args = ("epsilon_end=1", "method=nmqmix", "env=matrix/b")
    program, carry, lane = start("seeds=4", *args)
    together = params_of(program.advance(carry, lane, 0, 428))
    single, _, _ = start("seeds=1", *args)
    for seed in range(4):
        one = jax.tree.map(lambda x, i=seed: x[i : i + 1], lane)
        alone = params_of(single.advance(single.init(one), one, 0, 428))
        mine = jax.tree.map(lambda x, i=seed: x[i : i + 1], together)
        assert difference(mine, alone) < 1e-4, f"seed {seed}"


@pytest.mark.slow
def test_lanes_in_turns_equal_lanes_at_once() -> None:
    """The size of a vmap is a choice of speed: 4 lanes in blocks of 2, or all at once."""
    runs = []
    for block in (2, 4):
        program, carry, lane = start(
            "seeds=4", "epsilon_end=1", f"lanes_per_device={block}", *SMALL
        )
        runs.append(params_of(program.advance(carry, lane, 0, 100)))
    assert difference(*runs) < 1e-5


@pytest.mark.parametrize(
    ("platform", "at_once", "overrides"),
    [
        ("cpu", 16, ["env=matrix/a"]),  # a batch is nine plays at most
        ("cpu", 1, ["env=smax/3m"]),
        ("cpu", 1, ["env=smax/3m", "learner=replay", "utility=gru"]),
        ("cpu", 4, ["env=matrix_steps/maven", "learner=parallel", "n_envs=32", "minibatches=8",
                    "segment_length=32", "hidden_dim=64"]),
        ("cpu", 3, ["env=smax/3m", "lanes_per_device=3"]),
        ("gpu", 64, ["env=smax/3m"]),
    ],
)  # fmt: skip
def test_as_many_lanes_at_once_as_a_cores_cache_has_room_for(
    platform: str, at_once: int, overrides: list[str]
) -> None:
    asked = config.load(overrides)
    assert build.lanes_at_once(asked, build.environment(asked.env), platform) == at_once


@pytest.mark.slow
def test_chunks_of_any_length_are_the_same_run_bit_for_bit() -> None:
    runs = []
    for stops in ((300,), (1, 37, 38, 300)):
        program, carry, lane = start("seeds=2", *SMALL)
        begin = 0
        for stop in stops:
            carry = program.advance(carry, lane, begin, stop)
            begin = stop
        runs.append(jax.tree.map(np.array, (carry.state.learner.params, carry.totals)))
    jax.tree.map(np.testing.assert_array_equal, *runs)


def test_a_step_that_decides_a_branch_stays_a_branch_under_vmap() -> None:
    """A batched predicate would turn cond into select, and every lane would pay both sides."""
    program, carry, lane = start("seeds=4", *SMALL)
    jaxpr = str(program.advance.trace(carry, lane, 0, 3).jaxpr)
    assert jaxpr.count("cond[") == 2  # start of learning, target sync


@pytest.mark.slow
def test_several_updates_per_collection_and_several_envs() -> None:
    program, carry, lane = start("seeds=2", "n_envs=4", "updates=3", *SMALL)
    assert program.config.steps_per_iteration == 4
    before = params_of(carry)
    carry = program.advance(carry, lane, 0, 20)
    assert difference(params_of(carry), before) > 0
    metrics = loop.report_metrics(program, carry, lane)
    assert np.isfinite(metrics["loss"]).all()


QUICK = ("method=vdn", "utility=mlp", "hidden_dim=4", "seeds=1")


def test_the_target_moves_its_share_after_every_target_interval_updates_and_never_between() -> None:
    """Two updates an iteration, a sync after four: at the end of every second iteration."""
    program, carry, lane = start(
        *QUICK, "updates=2", "target_interval=4", "target_tau=0.25", "learn_start=2",
        "batch_size=4", "buffer_size=8",
    )  # fmt: skip
    target = params_of(carry)
    for i in range(8):
        carry = program.advance(carry, lane, i, i + 1)
        if i in (2, 4, 6):  # iteration 1 is the first that learns
            online = params_of(carry)
            target = jax.tree.map(lambda t, p: 0.75 * t + 0.25 * p, target, online)
        now = jax.tree.map(np.array, carry.state.learner.target_params)
        assert difference(now, target) <= 1e-7, f"iteration {i}"
    assert difference(params_of(carry), target) > 1e-4, "it did not learn, so it proves nothing"


def test_a_reset_begins_anew_what_is_trained_and_keeps_what_was_played() -> None:
    """Two updates an iteration from the second on; resets wait for 5 and for 10 updates."""
    asked = (*QUICK, "updates=2", "learn_start=2", "batch_size=4", "buffer_size=16", "lr=0.01")
    never, old, lane = start(*asked)
    twice, new, _ = start(*asked, "resets=2", "reset_interval=5")
    for i in range(12):
        before = params_of(new)
        old, new = never.advance(old, lane, i, i + 1), twice.advance(new, lane, i, i + 1)
        # Adam has counted two updates an iteration since the last reset.
        since = i - (0 if i < 4 else 3 if i < 6 else 5)
        assert optax.tree.get(new.state.learner.opt_state, "count")[0] == 2 * since
        # An update moves a parameter by .01 at most.
        assert (difference(params_of(new), before) > 0.1) == (i in (4, 6)), f"iteration {i}"
        assert (difference(params_of(old), params_of(new)) == 0) == (i < 4), f"iteration {i}"
    for a, b in zip(*(jax.tree.leaves(c.state.learner.replay) for c in (old, new)), strict=True):
        if a.shape[1:2] == (16,):  # until the first reset both have played the same
            np.testing.assert_array_equal(a[:, :5], b[:, :5])


@pytest.mark.slow
def test_the_learning_rate_falls_linearly_with_the_transitions_collected_and_stays() -> None:
    """SGD along a clipped gradient: a step is as long as the learning rate times the clip."""
    program, carry, lane = start(
        *QUICK, "optimizer=sgd", "lr=0.5", "lr_final=0.2", "lr_steps=20", "grad_clip=0.1",
        "n_envs=4", "learn_start=4", "batch_size=4", "buffer_size=64",
    )  # fmt: skip
    for i in range(7):
        before = params_of(carry)
        carry = program.advance(carry, lane, i, i + 1)
        moved = jax.tree.map(lambda a, b: a - b, params_of(carry), before)
        played = 4 * (i + 1)  # games of one step, in two slots each
        assert carry.state.env_steps == played
        share = max(1 - 0.8 * played / 20, 0.2)
        np.testing.assert_allclose(optax.tree.norm(moved), 0.05 * share, rtol=1e-3)


def test_train_returns_are_means_over_episodes_before_and_while_it_learns() -> None:
    """Eight episodes an iteration, and three updates from the third iteration on."""
    program, carry, lane = start(
        *QUICK, "env=matrix/file", "env.payoff=[[3,3],[3,3]]", "n_envs=8", "updates=3",
        "learn_start=24", "batch_size=4", "buffer_size=64",
    )  # fmt: skip
    for begin, end in ((0, 2), (2, 5)):
        carry = program.advance(carry, lane, begin, end)
        metrics = loop.report_metrics(program, carry, lane)
        assert metrics["train_return"] == 3
        assert np.isfinite(metrics["loss"]) == (end > 2)


def test_every_report_is_of_what_happened_since_the_one_before() -> None:
    program, carry, lane = start(
        *QUICK, "total_steps=60", "eval_interval=20", "learn_start=4", "batch_size=4",
        "buffer_size=64",
    )  # fmt: skip
    reports = [item.report for item in loop.run(program, carry, lane)]
    carry, sums = program.init(lane), []
    for i in range(0, 60, 20):
        carry = program.advance(carry, lane, i, i + 20)
        sums.append(float(carry.totals["train_return"][0]))
    expected = np.diff([0.0, *sums]) / 20  # an episode a step
    reported = [report.metrics["train_return"][0] for report in reports]
    np.testing.assert_allclose(reported, expected, rtol=1e-5)
    assert len(set(expected)) == 3


@pytest.mark.slow
def test_a_search_improves_the_segments_that_were_sampled_wherever_they_lie() -> None:
    """Nothing is learned: all that is drawn comes to know the same, the best joint action."""
    asked = config.load([
        "method=ordered_joint", "env=matrix/random", "utility=mlp", "hidden_dim=4", "lr=0",
        "search_fraction=1", "n_envs=16", "learn_start=16", "buffer_size=24", "batch_size=4",
        "updates=12",
    ])  # fmt: skip
    env = build.environment(asked.env)
    learner, traced = build.learner(asked, env), jax.tree.map(jnp.float32, asked.traced())
    plays = jax.tree.map(lambda x: jnp.stack([x] * 16), blank_segment(env.spec, 2))
    taken = jax.random.randint(jax.random.key(1), plays.action.shape, 0, 3)
    given = LearnInput(
        segments=plays._replace(action=taken),
        env_params=env.params,
        traced=traced,
        iteration=jnp.array(0),
        env_steps=jnp.array(16),
        running=jnp.array(True),
        keys=jax.random.split(jax.random.key(2), learner.n_keys),
    )
    state = jax.jit(learner.init)(jax.random.key(0), traced)
    state = jax.jit(learner.learn)(state, given).state
    known = np.asarray(state.memory.action)[:, 0]
    found, count = np.unique(known[:16], axis=0, return_counts=True)
    # 48 draws of 16 segments; without a search, nine joint actions share them.
    assert count.max() >= 12
    assert (np.asarray(taken)[:, 0] == found[count.argmax()]).all(-1).sum() < 6
    assert not known[16:].any(), "a row that holds no segment was written to"


def test_the_first_update_comes_as_soon_as_learn_start_segments_are_there_and_no_sooner() -> None:
    for n_envs, learn_start in ((1, 16), (3, 16), (5, 15), (8, 3), (7, 8)):
        asked = config.load([f"n_envs={n_envs}", f"learn_start={learn_start}", "buffer_size=128"])
        learner = build.learner(asked, build.environment(asked.env))
        before = learner.first_iteration * n_envs
        assert before < learn_start <= before + n_envs
