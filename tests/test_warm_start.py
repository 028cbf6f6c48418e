"""`init_from=`: lanes begin with the parameters of another run or of a policy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvff.api import policies
from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.envs import ENVS, matrix
from jaxvff.policies import files
from jaxvff.runs import execute, learned, warm_start
from jaxvff.runs import folder as runs
from jaxvff.runs.execute import Watcher
from jaxvff.runs.plan import Job
from jaxvff.runs.start import Start
from tests.command_line import once

TINY = ["method=qmix", "seeds=2", "hidden_dim=8", "batch_size=8", "learn_start=8", "buffer_size=32",
        "total_steps=60", "eval_interval=20", "eval_episodes=2"]  # fmt: skip


def train(folder: Path, *overrides: str) -> list[Job]:
    jobs = runs.new_run(once([*TINY, *overrides, f"run_dir={folder}"]))[1]
    list(execute.execute(folder, jobs))
    return jobs


def params(folder: Path) -> dict[str, np.ndarray]:
    """The newest parameters of a run, `[K, ...]` by name."""
    (job,) = runs.old_run(folder)[1]
    with learned.open_program(job) as program:
        trained = learned.newest(folder, job, program)
        assert trained is not None
        return files.flat(program.learner.acting(trained.carry.state.learner))


def lines(folder: Path) -> list[dict]:
    read = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in read]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "qmix"
    train(folder)
    return folder


@pytest.fixture(scope="module")
def policy(source: Path, tmp_path_factory) -> Path:
    """That of seed 1."""
    folder = tmp_path_factory.mktemp("policy")
    files.save_policy(policies.of_run(source, runs.old_run(source)[1], 1, {}), folder)
    return folder


def begun(source: Path, folder: Path, *overrides: str) -> dict[str, np.ndarray]:
    """The parameters `[K, ...]` that a run begins with."""
    (job,) = warm_started(source, folder, *overrides)
    with learned.open_program(job) as program:
        carry = warm_start.begun(job, program, program.init(job.lanes()))
        jax.tree.map(
            np.testing.assert_array_equal,
            carry.state.learner.params,
            carry.state.learner.target_params,
        )
        return files.flat(program.learner.acting(carry.state.learner))


def test_each_seed_begins_with_the_parameters_of_its_number(source: Path, tmp_path: Path) -> None:
    """Three seeds from 1 on, of a source with 0 and 1: 1 has its own, 2 and 3 come in turn."""
    before, after = params(source), begun(source, tmp_path / "run", "seed=1", "seeds=3")
    assert any(name.startswith("mixer/") for name in before)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array[[1, 0, 1]], err_msg=name)


@pytest.mark.slow
def test_of_another_method_the_utilities_alone_are_taken(source: Path, tmp_path: Path) -> None:
    before, warm = params(source), begun(source, tmp_path / "run", "method=cw_qmix")
    assert {name.partition("/")[0] for name in warm} == {"utility", "mixer", "central"}
    for name in warm:
        taken = name in before and np.array_equal(warm[name], before[name])
        assert taken == name.startswith("utility/"), name


@pytest.mark.parametrize("learner", ["replay", "parallel"])
def test_of_a_policy_every_seed_takes_the_same(
    learner: str, source: Path, policy: Path, tmp_path: Path
) -> None:
    own = ["learner=parallel", "n_envs=4"] if learner == "parallel" else []
    before, after = params(source), begun(policy, tmp_path / "run", *own)
    for name in (name for name in before if name.startswith("utility/")):
        np.testing.assert_array_equal(after[name], before[name][[1, 1]], err_msg=name)


@pytest.mark.slow
def test_learning_goes_on_from_there(source: Path, tmp_path: Path) -> None:
    (job,) = warm_started(source, tmp_path / "run")
    with learned.open_program(job) as program:
        lane = job.lanes()
        carry = warm_start.begun(job, program, program.init(lane))
        before = files.flat(jax.tree.map(np.array, carry.state.learner.params))
        after = files.flat(program.advance(carry, lane, 0, 12).state.learner.params)
    assert all(np.abs(after[name] - before[name]).max() > 0 for name in before if "kernel" in name)


def warm_started(source: Path, folder: Path, *overrides: str) -> list[Job]:
    return runs.new_run(once([*TINY, f"init_from={source}", *overrides, f"run_dir={folder}"]))[1]


@pytest.mark.slow
def test_a_warm_run_resumes_bit_for_bit_without_its_source(source: Path, tmp_path: Path) -> None:
    train(tmp_path / "straight", f"init_from={source}")
    shutil.copytree(source, tmp_path / "copy")
    jobs = warm_started(tmp_path / "copy", tmp_path / "cut")
    looks = iter(range(100))
    list(execute.execute(tmp_path / "cut", jobs, watcher=Watcher(lambda: next(looks) >= 3)))
    assert lines(tmp_path / "cut") != lines(tmp_path / "straight")
    shutil.rmtree(tmp_path / "copy")
    jobs = runs.resumed_run(tmp_path / "cut", "train")
    list(execute.execute(tmp_path / "cut", jobs, resume=True))
    assert lines(tmp_path / "cut") == lines(tmp_path / "straight")


@pytest.mark.slow
def test_a_warm_run_that_never_began_can_begin_without_its_source(
    source: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "copy")
    warm_started(tmp_path / "copy", tmp_path / "run")
    shutil.rmtree(tmp_path / "copy")
    list(execute.execute(tmp_path / "run", runs.resumed_run(tmp_path / "run", "train")))
    train(tmp_path / "straight", f"init_from={source}")
    assert lines(tmp_path / "run") == lines(tmp_path / "straight")


@pytest.mark.slow
@pytest.mark.parametrize("methods", ["qmix,vdn", "vdn,qmix"])
def test_two_methods_that_begin_with_one_run_keep_what_each_of_them_takes(
    methods: str, source: Path, tmp_path: Path
) -> None:
    asked = [*once([*TINY, f"init_from={source}"]), f"sweep.method=[{methods}]"]
    asked = [o for o in asked if not o.startswith("method=")]
    folder, jobs = runs.new_run([*asked, f"run_dir={tmp_path / 'run'}"])
    _, again = runs.old_run(folder)
    assert [job.fingerprint() for job in again] == [job.fingerprint() for job in jobs]
    sets = [{name.partition("/")[0] for name in job.values[0].start.leaves} for job in again]
    assert sorted(map(len, sets)) == [1, 2]  # of the other method the utility networks alone


def test_a_fingerprint_knows_the_parameters(source: Path, tmp_path: Path) -> None:
    (job,) = warm_started(source, tmp_path / "run")
    begin = job.values[0].start
    assert begin is not None
    (again,) = runs.old_run(tmp_path / "run")[1]
    assert again.fingerprint() == job.fingerprint()
    name = next(iter(begin.leaves))
    other = Start(begin.seeds, begin.leaves | {name: begin.leaves[name] + 1})
    changed = Job([value._replace(start=other) for value in job.values])
    assert changed.fingerprint() != job.fingerprint()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("hidden_dim=16", "hidden_dim=8 there and 16 here; the utility networks have to be al"),
        ("norm=layer", "norm=none there and layer here"),
        ("shared=false", "shared=true there and false here"),
        ("utility=gru", "utility=mlp there and gru here"),
        ("env=matrix_steps/two_step", r"(n_actions|obs_size|n_agents)=\d there and \d+ here"),
    ],
)
def test_a_network_that_differs_is_named_before_there_is_a_folder(
    change: str, said: str, policy: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=rf"init_from={policy}: {said}"):
        warm_started(policy, tmp_path / "run", change)
    assert not (tmp_path / "run").exists()


def test_actions_of_other_names_are_refused_though_shapes_are_equal(
    policy: Path, tmp_path: Path, monkeypatch
) -> None:
    other = matrix.KIND._replace(make=lambda o: matrix.make(o)._replace(action_names=tuple("BAC")))
    monkeypatch.setitem(ENVS.own, "matrix", other)
    with pytest.raises(UserError, match=r"action 0 is 'A' there and 'B' here, so that what was le"):
        warm_started(policy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_mixer_of_another_shape_is_named(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mixer/params/hyper_\w+/.* is .* there and .* here"):
        warm_started(source, tmp_path / "run", "method.embed_dim=8")


def test_what_cannot_be_begun_with_is_told(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is neither a run folder \(run.yaml\) nor a policy"):
        warm_started(tmp_path / "nothing", tmp_path / "run")
    sweep = tmp_path / "sweep"
    runs.new_run(once([*TINY, "sweep.lr=[1e-3,1e-4]", f"run_dir={sweep}"]))
    with pytest.raises(UserError, match=r"is a sweep of several values; take the policy of one"):
        warm_started(sweep, tmp_path / "run")
    fresh = tmp_path / "fresh"
    runs.new_run([*TINY, f"run_dir={fresh}"])
    with pytest.raises(UserError, match="has no checkpoint yet; wait for one"):
        warm_started(fresh, tmp_path / "run")


def test_a_source_that_names_code_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        "command: train\nparts: [[env=custom, 'env.entry=antigravity:fly']]\n"
    )
    with pytest.raises(UserError, match=r"names code that would be run here, env.entry='antig"):
        warm_started(tmp_path, tmp_path / "run")


@pytest.mark.slow
def test_shards_of_a_warm_run_give_what_one_machine_gives(
    source: Path, tmp_path: Path, capsys
) -> None:
    own = once([*TINY, f"init_from={source}", "checkpoint_interval=20"])
    assert main(["train", *own, f"run_dir={tmp_path}/whole"]) == 0
    assert main(["plan", "train", *own, "shards=2", f"run_dir={tmp_path}/plan"]) == 0
    assert main(["work", f"{tmp_path}/plan"]) == 0
    assert main(["merge", f"{tmp_path}/plan"]) == 0
    capsys.readouterr()
    one, many = lines(tmp_path / "whole"), lines(tmp_path / "plan")
    assert [line["test_return"] for line in one] == [line["test_return"] for line in many]
    # Where a shard has a lane for each device it is another program than the whole run's.
    errors = ([line["max_error"] for line in lines] for lines in (one, many))
    np.testing.assert_allclose(*errors, rtol=1e-5)
