"""Games on the host: what is played, how it is packed, and that the same update learns from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec, HostEnv, Params, Segment
from jaxvff.envs import hosted
from jaxvff.envs.host.shared import Arrays
from jaxvff.learning.learner import init_params
from jaxvff.losses.contract import Model
from jaxvff.playing import explore, rollout
from jaxvff.playing.host.packing import Batch, Packer
from jaxvff.playing.host.policy import BatchedPolicy
from jaxvff.playing.host.pool import Pool
from jaxvff.playing.options import EXPLORERS
from jaxvff.settings import build, config
from jaxvff.training import loop, sharding
from jaxvff.training.host import HostLane, host_program
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program, device_program
from tests import toy
from tests.hosts import SMALL, SMALL_RUN, crew, job_in, toy_game
from tests.lanes import params_of


@contextmanager
def started(env: HostEnv, *overrides: str) -> Iterator[tuple[Program, Carry, Lane]]:
    job = job_in(env, *SMALL, *overrides)
    with host_program(job.config, env, job.n_lanes) as program:
        lane = sharding.spread(job.lanes(), program.mesh)
        yield program, program.init(lane), lane


def fresh_params(model: Model, n_lanes: int) -> Params:
    """What teams act with, of as many lanes."""
    return jax.vmap(partial(init_params, model))(jax.random.split(jax.random.key(0), n_lanes))


def stage(episodes: list[dict[str, np.ndarray]], results: np.ndarray) -> Arrays:
    """The pool's arrays at a moment when game e has just ended episode e."""
    n, (a, u) = len(episodes), episodes[0]["avail"].shape[1:]
    t = max(len(x["reward"]) for x in episodes)
    staged = Arrays(
        obs=np.full((n, t, a, 3), np.nan, np.float32),
        state=np.full((n, t, 2), np.nan, np.float32),
        avail=np.zeros((n, t, a, u), bool),
        action=np.full((n, t, a), 77, np.int32),
        reward=np.full((n, t), np.nan, np.float32),
        active=np.ones(n, bool),
        seed=np.zeros(n, np.int32),
        slot=np.array([len(x["reward"]) - 1 for x in episodes], np.int32),
        ended=np.ones(n, bool),
        terminated=np.array([x["terminated"] for x in episodes]),
        results=results,
    )
    for e, x in enumerate(episodes):
        for field in ("obs", "state", "avail", "action", "reward"):
            getattr(staged, field)[e, : len(x["reward"])] = x[field]
    return staged


def random_episode(rng: np.random.Generator, length: int) -> dict[str, Any]:
    n = length + 1
    return {
        "obs": rng.normal(size=(n, 2, 3)).astype(np.float32),
        "terminated": bool(rng.integers(2)),
        "state": rng.normal(size=(n, 2)).astype(np.float32),
        "avail": rng.random((n, 2, 3)) < 0.5,
        "action": rng.integers(3, size=(n, 2)),
        "reward": np.append(rng.normal(size=length), 0.0),
    }


def test_packed_segments_hold_every_episode_whole_and_in_order() -> None:
    rng = np.random.default_rng(0)
    episodes = [random_episode(rng, int(rng.integers(1, 6))) for _ in range(200)]
    staged = stage(episodes, rng.random((200, 1)).astype(np.float32))
    packer = Packer(toy.SPEC, ("win_rate",), n_segments=3, n_slots=9)
    for e in range(200):
        packer.add(staged, e)
    packed: list[int] = []
    for segments, sums in packer.batches:
        inside = []
        for k in range(3):
            for first in np.flatnonzero(segments.is_first[k]):
                # Rewards are all different: the first one says which episode this is.
                e = int(np.flatnonzero(staged.reward[:, 0] == segments.reward[k, first])[0])
                episode, n = episodes[e], len(episodes[e]["reward"])
                here = slice(first, first + n)
                for field in ("obs", "state", "avail", "action"):
                    np.testing.assert_array_equal(getattr(segments, field)[k, here], episode[field])
                np.testing.assert_array_equal(segments.mask[k, here], [True] * (n - 1) + [False])
                ends = [False] * (n - 2) + [episode["terminated"], False]
                np.testing.assert_array_equal(segments.terminated[k, here], ends)
                np.testing.assert_allclose(segments.reward[k, here], episode["reward"], rtol=1e-6)
                inside.append(e)
        assert sums["episodes"] == len(inside)
        np.testing.assert_allclose(
            sums["return"], sum(episodes[e]["reward"].sum() for e in inside), atol=1e-4
        )
        np.testing.assert_allclose(sums["win_rate"], staged.results[inside].sum(), rtol=1e-5)
        packed += inside
        assert segments.mask.sum() == sum(len(episodes[e]["reward"]) - 1 for e in inside)
    # The last episodes are in segments that are not a batch yet.
    assert sorted(packed) == list(range(len(packed)))
    assert len(packed) > 180


def test_the_host_packs_episodes_into_the_segment_that_the_device_collects() -> None:
    """A segment of the device's rollout, its episodes packed again on the host: field by field."""
    segment = device_segment()
    packed = packed_on_the_host(segment).segments
    used = np.zeros(len(segment.mask), bool)
    used[: int(np.flatnonzero(segment.mask)[-1]) + 2] = True
    for field in Segment._fields[:-2]:  # `before` and `context` are of some runs alone
        host, device = getattr(packed, field)[0], np.asarray(getattr(segment, field))
        np.testing.assert_array_equal(host[used], device[used], err_msg=field)


@pytest.mark.slow
def test_an_update_does_not_know_where_its_segments_come_from() -> None:
    """One executable, and bit for bit the same new parameters from either side."""
    job = job_in(toy_game(), *SMALL, "n_envs=1", "learn_start=1", "batch_size=4")
    host_lane = HostLane(job.config, job.env, build.learner(job.config, job.env))
    lane = jax.tree.map(lambda x: x[0], job.lanes())
    on_host = packed_on_the_host(device_segment())
    on_device = on_host._replace(
        segments=jax.tree.map(lambda x: jnp.asarray(x)[None], device_segment())
    )
    fresh = host_lane.init(lane).state
    update = jax.jit(host_lane.iterate).lower(fresh, lane, on_device, 0).compile()
    after = []
    for batch in (on_device, on_host):
        state = fresh
        for i in range(5):
            state, metrics = update(state, lane, batch, i)
        assert metrics["loss"] > 0
        learned = state.learner
        after.append(jax.tree.map(np.asarray, (learned.params, learned.opt_state)))
    jax.tree.map(np.testing.assert_array_equal, *after)


def device_segment() -> Segment:
    """A segment of the toy on the device, without the episode that its end cuts."""
    env = toy.make()
    model = build.model(config.load(SMALL), env)
    params = model.utility.init(jax.random.key(3))

    def act(key: Any, q: Any, avail: Any) -> Any:
        return explore.epsilon_greedy(key, q, avail, jnp.array(1.0))

    player = rollout.Player(env=env, utility=model.utility, act=act, params=params, env_params=())
    segment, _ = jax.jit(lambda k: rollout.on_device(player, k, 14))(jax.random.key(5))
    segment = jax.tree.map(np.array, segment)
    last = np.flatnonzero(segment.is_first)[-1]
    segment.mask[last:] = False
    return segment


def packed_on_the_host(segment: Segment) -> Batch:
    """The batch of one segment that holds the episodes of a segment from the device."""
    starts = [i for i in np.flatnonzero(segment.is_first) if segment.mask[i]]
    episodes = []
    for first in starts:
        n = int(np.argmin(segment.mask[first:])) + 1
        here = slice(first, first + n)
        names = ("obs", "state", "avail", "action", "reward")
        episode = {name: np.asarray(getattr(segment, name))[here] for name in names}
        episodes.append({**episode, "terminated": bool(segment.terminated[here][-2])})
    staged = stage(episodes, np.zeros((len(episodes), 1), np.float32))
    packer = Packer(toy.SPEC, ("win_rate",), n_segments=1, n_slots=14)
    for e in range(len(episodes)):
        packer.add(staged, e)
    while not packer.batches:  # copies of the last episode, until one does not fit
        packer.add(staged, len(episodes) - 1)
    batch = packer.batches[0]
    firsts = np.flatnonzero(batch.segments.is_first[0])
    if len(firsts) > len(starts):  # copies that did fit are not the device's
        batch.segments.mask[0, firsts[len(starts)] :] = False
    return batch


def test_what_is_drawn_at_random_differs_between_lanes_games_agents_and_steps() -> None:
    """At ε = 1 two agents, or one in two steps, take the same of 3 actions in a third of cases."""
    env = toy_game()
    job = job_in(env, *SMALL, "seeds=2", "epsilon_end=1.0")
    model, explorer = build.model(job.config, env), EXPLORERS["epsilon_greedy"]
    policy = BatchedPolicy(model, explorer, job.lanes().traced, n_games=4, seed=[0])
    params = policy.copy_params(fresh_params(model, 2))
    rng = np.random.default_rng(0)
    staged = stage([random_episode(rng, 1) for _ in range(8)], np.zeros((8, 1), np.float32))
    staged.avail[:], staged.slot[:] = True, 0
    drawn = []
    for _ in range(400):
        policy.act(params, np.zeros(2, np.int32), staged, np.arange(8))
        drawn.append(staged.action[:, 0].ravel())
    actions = np.array(drawn)  # [steps, lanes * games * agents]
    same = np.mean(actions[:, :, None] == actions[:, None], axis=0)[~np.eye(16, dtype=bool)]
    later = np.mean(actions[1:] == actions[:-1], axis=0)
    # Five standard errors of a share of 400.
    assert np.abs(np.append(same, later) - 1 / 3).max() < 5 * np.sqrt(2 / 9 / 400)


@pytest.mark.slow
def test_what_workers_play_follows_the_rules_of_the_device() -> None:
    """Every transition that was collected, against the toy's own rules."""
    from jaxvff.playing.host.play import Collector

    env = toy_game()
    job = job_in(env, *SMALL, "seeds=2")
    model, explorer = build.model(job.config, env), EXPLORERS[job.config.explore]
    params = fresh_params(model, 2)
    with Pool(env, 8, [0]) as pool:
        policy = BatchedPolicy(model, explorer, job.lanes().traced, n_games=4, seed=[0])
        collector = Collector(job.config, env, policy=policy, pool=pool, n_lanes=2)
        segments, sums = collector.collect(policy.copy_params(params), np.zeros(2, np.int32))
    assert segments.obs.shape == (2, 4, 14, 2, 3)
    transitions = 0
    for k, n in np.ndindex(2, 4):
        s = jax.tree.map(lambda x, at=(k, n): x[at], segments)
        count = total = 0
        for t in np.flatnonzero(s.mask):
            if s.is_first[t]:
                count = total = 0
            np.testing.assert_array_equal(s.state[t], [count, total])
            assert s.avail[t, np.arange(2), s.action[t]].all()
            count, total, reward, ended, _ = toy.rules(count, total, s.action[t])
            assert s.reward[t] == np.float32(reward)
            assert s.terminated[t] == ended
            transitions += 1
    assert transitions > 60
    assert sums["episodes"].min() > 8
    # At epsilon 1 the two lanes do not play the same.
    assert not np.array_equal(segments.action[0], segments.action[1])


@pytest.mark.slow
def test_a_run_does_not_depend_on_the_number_of_workers_or_on_who_is_faster() -> None:
    after = []
    for workers, pause in ((crew(workers=1), 0.0), (crew(workers=2), 0.002)):
        with started(toy_game(workers, pause=pause), "total_steps=1040") as (program, carry, lane):
            for i in range(program.config.n_iterations):
                carry = program.advance(carry, lane, i, i + 1)
            after.append((params_of(carry), np.asarray(carry.state.env_steps)))
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.mark.slow
def test_a_run_that_goes_on_from_a_checkpoint_is_the_run_that_did_not_stop() -> None:
    """A game that draws; checkpoints after 10, 20 and 30 of 40 iterations."""

    def begun() -> AbstractContextManager[tuple[Program, Carry, Lane]]:
        return started(toy_game(draws=True), "checkpoint_interval=520")

    def told(program: Program, carry: Carry, lane: Lane) -> tuple:
        return params_of(carry), carry.totals, program.evaluate(carry, lane)

    with begun() as (program, carry, lane):
        carry = program.advance(carry, lane, 0, 40)
        whole = told(program, carry, lane)
        jax.tree.map(np.testing.assert_array_equal, whole, told(program, carry, lane))

    def in_two(cut: int) -> tuple:
        with begun() as (program, carry, lane):
            saved = program.advance(carry, lane, 0, cut)
        with begun() as (program, _, lane):
            return told(program, program.advance(saved, lane, cut, 40), lane)

    jax.tree.map(np.testing.assert_array_equal, whole, in_two(20))
    # Where no checkpoint is due, a run that goes on has games of its own.
    assert whole[1]["train_return"] != in_two(15)[1]["train_return"]


@pytest.mark.slow
def test_nothing_compiles_after_the_first_iterations() -> None:
    compiled: list[str] = []

    def on_event(name: str, seconds: float, **rest: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    with started(toy_game(), "seeds=2") as (program, carry, lane):
        program = program.compile(carry, lane)
        carry = program.advance(carry, lane, 0, 2)
        program.evaluate(carry, lane)
        jax.monitoring.register_event_duration_secs_listener(on_event)
        try:
            carry = program.advance(carry, lane, 2, 20)
            program.evaluate(carry, lane)
            assert not compiled
            jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
            assert compiled  # the listener does listen
        finally:
            jax.monitoring.clear_event_listeners()


@pytest.mark.slow
def test_evaluation_plays_as_many_episodes_of_every_game() -> None:
    with started(toy_game(), "seeds=2", "eval_episodes=6") as (program, carry, lane):
        metrics = program.evaluate(carry, lane)
        assert metrics["test_length"].shape == (2,)
        assert ((metrics["test_length"] >= 2) & (metrics["test_length"] <= 5)).all()
        again = program.evaluate(carry, lane)  # greedy, and the toy draws nothing
        np.testing.assert_array_equal(metrics["test_return"], again["test_return"])
        played = program.record(carry, lane, [1], 3)
        assert played.states.shape == (1, 3, 6, 2)
        assert played.length[0, 0] == metrics["test_length"][1]
        np.testing.assert_array_equal(played.states[0, 0, 0], [0, 0])


@pytest.mark.slow
def test_learning_on_the_host_ends_where_it_ends_on_the_device() -> None:
    """VDN on the toy: the same greedy return, which is better than what it began with."""
    job = job_in(
        toy_game(),
        *SMALL_RUN,
        "method=vdn",
        "total_steps=20800",
        "eval_interval=20800",
        "hidden_dim=32",
        "batch_size=32",
        "epsilon_steps=5000",
        "gamma=1.0",
    )
    program = device_program(job.config, toy.make(), 1)
    lane = sharding.spread(job.lanes(), program.mesh)
    *_, (_, _, on_device) = loop.run(program, program.init(lane), lane)
    with host_program(job.config, toy_game(), 1) as program:
        carry = program.init(lane)
        untrained = program.evaluate(carry, lane)["test_return"]
        *_, (_, _, on_host) = loop.run(program, carry, lane)
    assert on_host.metrics["test_return"] == on_device.metrics["test_return"] > untrained


def test_a_job_on_the_host_has_a_fingerprint_like_any_other() -> None:
    job, other = job_in(toy_game(), *SMALL), job_in(toy_game(fault="die"), *SMALL, "lr=0.1")
    assert job.fingerprint() == job_in(toy_game(), *SMALL).fingerprint()
    assert job.fingerprint() != other.fingerprint()


def test_a_game_on_the_host_begins_every_episode_without_a_memory() -> None:
    """Two games see the same start: one is fresh, the other one has played before."""
    env = toy_game()
    job = job_in(env, *SMALL, "n_envs=2")
    model = build.model(job.config, env)

    def show_values(key: Any, q: Any, avail: Any, traced: Any, env_steps: Any) -> Any:
        return jnp.round(1e5 * q[:, 0]).astype(jnp.int32)  # in place of actions

    policy = BatchedPolicy(model, show_values, job.lanes().traced, n_games=2, seed=[0])
    params, env_steps = policy.copy_params(fresh_params(model, 1)), np.zeros(1, np.int32)
    rng = np.random.default_rng(0)
    staged = stage([random_episode(rng, 4) for _ in range(2)], np.zeros((2, 1), np.float32))
    staged.avail[:] = True
    staged.obs[:] = staged.obs[0, 0]
    for slot in range(3):
        staged.slot[:] = slot
        policy.act(params, env_steps, staged, np.array([0]))
    first, later = staged.action[0, 0].copy(), staged.action[0, 1:3].copy()
    assert (later != first).all(), "it remembers nothing, so there is nothing to forget"
    staged.slot[:] = 0
    policy.act(params, env_steps, staged, np.array([0, 1]))
    np.testing.assert_array_equal(staged.action[:, 0], [first, first])


SEEDED = """
import numpy as np
from jaxvff_host.game import Game, Outcome, Spec, View


class Seeded(Game):
    spec = Spec(1, 2, 1, 1, 5, ())

    def __init__(self, seed):
        self.seed = seed

    def reset(self):
        state = np.array([self.seed % 65521], np.float32)
        return View(np.zeros((1, 1), np.float32), state, np.ones((1, 2), bool))

    def step(self, action):
        return self.reset(), Outcome(0.0, False, False)


def make(seed):
    return Seeded(seed)
"""


def test_all_games_of_a_pool_have_seeds_of_their_own_and_always_the_same(tmp_path: Path) -> None:
    file = tmp_path / "seeded.py"
    file.write_text(SEEDED)
    env = HostEnv(EnvSpec(1, 2, 1, 1, 5), (), str(file), {}, crew(), "seeded")
    drawn = []
    for seed in ([3, 0], [3, 0], [3, 1]):
        with Pool(env, 6, seed) as pool:
            drawn.append(pool.staged.state[:, 0, 0].tolist())
    assert drawn[0] == drawn[1]
    assert len({*drawn[0], *drawn[2]}) == 12


def test_an_evaluation_on_the_host_is_greedy_and_of_the_parameters_it_is_given() -> None:
    """The toy draws nothing: with the same parameters, every greedy episode is the same one."""
    exploring = ("epsilon_start=1", "epsilon_end=1", "n_envs=2")
    with started(toy_game(), *exploring) as (program, carry, lane):
        played = program.record(carry, lane, [0], 6)
        tested = program.evaluate(carry, lane)
        learned = carry.state.learner
        utility = jax.tree.map(lambda x: -2 * x, learned.params["utility"])
        learned = learned._replace(params=learned.params | {"utility": utility})
        changed = carry._replace(state=carry.state._replace(learner=learned))
        other, again = (program.evaluate(changed, lane)["test_return"][0] for _ in range(2))
    assert len(np.unique(played.return_)) == len(np.unique(played.length)) == 1
    assert tested["test_return"][0] == played.return_[0, 0]
    assert tested["test_length"][0] == played.length[0, 0]
    assert other == again != tested["test_return"][0]


def test_a_game_that_does_not_start_is_told_of_while_it_is_waited_for(
    tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(hosted, "TELL_AFTER_S", 0.1)
    monkeypatch.setattr(hosted, "PROBE_TIMEOUT_S", 1.0)
    silent = tmp_path / "python"
    silent.write_text("#!/bin/sh\necho looking for a licence\nexec sleep 60\n")
    silent.chmod(0o755)
    with pytest.raises(UserError, match=r"did not start within 1 s; it printed last: looking for"):
        hosted._ask("toy", "{}", str(silent))
    assert capsys.readouterr().err == "waiting for toy to start, up to 1 s; Ctrl-C ends it\n"
