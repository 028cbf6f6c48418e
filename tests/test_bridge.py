"""Games on the host: what they play, how it is packed, and that it is learned from as ever."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff import config, explore, learner, rollout, sharding, train
from jaxvff.bridge.packing import Packer
from jaxvff.bridge.program import program
from jaxvff.envs.host.shared import Arrays
from jaxvff.plan import Group, Value
from jaxvff.types import HostEnv, Segment
from tests import toy
from tests.hosts import crew, on_toy, toy_game
from tests.lanes import params_of

SMALL = (
    "n_envs=4", "segment_length=14", "batch_size=8", "buffer_size=64", "learn_start=8",
    "utility=gru", "hidden_dim=8", "last_action=true", "epsilon_steps=400", "eval_episodes=6",
    "total_steps=2080", "eval_interval=1040", "method=qmix", "method.embed_dim=4",
    "method.hypernet_dim=8",
)  # fmt: skip


@contextmanager
def started(
    env: HostEnv, *overrides: str
) -> Iterator[tuple[train.Program, train.Carry, train.Lane]]:
    group = on_toy(env, *SMALL, *overrides)
    with program(group.config, env, group.n_lanes) as made:
        lane = sharding.place(group.lanes(), made.mesh)
        yield made, made.init(lane), lane


def stage(episodes: list[dict[str, np.ndarray]], results: np.ndarray) -> Arrays:
    """Arrays in which game e has just ended episode e."""
    n, (a, u) = len(episodes), episodes[0]["avail"].shape[1:]
    t = max(len(x["reward"]) for x in episodes)
    at = Arrays(
        obs=np.full((n, t, a, 3), np.nan, np.float32), state=np.full((n, t, 2), np.nan, np.float32),
        avail=np.zeros((n, t, a, u), bool), action=np.full((n, t, a), 77, np.int32),
        reward=np.full((n, t), np.nan, np.float32), active=np.ones(n, bool),
        slot=np.array([len(x["reward"]) - 1 for x in episodes], np.int32), ended=np.ones(n, bool),
        terminated=np.array([x["end"] for x in episodes]), results=results,
    )  # fmt: skip
    for e, x in enumerate(episodes):
        for field in ("obs", "state", "avail", "action", "reward"):
            getattr(at, field)[e, : len(x["reward"])] = x[field]
    return at


def random_episode(rng: np.random.Generator, length: int) -> dict[str, Any]:
    n = length + 1
    return {
        "obs": rng.normal(size=(n, 2, 3)).astype(np.float32), "end": bool(rng.integers(2)),
        "state": rng.normal(size=(n, 2)).astype(np.float32), "avail": rng.random((n, 2, 3)) < 0.5,
        "action": rng.integers(3, size=(n, 2)), "reward": np.append(rng.normal(size=length), 0.0),
    }  # fmt: skip


def test_packed_segments_hold_every_episode_whole_and_in_order() -> None:
    rng = np.random.default_rng(0)
    episodes = [random_episode(rng, int(rng.integers(1, 6))) for _ in range(200)]
    at = stage(episodes, rng.random((200, 1)).astype(np.float32))
    packer = Packer(toy.SPEC, ("win_rate",), n=3, n_slots=9)
    for e in range(200):
        packer.add(at, e)
    found: list[int] = []
    for batch, sums in packer.batches:
        inside = []
        for k in range(3):
            for first in np.flatnonzero(batch.is_first[k]):
                # Rewards are all different: the first one says which episode this is.
                e = int(np.flatnonzero(at.reward[:, 0] == batch.reward[k, first])[0])
                episode, n = episodes[e], len(episodes[e]["reward"])
                here = slice(first, first + n)
                for field in ("obs", "state", "avail", "action"):
                    np.testing.assert_array_equal(getattr(batch, field)[k, here], episode[field])
                np.testing.assert_array_equal(batch.mask[k, here], [True] * (n - 1) + [False])
                ends = [False] * (n - 2) + [episode["end"], False]
                np.testing.assert_array_equal(batch.terminated[k, here], ends)
                np.testing.assert_allclose(batch.reward[k, here], episode["reward"], rtol=1e-6)
                inside.append(e)
        assert sums["episodes"] == len(inside)
        np.testing.assert_allclose(
            sums["return"], sum(episodes[e]["reward"].sum() for e in inside), atol=1e-4
        )
        np.testing.assert_allclose(sums["win_rate"], at.results[inside].sum(), rtol=1e-5)
        found += inside
        assert batch.mask.sum() == sum(len(episodes[e]["reward"]) - 1 for e in inside)
    assert sorted(found) == list(range(len(found)))  # the last ones wait for a batch to be full
    assert len(found) > 180


def test_a_segment_of_whole_games_is_the_devices() -> None:
    """One segment, through the device's rollout and through the host's arrays: field by field."""
    segment = device_segment()
    (packed, _) = through_the_host(segment)
    used = np.zeros(len(segment.mask), bool)
    used[: int(np.flatnonzero(segment.mask)[-1]) + 2] = True
    for field in Segment._fields:
        mine, theirs = getattr(packed, field)[0], np.asarray(getattr(segment, field))
        np.testing.assert_array_equal(mine[used], theirs[used], err_msg=field)


def test_an_update_does_not_know_where_its_segments_come_from() -> None:
    """One executable, and bit for bit the same new parameters from either side."""
    one = on_toy(toy_game(), *SMALL, "n_envs=1", "learn_start=1", "batch_size=4").config
    learn = learner.make(one, toy_game())
    after = []
    segment = device_segment()
    host, _ = through_the_host(segment)
    device = jax.tree.map(lambda x: jnp.asarray(x)[None], segment)
    fresh = learn.init(jax.random.key(0), one.hyper())
    update = jax.jit(learn.learn).lower(fresh, device, (), one.hyper(), 0).compile()
    for segments in (device, host):
        state = fresh
        for i in range(5):
            state, metrics = update(state, segments, (), one.hyper(), i)
        assert metrics["loss"] > 0
        after.append(jax.tree.map(np.asarray, (state.params, state.opt_state)))
    jax.tree.map(np.testing.assert_array_equal, *after)


def device_segment() -> Segment:
    """A segment of the toy on the device, without the episode that its end cuts."""
    env = toy.make()
    one = config.load([*SMALL])
    model = learner.make_model(one, env)
    params = model.utility.init(jax.random.key(3))

    def act(key: Any, q: Any, avail: Any) -> Any:
        return explore.epsilon_greedy(key, q, avail, jnp.array(1.0))

    player = rollout.Player(env, model.utility, act, params, ())
    segment, _ = jax.jit(lambda k: rollout.on_device(player, k, 14))(jax.random.key(5))
    segment = jax.tree.map(np.array, segment)
    last = np.flatnonzero(segment.is_first)[-1]
    segment.mask[last:] = False
    return segment


def through_the_host(segment: Segment) -> tuple[Segment, Any]:
    starts = [i for i in np.flatnonzero(segment.is_first) if segment.mask[i]]
    episodes = []
    for first in starts:
        n = int(np.argmin(segment.mask[first:])) + 1
        here = slice(first, first + n)
        names = ("obs", "state", "avail", "action", "reward")
        episode = {name: np.asarray(getattr(segment, name))[here] for name in names}
        episodes.append({**episode, "end": bool(segment.terminated[here][-2])})
    episodes.append(episodes[-1])  # it does not fit: the batch before is full
    at = stage(episodes, np.zeros((len(episodes), 1), np.float32))
    packer = Packer(toy.SPEC, ("win_rate",), n=1, n_slots=14)
    for e in range(len(episodes)):
        packer.add(at, e)
    if not packer.batches:
        for _ in range(3):
            packer.add(at, len(episodes) - 1)
    batch, sums = packer.batches[0]
    extra = len(starts)
    firsts = np.flatnonzero(batch.is_first[0])
    if len(firsts) > extra:  # the copy did fit: it is none of the device's
        batch.mask[0, firsts[extra] :] = False
    return batch, sums


@pytest.mark.slow
def test_what_workers_play_follows_the_rules_of_the_device() -> None:
    """Every transition that was collected, against the toy's own rules."""
    from jaxvff.bridge.play import Brain, Collector
    from jaxvff.bridge.pool import Pool

    env = toy_game()
    group = on_toy(env, *SMALL, "seeds=2")
    one, lane = group.config, group.lanes()
    model = learner.make_model(one, env)
    params = jax.vmap(model.utility.init)(jax.random.split(jax.random.key(0), 2))
    with Pool(env, 8, [0]) as pool:
        brain = Brain(model.utility, explore.EXPLORERS[one.explore], lane.hyper, 4, 0)
        collector = Collector(one, env, brain, pool, 2)
        segments, sums = collector.collect(brain.take(params), np.zeros(2, np.int32))
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
    for team, pause in ((crew(workers=1), 0.0), (crew(workers=2), 0.002)):
        with started(toy_game(team, pause=pause), "total_steps=1040") as (made, carry, lane):
            for i in range(made.config.n_iterations):
                carry = made.advance(carry, lane, i, i + 1)
            after.append((params_of(carry), np.asarray(carry.state.env_steps)))
    jax.tree.map(np.testing.assert_array_equal, *after)


@pytest.mark.slow
def test_nothing_compiles_after_the_first_iterations() -> None:
    compiled: list[str] = []

    def on_event(name: str, seconds: float, **rest: Any) -> None:
        if name == "/jax/core/compile/backend_compile_duration":
            compiled.append(name)

    with started(toy_game(), "seeds=2") as (made, carry, lane):
        made = made._replace(advance=made.compile(carry, lane))
        carry = made.advance(carry, lane, 0, 2)
        made.evaluate(carry, lane)
        jax.monitoring.register_event_duration_secs_listener(on_event)
        try:
            carry = made.advance(carry, lane, 2, 20)
            made.evaluate(carry, lane)
            assert not compiled
            jax.jit(lambda x: x + 1)(jnp.zeros(3)).block_until_ready()
            assert compiled  # the listener does listen
        finally:
            jax.monitoring.clear_event_listeners()


@pytest.mark.slow
def test_evaluation_plays_as_many_episodes_of_every_game() -> None:
    with started(toy_game(), "seeds=2", "eval_episodes=6") as (made, carry, lane):
        metrics = made.evaluate(carry, lane)
        assert metrics["test_length"].shape == (2,)
        assert ((metrics["test_length"] >= 2) & (metrics["test_length"] <= 5)).all()
        again = made.evaluate(carry, lane)  # greedy, and the toy draws nothing
        np.testing.assert_array_equal(metrics["test_return"], again["test_return"])
        played = made.record(carry, lane, [1], 3)
        assert played.states.shape == (1, 3, 6, 2)
        assert played.length[0, 0] == metrics["test_length"][1]
        np.testing.assert_array_equal(played.states[0, 0, 0], [0, 0])


@pytest.mark.slow
def test_learning_on_the_host_ends_where_it_ends_on_the_device() -> None:
    """VDN on the toy: the same greedy return, which is better than what it began with."""
    group = on_toy(
        toy_game(), *[o for o in SMALL if not o.startswith("method")], "method=vdn",
        "total_steps=20800", "eval_interval=20800", "hidden_dim=32", "batch_size=32",
        "epsilon_steps=5000", "gamma=1.0",
    )  # fmt: skip
    made = train.program(group.config, toy.make(), 1)
    lane = sharding.place(group.lanes(), made.mesh)
    *_, (_, _, on_device) = train.run(made, made.init(lane), lane)
    with program(group.config, toy_game(), 1) as made:
        carry = made.init(lane)
        untrained = made.evaluate(carry, lane)["test_return"]
        *_, (_, _, on_host) = train.run(made, carry, lane)
    assert on_host.metrics["test_return"] == on_device.metrics["test_return"] > untrained


def test_a_group_of_the_host_is_planned_like_any_other() -> None:
    group = Group([Value({}, on_toy(toy_game(), *SMALL).config, toy_game())])
    assert group.fingerprint() != on_toy(toy_game(fault="die"), *SMALL, "lr=0.1").fingerprint()
