"""A run folder: one writer, readers that are waited for, code that is asked for, nothing silent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import platformdirs
import pytest
import yaml

from jaxvff.cli import evaluate, train
from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.core.files import file_name, write_text
from jaxvff.runs import checkpoint, learned, locks, trust
from jaxvff.runs import folder as runs
from jaxvff.runs.files import INPUTS
from jaxvff.runs.metrics_file import JsonLines
from jaxvff.runs.plan import plan
from jaxvff.settings import config
from tests.test_run import TINY

HOLD = """
import sys, time
from pathlib import Path
from jaxvff.runs import locks
with locks.sole_writer(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
TREE = {"x": np.arange(3, dtype=np.float32)}
LIKE = {"x": jax.ShapeDtypeStruct((3,), np.float32)}


# Locks.


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"written by process {holder.pid} on .*resume="),
        locks.sole_writer(tmp_path),
    ):
        pytest.fail("it is held")
    holder.kill()
    holder.wait()
    with locks.sole_writer(tmp_path), locks.sole_writer(tmp_path) as writer:  # may be nested
        assert writer.in_place()


def test_a_lock_goes_with_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locks.sole_writer(folder) as writer:
        folder.rename(tmp_path / "moved")
        assert not writer.in_place()
        folder.mkdir()
        writer.renew()
        assert writer.in_place()


def test_a_file_system_without_locks_is_told_of(tmp_path: Path, monkeypatch, capsys) -> None:
    def none(fd: int, how: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(locks.fcntl, "flock", none)
    with locks.sole_writer(tmp_path):
        assert "no other process writes there" in capsys.readouterr().err


# Checkpoints.


def test_a_checkpoint_that_is_read_is_kept_and_removed_later(tmp_path: Path) -> None:
    first = checkpoint.save(tmp_path, 1, TREE)
    with locks.reading(first / checkpoint.MANIFEST) as there:
        assert there
        checkpoint.save(tmp_path, 2, TREE)
        assert first.exists()
        assert checkpoint.restore(first, LIKE)[0] == 1
    checkpoint.save(tmp_path, 3, TREE)
    assert [p.name for p in tmp_path.iterdir()] == ["3"]
    with locks.reading(first / checkpoint.MANIFEST) as there:
        assert not there


def test_the_newest_checkpoint_is_restored_while_others_are_saved(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 0, TREE)
    over = threading.Event()

    def save() -> None:
        step = 1
        while not over.is_set():
            checkpoint.save(tmp_path, step, TREE)
            step += 1

    saving = threading.Thread(target=save)
    saving.start()
    try:
        seen = [checkpoint.restore_newest(tmp_path, LIKE) for _ in range(20)]
    finally:
        over.set()
        saving.join()
    steps = [found[0] for found in seen if found]
    assert len(steps) == 20
    assert steps == sorted(steps)
    assert steps[-1] > steps[0]


def test_what_is_not_ours_in_a_checkpoint_folder_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes", "7", "²", "1.partial.bak"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.txt").write_text("1")
    (tmp_path / "5.0123456789abcdef.partial").mkdir()  # of a save that a crash cut
    checkpoint.save(tmp_path, 8, TREE)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"notes", "7", "²", "1.partial.bak", "8"}
    assert checkpoint.restore_newest(tmp_path, LIKE)[0] == 8


def test_a_disk_that_is_full_is_told_in_a_line_and_gets_its_room_back(
    tmp_path: Path, monkeypatch
) -> None:
    first = checkpoint.save(tmp_path, 1, TREE)

    class Full:
        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            pass

        def save(self, path: Path, arrays) -> None:
            path.mkdir()
            raise ValueError('RESOURCE_EXHAUSTED: Error writing "x": No space left on device\nmore')

    monkeypatch.setattr(checkpoint, "_checkpointer", Full)
    with pytest.raises(OSError, match=r"checkpoint .*/2: No space left on device$"):
        checkpoint.save(tmp_path, 2, TREE)
    assert list(tmp_path.iterdir()) == [first]


# Files.


def test_a_file_is_written_beside_links_that_somebody_put_there(tmp_path: Path) -> None:
    outside = tmp_path / "outside.txt"
    outside.write_text("precious")
    for name in ("table.json.partial", "table.json"):
        (tmp_path / name).symlink_to(outside)
    write_text(tmp_path / "table.json", "new")
    assert outside.read_text() == "precious"
    assert (tmp_path / "table.json").read_text() == "new"
    assert not (tmp_path / "table.json").is_symlink()


@pytest.mark.parametrize("text", ["a/../../b", "..\\b", "a\nb", "\x00", "ü" * 300, "\ud800"])
def test_a_label_names_a_file_in_its_folder(text: str, tmp_path: Path) -> None:
    path = tmp_path / file_name(f"00_{text}", 100)
    path.write_text("")
    assert path.parent == tmp_path
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_reports_that_are_removed_are_put_back(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "run" / "metrics.jsonl"
    path.parent.mkdir()
    lines = JsonLines(path, None, told.append)
    for step in (1, 2):
        lines.write(step, {}, [0], {"loss": [0.5]})
    path.unlink()
    lines.write(3, {}, [0], {"loss": [0.5]})
    path.parent.rename(tmp_path / "moved")
    lines.write(4, {}, [0], {"loss": [0.5]})
    lines.close()
    steps = [json.loads(line)["step"] for line in path.read_text().splitlines()]
    assert steps == [1, 2, 3, 4]
    assert len(told) == 2
    assert all("metrics.jsonl was removed or moved" in line for line in told)


@pytest.mark.parametrize("line", ["3", '{"loss": 1}', '{"step": "x"}', "[[", "[" * 9999, "null"])
def test_a_line_that_is_no_report_is_named_and_nothing_is_dropped(
    line: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.jsonl"
    before = f'{{"step": 1}}\n{line}\n{{"step": 2}}\n'
    path.write_text(before)
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: .* is no report of a run; remove"):
        JsonLines(path, 5)
    assert path.read_text() == before


# Folders.


def test_runs_of_the_same_second_have_folders_of_their_own(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "now")
    names = [runs.new_folder(None, "qmix").name for _ in range(12)]
    assert names == ["now_qmix", *(f"now_qmix_{i}" for i in range(2, 13))]


def test_a_run_keeps_what_it_reads(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, payoff in (("a.yaml", "[[1, 2], [3, 4]]"), ("b/a.yaml", "[[4, 3], [2, 1]]")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(payoff)
    args = [*TINY, "env=matrix/file", "sweep.env.file=[a.yaml,b/a.yaml]", "run_dir=run"]
    folder, jobs = runs.new_run(args)
    prints = [job.fingerprint() for job in jobs]
    labels = [value.label for job in jobs for value in job.values]
    Path("a.yaml").unlink()
    Path("b/a.yaml").write_text("[[0, 0], [0, 1]]")
    folder = folder.rename(tmp_path / "b" / "moved")
    again = runs.old_run(folder)[1]
    assert [job.fingerprint() for job in again] == prints
    assert [value.label for job in again for value in job.values] == labels
    assert len(list((folder / INPUTS).iterdir())) == 2


def test_a_run_is_not_made_shorter_than_it_is(tmp_path: Path) -> None:
    folder, (job,) = runs.new_run([*TINY, f"run_dir={tmp_path}/run"])
    checkpoint.save(folder / "checkpoint", 150, TREE)
    saved = (folder / "run.yaml").read_text()
    with pytest.raises(UserError, match=r"total_steps=100 is less than the 150 steps .* raise it"):
        runs.resumed_run(folder, "train", ["total_steps=100"])
    assert (folder / "run.yaml").read_text() == saved
    (longer,) = runs.resumed_run(folder, "train", ["total_steps=300"])
    (longest,) = runs.resumed_run(folder, "train", ["total_steps=400"])
    assert (longer.config.total_steps, longest.config.total_steps) == (300, 400)
    assert (folder / "run.yaml").read_text().count("total_steps") == 1
    assert longest.fingerprint() == job.fingerprint()


@pytest.mark.parametrize("parts", ["[[1, 2]]", "[]", "[3]", "{a: b}", "&a [*a]", "null"])
def test_parts_that_are_no_overrides_are_no_run(parts: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "run.yaml").write_text(f"command: train\nparts: {parts}\n")
    for args in (["evaluate", f"run={tmp_path}"], ["train", f"resume={tmp_path}"]):
        assert main(args) == 2
        assert "run.yaml" in capsys.readouterr().err


# Code.

EVIL = {
    "entry": ["env=custom", "env.entry=os:system", "env.time_limit=3",
              "env.kwargs={command: 'touch PWNED'}"],
    "python": ["env=smaclite/2s3z", "env.python=evil/x"],
}  # fmt: skip


def evil(folder: Path, option: str) -> None:
    folder.mkdir()
    script = folder / "x"
    script.write_text("#!/bin/sh\ntouch PWNED\n")
    script.chmod(0o755)
    parts = [["total_steps=200000", *EVIL[option]]]
    (folder / "run.yaml").write_text(yaml.safe_dump({"command": "train", "parts": parts}))


@pytest.mark.parametrize("option", EVIL)
def test_a_run_folder_runs_no_code_that_nobody_allowed(
    option: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    evil(tmp_path / "evil", option)
    for args in (["evaluate", "run=evil"], ["train", "resume=evil"],
                 ["evaluate", "run=evil", "trust=false"]):  # fmt: skip
        assert main(args) == 2
        message = capsys.readouterr().err
        assert f"evil names code that would be run here, env.{option}=" in message
        assert "add trust=true" in message
    assert not (tmp_path / "PWNED").exists()


def test_code_is_allowed_by_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(platformdirs, "user_config_dir", lambda name: str(tmp_path))
    asked = config.load([o for o in EVIL["entry"] if "kwargs" not in o])
    with pytest.raises(UserError, match="os:system"):
        trust.check(tmp_path, [asked])
    (tmp_path / trust.LIST).write_text("- other:make\n- os:system\n")
    trust.check(tmp_path, [asked])
    (tmp_path / trust.LIST).write_text("os:system\n")
    with pytest.raises(UserError, match=r"trusted.yaml is no list of names"):
        trust.check(tmp_path, [asked])


def test_runs_without_code_of_others_need_no_leave(tmp_path: Path) -> None:
    folder, jobs = runs.new_run([*TINY, f"run_dir={tmp_path}/my run"])
    trust.check(folder, [value.config for job in jobs for value in job.values])
    command = runs.resume_command("train", folder, jobs)
    assert command == f"jaxvff train 'resume={tmp_path}/my run'"


def test_trust_is_for_folders(tmp_path: Path, capsys, monkeypatch) -> None:
    for command in (evaluate, train):
        monkeypatch.setattr(command, "importing", lambda *options: pytest.fail("it imported JAX"))
    monkeypatch.setattr(learned, "open_program", lambda *args: pytest.fail("it went on"))
    assert main(["train", "trust=true"]) == 2
    assert "add resume=<folder>" in capsys.readouterr().err
    assert main(["evaluate", f"run={tmp_path}", "trust=yes"]) == 2


def test_a_plan_looks_for_kept_files_first(tmp_path: Path) -> None:
    """And takes the path itself where none was kept: runs of before kept nothing."""
    game = tmp_path / "game.yaml"
    game.write_text("[[1, 2], [3, 4]]")
    args = [*TINY, "env=matrix/file", f"env.file={game}"]
    (job,) = plan(args, tmp_path / "inputs")
    np.testing.assert_array_equal(job.env.params, [[1, 2], [3, 4]])
