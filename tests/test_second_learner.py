"""A learner of another kind, to which nothing outside of it has to be adapted.

It climbs hills: no gradient, loss, replay or target network, a state without names in common with
the replay learner's, and a PRNG key of its own. Here the row `learner=replay` leads to it.
"""

from __future__ import annotations

import ast
import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.cli import bench
from jaxvff.cli.main import main
from jaxvff.core import sizes
from jaxvff.core.types import Array, Env, Params, Traced, Tree
from jaxvff.learning.learner import Learner, LearnInput, LearnOutput, Parts, Size, init_params
from jaxvff.learning.options import LEARNERS, LearningOptions
from jaxvff.runs import execute, learned, memory
from jaxvff.runs import folder as runs
from jaxvff.runs.execute import Watcher
from jaxvff.runs.plan import plan
from jaxvff.training import loop
from tests import toy
from tests.hosts import SMALL, job_in, toy_game
from tests.lanes import start, start_in

ROOT = Path(__file__).resolve().parent.parent

# Greedy play of an easy game: the return of a set of parameters is known after one iteration.
GAME = ("env=matrix/file", "env.payoff=[[2,1],[1,0]]", "method=vdn", "hidden_dim=8", "seeds=2",
        "epsilon_start=0", "epsilon_end=0", "lr=0.3")  # fmt: skip
RUN = (*GAME, "total_steps=200", "eval_interval=40")


def make(parts: Parts, options: LearningOptions) -> Learner:
    """Hill climbing on the mean reward: keep a random change of the parameters if it earned more.

    `lr` is the size of a change.
    """
    model = parts.model

    def init(key: Array, traced: Traced) -> dict[str, Tree]:
        params = init_params(model, key)
        best = (params, jnp.float32(-jnp.inf))
        return {"best": best, "tried": params, "dice": jax.random.fold_in(key, 1), "counts": [0]}

    def acting(state: dict[str, Tree]) -> Params:
        return state["tried"]

    def learn(state: dict[str, Tree], x: LearnInput) -> LearnOutput:
        mask = x.segments.mask
        earned = jnp.sum(jnp.where(mask, x.segments.reward, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
        better = earned > state["best"][1]
        best = select(better, (state["tried"], earned), state["best"])
        dice, key = jax.random.split(state["dice"])
        tried = jax.tree.map(lambda p, e: p + x.traced.lr * e, best[0], noise(key, best[0]))
        after = {"best": best, "tried": tried, "dice": dice, "counts": [state["counts"][0] + 1]}
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(p)) for p in jax.tree.leaves(tried)]))
        running = x.running & finite
        state = select(running, after, state)
        return LearnOutput(state, {"best": state["best"][1], "learned": jnp.ones(())}, running)

    def size(state: dict[str, Tree]) -> list[Size]:
        return [Size("climber", sizes.nbytes(state), "two sets of parameters", "hidden_dim")]

    return Learner(model, init, acting, learn, size, n_keys=0, first_iteration=0)


def select(chosen: Array, a: Tree, b: Tree) -> Tree:
    return jax.tree.map(lambda x, y: jnp.where(chosen, x, y), a, b)


def noise(key: Array, like: Params) -> Params:
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, drawn)


@pytest.fixture(autouse=True, scope="module")
def second_learner() -> Iterator[None]:
    """What is asked for as `learner=replay` is the learner of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LEARNERS.own, "replay", f"{__name__}:make")
        yield


def plain(tree: Tree) -> Tree:
    """NumPy arrays; PRNG keys as integers."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: np.array(jax.random.key_data(x) if is_key(x) else x), tree)


def same(a: Tree, b: Tree) -> None:
    jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))


def run(folder: Path, *, stop_after: int | None = None, resume: bool = False) -> list:
    """Train in a run folder; with `stop_after`, interrupt after so many looks at Ctrl-C."""
    if resume:
        _, jobs = runs.old_run(folder, "train")
    else:
        _, jobs = runs.new_run([*RUN, f"run_dir={folder}"])
    looks = iter(range(10**9))
    watcher = Watcher(stop_early=lambda: stop_after is not None and next(looks) >= stop_after)
    return list(execute.execute(folder, jobs, resume=resume, watcher=watcher))


def newest(folder: Path) -> tuple[int, Tree]:
    """The iteration and the carry of the checkpoint."""
    _, (job,) = runs.old_run(folder)
    with learned.open_program(job) as program:
        trained = learned.newest(folder, job, program)
    return trained.iteration, trained.carry


def lines(folder: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in found]


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, second_learner: None) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(folder)
    return folder


def test_it_learns(straight: Path) -> None:
    best = np.array([line["best"] for line in lines(straight)])
    assert (np.diff(best, axis=0) >= 0).all()
    assert (best[-1] == 2).all(), "the largest payoff was not found"
    assert (best[0] < 2).any(), "every seed began at the optimum, so this proves nothing"
    iteration, carry = newest(straight)
    assert iteration == 200
    assert carry.state.learner["counts"][0].tolist() == [200, 200]


def test_a_resumed_run_equals_a_straight_one_bit_for_bit(straight: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, stop_after=0)
    assert 0 < newest(folder)[0] < 200
    run(folder, resume=True)
    assert lines(folder) == lines(straight)
    (n, carry), (n_straight, straight_carry) = newest(folder), newest(straight)
    assert n == n_straight == 200
    same(carry, straight_carry)


def test_evaluate_plays_with_what_it_learned(straight: Path, capsys) -> None:
    assert main(["evaluate", f"run={straight}"]) == 0
    assert "greedy-optimal" in capsys.readouterr().out
    _, (job,) = runs.old_run(straight)
    with learned.open_program(job) as program:
        trained = learned.newest(straight, job, program)
        metrics = loop.report_metrics(program, trained.carry, trained.lane)
    np.testing.assert_allclose(metrics["test_return"], lines(straight)[-1]["test_return"])


def test_what_it_needs_in_memory_is_what_it_says() -> None:
    (job,) = plan(GAME)
    need = memory.need(job)
    _, carry, _ = start(*GAME)
    assert need.total == sizes.nbytes(carry.state.learner)
    assert need.parts == [Size("climber", need.lane, "two sets of parameters", "hidden_dim")]
    assert memory.describe(need).endswith("climber: two sets of parameters")


def test_bench_measures_it() -> None:
    (job,) = plan(GAME)
    row = bench.measure(job, seconds=0.01)
    assert row["part"] == "climber"
    assert row["part_bytes"] == memory.need(job).lane < row["state_bytes"]
    assert row["seed_steps_per_s"] > 0


@functools.cache
def poisoned() -> Env:
    """The toy, whose reward is NaN in a share of the steps; the share is in its params."""
    env = toy.make()

    def step(key: Any, state: Any, action: Any, rate: Any) -> Any:
        state, outcome = env.step(key, state, action, ())
        bad = jax.random.uniform(key) < rate
        return state, outcome._replace(reward=jnp.where(bad, jnp.nan, outcome.reward))

    return env._replace(
        params=jnp.float32(0.0),
        reset=lambda key, rate: env.reset(key, ()),
        step=step,
        observe=lambda state, rate: env.observe(state, ()),
    )


def test_a_reward_that_is_nan_stops_its_own_lane() -> None:
    """Its learner's state stays as it was; the other lane goes on as if nothing were."""
    healthy, sick = 0, 1
    args = ("method=vdn", "utility=mlp", "seeds=1", "hidden_dim=8", "segment_length=12", "lr=0.1",
            "total_steps=100000")  # fmt: skip
    envs = [poisoned()._replace(params=jnp.float32(rate)) for rate in (0.0, 0.02)]
    program, carry, lane = start_in(envs, *args)
    before, stopped_at = plain(carry.state.learner), -1
    for i in range(30):
        carry = program.advance(carry, lane, i, i + 1)
        now, stopped = plain(carry.state.learner), int(carry.state.stopped_at[sick])
        if stopped_at == -1 and stopped >= 0:
            stopped_at, n_learned = stopped, i
        if stopped == -1:
            before = now
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[sick], b[sick]), now, before)
    assert stopped_at > 0
    assert n_learned > 0
    assert now["counts"][0].tolist() == [30, n_learned]
    metrics = loop.report_metrics(program, carry, lane)
    assert np.isnan(metrics["best"][sick])
    assert np.isfinite(metrics["best"][healthy])

    # The same program without the poison.
    rates = jax.device_put(jnp.zeros(2), lane.env_params.sharding)
    lane = lane._replace(env_params=rates)
    well = plain(program.advance(program.init(lane), lane, 0, 30).state)
    assert (well.stopped_at == -1).all()
    first = lambda tree: jax.tree.map(lambda x: x[healthy], tree)
    same(first(plain(carry.state)), first(well))


def test_a_learner_can_stop_its_own_lane() -> None:
    """With a change of 3e38 the parameters overflow in the first iteration."""
    args = [arg for arg in GAME if not arg.startswith(("lr=", "seeds="))]
    program, carry, lane = start(*args, "seeds=1", "sweep.lr=[0.3,3e38]")
    carry = program.advance(carry, lane, 0, 10)
    assert carry.state.stopped_at.tolist() == [-1, 1]
    assert carry.state.learner["counts"][0].tolist() == [10, 0]
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(carry.state.learner["tried"]))


@pytest.mark.slow
def test_it_learns_from_games_on_the_host(tmp_path: Path) -> None:
    """Through the same calls: train, checkpoint, restore, evaluate, record."""
    asked = [x for x in SMALL if not x.startswith(("total_steps", "eval_interval"))]
    job = job_in(toy_game(), *asked, "seeds=2", "total_steps=1040", "eval_interval=520", "lr=0.1")
    ((first, *_),) = execute.execute(tmp_path, [job])
    assert first.step == 1040
    assert (first.metrics["best"] > -2.5).all()
    assert (first.metrics["stopped_at"] == -1).all()
    assert [line["step"] for line in lines(tmp_path)] == [520, 1040]
    with learned.open_program(job) as program:
        trained = learned.newest(tmp_path, job, program)
        assert trained.carry.state.learner["counts"][0].tolist() == [20, 20]
        metrics = program.evaluate(trained.carry, trained.lane)
        played = program.record(trained.carry, trained.lane, [1], 2)
    # Greedy play of the toy draws nothing.
    np.testing.assert_array_equal(metrics["test_return"], first.metrics["test_return"])
    np.testing.assert_allclose(played.return_[0], metrics["test_return"][1], rtol=1e-6)


def test_nobody_looks_into_the_state_of_a_learner() -> None:
    """Of anything called `learner`, other rooms use the fields of Learner alone."""
    rooms = ("api", "cli", "lab", "playing", "reports", "runs", "settings", "training")
    for path in (path for room in rooms for path in (ROOT / "jaxvff" / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = node.value
            name = getattr(owner, "attr", getattr(owner, "id", ""))
            if (
                name == "learner"
            ):  # `build.learner` and jaxvff.learning.learner are functions, types
                assert node.attr in Learner._fields, f"{path}: {ast.unparse(node)}"
