"""Runs on disk: sweeps, resumption, interruption, damage; through the command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.runs import checkpoint, execute
from jaxvff.runs import folder as runs
from jaxvff.runs.execute import Watcher
from jaxvff.runs.plan import plan
from jaxvff.training.program import device_program
from tests.command_line import once

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
        "total_steps=200", "eval_interval=40", "epsilon_steps=100"]  # fmt: skip


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in lines]


def run(folder: Path, *overrides: str, stop_after: int | None = None) -> None:
    """Train in this process; with `stop_after`, interrupt after so many looks at Ctrl-C."""
    if any(o.startswith("resume") for o in overrides):
        jobs, resume = runs.old_run(folder, "train")[1], True
    else:
        jobs, resume = runs.new_run([*TINY, f"run_dir={folder}", *overrides])[1], False
    looks = iter(range(10**9))
    stop = lambda: stop_after is not None and next(looks) >= stop_after
    watcher = Watcher(stop_early=stop)
    list(execute.execute(folder, jobs, resume=resume, watcher=watcher))


def state(folder: Path):
    jobs = runs.old_run(folder)[1]
    program = device_program(jobs[0].config, jobs[0].env, jobs[0].n_lanes)
    like = jax.eval_shape(program.init, jobs[0].lanes())
    saved = checkpoint.latest(folder / "checkpoint")
    return checkpoint.restore(saved, like, jobs[0].fingerprint())


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "straight"
    run(folder)
    return folder


@pytest.mark.parametrize("stop_after", [0, pytest.param(5, marks=pytest.mark.slow)])
def test_an_interrupted_and_resumed_run_equals_a_straight_one_bit_for_bit(
    straight: Path, tmp_path: Path, stop_after: int
) -> None:
    folder = tmp_path / "run"
    run(folder, stop_after=stop_after)
    step, _ = state(folder)
    assert 0 < step < 200
    run(folder, "resume")
    assert metrics(folder) == metrics(straight)
    (a_step, a), (b_step, b) = state(folder), state(straight)
    assert a_step == b_step == 200
    keys = lambda t: t._replace(state=t.state._replace(key=jax.random.key_data(t.state.key)))
    jax.tree.map(np.testing.assert_array_equal, keys(a), keys(b))


@pytest.mark.slow
def test_a_run_on_smax_resumes_bit_for_bit(tmp_path: Path) -> None:
    """Battles, GRUs, a bonus, prioritised replay: all that matrix games leave out of the state."""
    args = ("env=smax/3m", "learner=replay", "utility=gru", "method=nmqmix_rnd",
            "replay=prioritised", "total_steps=640", "n_envs=2",
            "env.time_limit=31", "segment_length=33", "eval_interval=320", "eval_episodes=2",
            "buffer_size=16", "batch_size=4", "learn_start=4")  # fmt: skip
    run(tmp_path / "whole", *args)
    run(tmp_path / "cut", *args, stop_after=1)
    assert 0 < state(tmp_path / "cut")[0] < 640
    run(tmp_path / "cut", "resume")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    (_, a), (_, b) = state(tmp_path / "cut"), state(tmp_path / "whole")
    keys = lambda t: t._replace(state=t.state._replace(key=jax.random.key_data(t.state.key)))
    jax.tree.map(np.testing.assert_array_equal, keys(a), keys(b))


def test_metrics_keep_every_seed_apart(straight: Path) -> None:
    lines = metrics(straight)
    assert [line["step"] for line in lines] == [40, 80, 120, 160, 200]
    assert all(line["seed"] == [0, 1] and len(line["loss"]) == 2 for line in lines)
    assert lines[-1]["loss"][0] != lines[-1]["loss"][1]
    assert lines[0]["loss"] != [None, None]


@pytest.mark.slow
def test_a_run_can_be_made_longer(straight: Path, tmp_path: Path, capsys) -> None:
    folder = tmp_path / "longer"
    shutil.copytree(straight, folder)
    assert main(["train", f"resume={folder}", "total_steps=240"]) == 0
    assert metrics(folder)[:5] == metrics(straight)
    assert [line["step"] for line in metrics(folder)][-1] == 240
    assert main(["train", f"resume={folder}", "lr=1"]) == 2
    assert "only total_steps, tensorboard, wandb, sink can" in capsys.readouterr().err


def test_evaluate_prints_the_table_of_the_checkpoint(straight: Path, capsys) -> None:
    before = sorted(p.stat().st_mtime_ns for p in straight.rglob("*"))
    assert main(["evaluate", f"run={straight}"]) == 0
    out = capsys.readouterr().out
    assert "greedy-optimal" in out
    assert "learned Q_tot" in out
    assert sorted(p.stat().st_mtime_ns for p in straight.rglob("*")) == before


def damage_flip(path: Path) -> None:
    target = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    target.write_bytes(data)


def damage_cut(path: Path) -> None:
    target = max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    target.write_bytes(target.read_bytes()[:-7])


def damage_remove(path: Path) -> None:
    max((p for p in path.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size).unlink()


def damage_manifest(path: Path) -> None:
    (path / checkpoint.MANIFEST).write_text("{")


def damage_digests(path: Path) -> None:
    manifest = json.loads((path / checkpoint.MANIFEST).read_text())
    (path / checkpoint.MANIFEST).write_text(json.dumps(manifest | {"sha256": [1]}))


@pytest.mark.parametrize(
    "damage", [damage_flip, damage_cut, damage_remove, damage_manifest, damage_digests]
)
def test_a_damaged_checkpoint_is_refused_and_left_alone(
    straight: Path, tmp_path: Path, damage, capsys
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(straight, folder)
    path = checkpoint.latest(folder / "checkpoint")
    damage(path)
    files = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    assert main(["train", f"resume={folder}"]) == 2
    message = capsys.readouterr().err
    assert str(path) in message
    assert "Traceback" not in message
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("hidden_dim=8", "hidden_dim=9"), "float32"),  # other shapes
        (
            ("seeds=2", "seeds=2\n  - lr=0.5"),
            "config, seeds, payoffs or recorded episodes",
        ),  # same shapes
        (("seeds=2", "seeds=2\n  - env=matrix/b"), "config, seeds, payoffs or recorded episodes"),
        (("seeds=2", "seeds=2\n  - method=qmix"), "config, seeds, payoffs or recorded episodes"),
        (("seeds=2", "seeds=2\n  - seed=7"), "config, seeds, payoffs or recorded episodes"),
        (("total_steps=200", "total_steps=160"), "raise it"),
    ],
)
def test_a_foreign_checkpoint_is_refused(straight: Path, tmp_path: Path, change, says: str) -> None:
    folder = tmp_path / "foreign"
    shutil.copytree(straight, folder)
    saved = (folder / "run.yaml").read_text()
    assert change[0] in saved
    (folder / "run.yaml").write_text(saved.replace(*change))
    with pytest.raises(UserError, match=says):
        run(folder, "resume")


def test_a_mistake_while_resuming_leaves_the_run_as_it_was(straight: Path, capsys) -> None:
    before = (straight / "run.yaml").read_text()
    assert main(["train", f"resume={straight}", "total_steps=2e4"]) == 2
    assert "total_steps" in capsys.readouterr().err
    assert (straight / "run.yaml").read_text() == before


@pytest.mark.slow
def test_a_checkpoint_of_two_devices_is_restored_on_one(tmp_path: Path) -> None:
    """Saved by a process with two devices, read by one with a single device."""
    script = (
        "import jax, sys; jax.config.update('jax_num_cpu_devices', int(sys.argv[1]));"
        "from jaxvff.cli.main import main; sys.exit(main(sys.argv[2:]))"
    )
    folder = f"run_dir={tmp_path}/run"
    for n, args in ((2, ["train", *TINY, folder]), (1, ["evaluate", f"run={tmp_path}/run"])):
        prefix = ["taskset", "-c", "0"] if n == 1 and shutil.which("taskset") else []
        done = subprocess.run(
            [*prefix, sys.executable, "-c", script, str(n), *args], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "greedy-optimal" in done.stdout


@pytest.mark.slow
def test_checkpoints_come_at_their_own_interval(tmp_path: Path, monkeypatch) -> None:
    saved = []
    monkeypatch.setattr(checkpoint, "save", lambda folder, step, *rest: saved.append(step))
    run(tmp_path / "run", "checkpoint_interval=30", "total_steps=100")
    assert saved == [30, 60, 90, 100]
    assert [line["step"] for line in metrics(tmp_path / "run")] == [40, 80, 100]


@pytest.mark.slow
def test_averages_do_not_depend_on_where_a_run_was_cut(tmp_path: Path) -> None:
    """A run that ended between two reports and went on: means over what was really summed."""
    run(tmp_path / "cut", "total_steps=100")
    jobs = runs.resumed_run(tmp_path / "cut", "train", ["total_steps=120"])
    list(execute.execute(tmp_path / "cut", jobs, resume=True))
    run(tmp_path / "whole", "total_steps=120")
    cut, whole = metrics(tmp_path / "cut"), metrics(tmp_path / "whole")
    assert [line["step"] for line in cut] == [40, 80, 100, 120]
    for a, b, c in zip(cut[-2]["loss"], cut[-1]["loss"], whole[-1]["loss"], strict=True):
        np.testing.assert_allclose((a + b) / 2, c, rtol=1e-5)


def test_a_failed_save_keeps_the_checkpoint_before_it(tmp_path: Path, monkeypatch) -> None:
    first = checkpoint.save(tmp_path, 1, {"x": np.arange(3, dtype=np.float32)})

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, 2, {"x": np.arange(4, dtype=np.float32)})
    monkeypatch.undo()
    assert checkpoint.latest(tmp_path) == first
    step, _ = checkpoint.restore(first, {"x": jax.ShapeDtypeStruct((3,), np.float32)})
    assert step == 1
    assert checkpoint.save(tmp_path, 2, {"x": np.arange(4, dtype=np.float32)}).name == "2"
    assert [p.name for p in tmp_path.iterdir()] == ["2"]


def test_a_sweep_of_traced_keys_is_one_program(tmp_path: Path) -> None:
    jobs = plan(
        [*TINY, "sweep.epsilon_end=[0.1,1.0]", "sweep.lr=[1e-3,1e-2]", "sweep.env=[matrix/a,matrix/b]",
         "sweep.td_lambda=[0,0.9]", "sweep.init_scale=[1,2]", "sweep.temperature=[1,2]"]
    )  # fmt: skip
    assert len(jobs) == 1
    assert jobs[0].n_lanes == 2**6 * 2
    lanes = jobs[0].lanes()
    assert {float(x) for x in lanes.traced.lr} == {np.float32(1e-3), np.float32(1e-2)}
    assert lanes.env_params.shape == (128, 3, 3)


@pytest.mark.slow
def test_lanes_of_a_sweep_equal_runs_of_their_own(tmp_path: Path) -> None:
    """Same seed, same value, other company: equal to 1e-4 after 65 updates (see test_learner)."""
    args = ("epsilon_end=1", "total_steps=80")
    run(tmp_path / "sweep", *args, "sweep.lr=[1e-3,3e-3]")
    run(tmp_path / "alone", *args, "lr=3e-3")
    lines = metrics(tmp_path / "sweep")
    swept = [line for line in lines if line["sweep"] == {"lr": 0.003}]
    for a, b in zip(swept, metrics(tmp_path / "alone"), strict=True):
        for key in ("loss", "max_error", "train_return"):
            np.testing.assert_allclose(a[key], b[key], rtol=1e-4)
    assert lines[-1]["loss"] != lines[-2]["loss"], "the two values of lr are the same run"


@pytest.mark.slow
def test_a_sweep_over_methods_makes_a_program_and_a_folder_each(tmp_path: Path) -> None:
    run(tmp_path / "sweep", "sweep.method=[vdn,qmix]", "total_steps=40")
    folders = sorted(p.name for p in (tmp_path / "sweep").iterdir() if p.is_dir())
    assert [name.split("_")[1] for name in folders] == ["vdn", "qmix"]
    assert all((tmp_path / "sweep" / name / "checkpoint").is_dir() for name in folders)


def test_random_games_can_be_swept_by_their_seed() -> None:
    jobs = plan([*TINY, "env=matrix/random", "sweep.env.game_seed=[0,1,2]"])
    assert len(jobs) == 1
    assert len(np.unique(jobs[0].lanes().env_params[:, 0, 0])) == 3


def test_every_seed_can_play_a_game_of_its_own() -> None:
    (job,) = plan([*TINY, "env=matrix/random", "env.game_seed=null", "seeds=3", "seed=5"])
    (one,) = plan([*TINY, "env=matrix/random", "env.game_seed=6", "seeds=1"])
    games = job.lanes().env_params
    assert games.shape == (3, 3, 3)
    assert len(np.unique(games[:, 0, 0])) == 3
    np.testing.assert_array_equal(games[1], one.lanes().env_params[0])
    np.testing.assert_array_equal(job.values[0].env.params_for(6), games[1])


TRAIN = [sys.executable, "-m", "jaxvff", "train"]
LONG = once([*TINY, "total_steps=20000", "eval_interval=1000", "checkpoint_interval=2000"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list:
    """The metrics of LONG, run by a process that nothing stops."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    subprocess.run([*TRAIN, *LONG, f"run_dir={folder}"], check=True, capture_output=True)
    return metrics(folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill-9"])
def test_a_stopped_process_resumes_to_the_same_metrics(
    tmp_path: Path, number: int, undisturbed: list
) -> None:
    """A real process, a real signal; checkpoint_interval saves on the way for kill -9."""
    process = subprocess.Popen([*TRAIN, *LONG, f"run_dir={tmp_path}/cut"], stdout=subprocess.PIPE)
    deadline = time.time() + 120
    while checkpoint.latest(tmp_path / "cut" / "checkpoint") is None:
        assert time.time() < deadline
        time.sleep(0.05)
    os.kill(process.pid, number)
    code = process.wait(timeout=120)
    assert code == (130 if number == signal.SIGINT else -9)
    done = len(metrics(tmp_path / "cut")) if number == signal.SIGINT else 0
    assert done < 20
    subprocess.run([*TRAIN, f"resume={tmp_path}/cut"], check=True, capture_output=True)
    assert metrics(tmp_path / "cut") == undisturbed


def test_lanes_are_the_seeds_asked_for_value_by_value() -> None:
    (job,) = plan([*TINY, "seed=5", "seeds=3", "sweep.lr=[0.1,0.2]"])
    lanes = job.lanes()
    assert lanes.seed.tolist() == [5, 6, 7, 5, 6, 7]
    np.testing.assert_allclose(lanes.traced.lr, [0.1] * 3 + [0.2] * 3, rtol=1e-6)
    (job,) = plan([*TINY, "seeds=2", "sweep.seed=[3,8]"])
    assert job.lanes().seed.tolist() == [3, 4, 8, 9]


def test_metrics_of_a_job_are_split_as_its_lanes_are() -> None:
    (job,) = plan([*TINY, "seeds=3", "sweep.lr=[0.1,0.2]"])
    lanes = job.lanes()
    for value, part in execute.by_value(job, {"lr": lanes.traced.lr, "seed": lanes.seed}):
        np.testing.assert_allclose(part["lr"], value.config.lr, rtol=1e-6)
        assert part["seed"].tolist() == [0, 1, 2]


def test_other_payoffs_in_the_same_file_are_another_run_and_more_steps_are_not(
    tmp_path: Path,
) -> None:
    def fingerprint(payoff: list, *overrides: str) -> str:
        (tmp_path / "game.yaml").write_text(str(payoff))
        args = ["env=matrix/file", f"env.file={tmp_path}/game.yaml", *overrides]
        return plan([*TINY, *args])[0].fingerprint()

    one = fingerprint([[1, 2], [3, 4]])
    assert fingerprint([[1, 2], [3, 4]]) == one
    assert fingerprint([[1, 2], [3, 5]]) != one
    assert fingerprint([[1, 2], [3, 4]], "seed=1") != one
    assert fingerprint([[1, 2], [3, 4]], "total_steps=400", "run_dir=elsewhere") == one


@pytest.mark.slow
def test_with_several_games_at_a_time_a_resumed_run_keeps_the_lines_before_its_checkpoint(
    tmp_path: Path,
) -> None:
    """Lines are counted in env steps, checkpoints in iterations; seeds go by their numbers."""
    folder = tmp_path / "run"
    run(folder, "method=vdn", "utility=mlp", "hidden_dim=4", "n_envs=4", "seed=5", "total_steps=80")
    before = metrics(folder)
    assert [line["step"] for line in before] == [40, 80]
    assert all(line["seed"] == [5, 6] for line in before)
    run(folder, "resume")  # there is nothing left to do
    assert metrics(folder) == before


def test_the_latest_checkpoint_is_the_one_of_the_largest_step(tmp_path: Path) -> None:
    """A crash may leave an older one behind, and one that was not complete."""
    assert checkpoint.latest(tmp_path / "none") is None
    for name in ("80", "200", "1000.partial", "9.old"):
        (tmp_path / name).mkdir()
    assert checkpoint.latest(tmp_path) == tmp_path / "200"
