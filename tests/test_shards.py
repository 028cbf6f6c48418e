"""Shards: every lane once, whoever dies; merged is what one machine gives; nothing mixed up."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxvff
from jaxvff.cli import progress
from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.runs import checkpoint, execute, learned, leases, locks, merge, shards, work
from jaxvff.runs import folder as runs
from jaxvff.runs.leases import END, LEASE_S, OWNER, Shelf
from jaxvff.runs.plan import Job
from jaxvff.runs.work import RESULTS, Worker
from jaxvff.settings import presets
from tests.test_run import metrics

TINY = ["method=vdn", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
        "total_steps=400", "eval_interval=100", "checkpoint_interval=100"]  # fmt: skip
SWEEP = ["seeds=4", "seed=3", "sweep.lr=[1e-3,3e-3]"]


def planned(folder: Path, *overrides: str, n: int) -> tuple[shards.Plan, list[Job]]:
    parts = [*TINY, f"run_dir={folder}", *overrides]
    _, jobs = runs.new_run(parts, elsewhere=True)
    return shards.make(folder, jobs, n), jobs


def worker(folder: Path, **options) -> Worker:
    told = {"stop": lambda: False, "tell": lambda line: None, **options}
    return Worker(folder, shards.read(folder), runs.old_run(folder)[1], **told)


def results_of(folder: Path) -> list[dict]:
    table = json.loads((folder / "table.json").read_text())["results"]
    return [{k: v for k, v in result.items() if k != "timing"} for result in table]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, unsharded, by the command line."""
    folder = tmp_path_factory.mktemp("shards") / "whole"
    assert main(["train", *TINY, *SWEEP, f"run_dir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def worked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in two shards, done and not merged."""
    folder = tmp_path_factory.mktemp("shards") / "big"
    assert main(["plan", "train", *TINY, *SWEEP, "shards=2", f"run_dir={folder}"]) == 0
    assert main(["work", str(folder)]) == 0
    return folder


@pytest.fixture
def copied(worked: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "big"
    shutil.copytree(worked, folder)
    return folder


# Cutting.


@given(
    st.lists(st.tuples(*[st.integers(1, 7)] * 3), min_size=1, max_size=4),
    st.floats(0, 1),
)
def test_every_lane_is_in_one_shard_and_shards_are_of_one_size(
    sizes: list[tuple[int, int, int]], where: float
) -> None:
    n_lanes = sum(values * seeds for values, seeds, _ in sizes)
    n = len(sizes) + round(where * (n_lanes - len(sizes)))
    cut = shards.cut(sizes, n)
    assert len(cut) == n
    lanes = [(s.job, v, i) for s in cut for v in s.values for i in s.seeds]
    assert sorted(lanes) == [
        (j, v, i) for j, (n_v, n_s, _) in enumerate(sizes) for v in range(n_v) for i in range(n_s)
    ]
    for job, (n_values, n_seeds, _) in enumerate(sizes):
        mine = [s for s in cut if s.job == job]
        if len(mine) <= max(n_values, n_seeds):  # else a value's shards are of one size
            rows = [len(s.seeds) if len(mine) <= n_seeds else len(s.values) for s in mine]
            assert max(rows) - min(rows) <= 1


@pytest.mark.parametrize(("n", "why"), [(1, "less than the 2 programs"), (9, "more than the 8")])
def test_a_number_of_shards_that_cannot_be_is_refused(n: int, why: str) -> None:
    with pytest.raises(UserError, match=f"shards={n} is {why}"):
        shards.cut([(1, 4, 10), (2, 2, 10)], n)


@pytest.mark.parametrize("text", ["", "shards=0", "shards=x", "shards=1.5"])
def test_plan_wants_a_number_of_shards(text: str, tmp_path: Path, capsys) -> None:
    args = ["plan", "train", f"run_dir={tmp_path / 'r'}", *filter(None, [text])]
    assert main(args) == 2
    assert "must be a whole number of 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_a_plan_that_cannot_be_leaves_no_folder(tmp_path: Path, capsys) -> None:
    assert main(["plan", "train", "seeds=4", "shards=5", f"run_dir={tmp_path / 'r'}"]) == 2
    assert "write shards=4 or fewer" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_100_000_lanes_are_planned_in_seconds(tmp_path: Path) -> None:
    began = time.process_time()
    plan, jobs = planned(tmp_path / "r", "seeds=100000", n=4096)
    read = shards.read(tmp_path / "r")
    assert time.process_time() - began < 5
    assert read == plan
    assert sum(s.n_lanes for s in read.shards) == jobs[0].n_lanes == 100_000


# Leases.


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_of_many_workers_one_alone_gets_a_shard(shelf: Shelf) -> None:
    (before,) = shelf.standings(1)
    assert before.state == "waiting"
    barrier, taken = threading.Barrier(8), []

    def take() -> None:
        barrier.wait()
        taken.append(shelf.take(0, before))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(lease is not None for lease in taken) == 1


def age(attempt: Path, seconds: float) -> None:
    """Make the last sign of life so old, as the file system has it."""
    path = attempt / OWNER if (attempt / OWNER).exists() else attempt
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def elsewhere(attempt: Path) -> None:
    """Make the owner one of another machine, about which only its heartbeat tells."""
    owner = leases.read(attempt / OWNER) | {"boot": "another", "host": "far"}
    (attempt / OWNER).write_text(json.dumps(owner))


def test_a_silent_owner_is_taken_over_and_gives_up(shelf: Shelf, monkeypatch) -> None:
    monkeypatch.setattr(leases, "HEARTBEAT_S", 0.05)
    lease = shelf.take(0, shelf.standings(1)[0])
    assert lease is not None
    with lease, locks.sole_writer(lease.folder):
        lease.begin({})
        elsewhere(lease.folder)
        assert shelf.standings(1)[0].state == "running"
        age(lease.folder, LEASE_S + 5)
        time.sleep(0.3)
        assert shelf.standings(1)[0].state == "running"  # the heartbeat goes on
        assert not lease.lost()
        stale = shelf.standings(1)[0]._replace(state="stale")
        assert shelf.take(0, stale) is not None
        deadline = time.monotonic() + 10
        while not lease.lost():
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_dead_owner_of_this_machine_is_seen_at_once(shelf: Shelf) -> None:
    """By the lock that ended with it, without waiting for the heartbeat."""
    script = """
import sys
from pathlib import Path
from jaxvff.runs import leases, locks
shelf = leases.Shelf(Path(sys.argv[1]))
lease = shelf.take(0, shelf.standings(1)[0])
with lease, locks.sole_writer(lease.folder):
    lease.begin({})
    print("begun", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(shelf.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    assert shelf.standings(1)[0].state == "running"
    process.kill()
    process.wait()
    standing = shelf.standings(1)[0]
    assert (standing.state, standing.owner["process"]) == ("stale", process.pid)


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00\xff", '{"host": ["x"]}'])
def test_a_damaged_lease_file_is_judged_by_its_time(
    shelf: Shelf, content: str, tmp_path: Path
) -> None:
    lease = shelf.take(0, shelf.standings(1)[0])
    assert lease is not None
    (lease.folder / OWNER).write_text(content)
    assert shelf.standings(1)[0].state == "running"
    age(lease.folder, LEASE_S + 5)
    assert shelf.standings(1)[0].state == "stale"


def test_a_lease_without_a_file_becomes_stale(shelf: Shelf) -> None:
    lease = shelf.take(0, shelf.standings(1)[0])
    assert lease is not None
    assert shelf.standings(1)[0].state == "running"
    age(lease.folder, LEASE_S + 5)
    assert shelf.standings(1)[0].state == "stale"


@pytest.mark.parametrize("off", [-1e8, 1e8])
def test_clocks_of_machines_do_not_matter(shelf: Shelf, off: float, monkeypatch) -> None:
    lease = shelf.take(0, shelf.standings(1)[0])
    assert lease is not None
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + off)
    standing = shelf.standings(1)[0]
    assert standing.state == "running"
    assert standing.silent_s < 60


def test_what_is_given_up_is_free_at_once_or_has_failed(shelf: Shelf) -> None:
    for state in ("stopped", "failed"):
        lease = shelf.take(0, shelf.standings(1)[0])
        assert lease is not None
        lease.give_up(state, "why")
        standing = shelf.standings(1)[0]
        assert (standing.state, standing.reason) == (state, "why")
    (shelf.path(0, 2) / END).write_text("{")  # damaged: free again
    assert shelf.standings(1)[0].state == "stopped"


# Working and merging.


def same(mine: object, other: object) -> bool:
    """Equal as far as vmaps of other sizes are: learning amplifies the last bit."""
    a, b = np.array(mine, float), np.array(other, float)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


@pytest.mark.slow
def test_merged_shards_are_what_one_machine_gives(whole: Path, copied: Path) -> None:
    """Within a tolerance, as other numbers of lanes in a vmap sum in another order."""
    assert main(["merge", str(copied)]) == 0
    merged, direct = metrics(copied), metrics(whole)
    assert len(merged) == len(direct) == 8
    for mine, other in zip(merged, direct, strict=True):
        assert list(mine) == list(other)
        for name in mine:
            assert mine[name] == other[name] or same(mine[name], other[name]), name
    for mine, other in zip(results_of(copied), results_of(whole), strict=True):
        assert mine.keys() == other.keys()
        for name in ("sweep", "seed", "rates", "steps", "method", "env", "stopped_at", "payoff"):
            assert mine[name] == other[name]
        assert all(same(mine["per_seed"][k], other["per_seed"][k]) for k in mine["per_seed"])
        assert same(mine["median_seed"]["q_tot"], other["median_seed"]["q_tot"])
    assert {p.name for p in whole.iterdir()} - {p.name for p in copied.iterdir()} == {"checkpoint"}


@pytest.mark.slow
def test_a_plan_tells_what_it_needs_before_and_after_it_is_merged(copied: Path, capsys) -> None:
    begun = jaxvff.load(copied)
    assert not begun.complete
    for ask in (lambda: begun.results, lambda: begun.curves):
        with pytest.raises(UserError, match=rf"not merged yet; .* jaxvff merge {copied}$"):
            ask()
    capsys.readouterr()
    assert main(["merge", str(copied)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "checkpoints: not merged; to evaluate, export, record or go on: "
        f"jaxvff merge {copied} checkpoint=true"
    )
    merged = jaxvff.load(copied)
    assert merged.complete
    assert len(merged.results) == 2
    assert merged.curves.n_rows == 4 * 2 * 4  # reports, sweep values, seeds
    with pytest.raises(UserError, match=rf"jaxvff merge {copied} checkpoint=true"):
        merged.evaluate()


@pytest.mark.slow
def test_merged_checkpoints_are_evaluated_and_go_on(whole: Path, copied: Path, capsys) -> None:
    assert main(["train", f"resume={copied}"]) == 2
    assert "is planned for several workers; go on with jaxvff work" in capsys.readouterr().err
    assert main(["merge", str(copied), "checkpoint=true"]) == 0
    assert main(["merge", str(copied), "checkpoint=true"]) == 0  # again
    before = capsys.readouterr().out.split("results:")[0]
    assert main(["evaluate", f"run={copied}"]) == 0
    assert "greedy-optimal" in before
    jobs = runs.old_run(copied)[1]
    with learned.open_program(jobs[0]) as program:
        like = jax.eval_shape(program.init, jobs[0].lanes())
    saved = [
        checkpoint.restore_newest(folder / "checkpoint", like, jobs[0].fingerprint())
        for folder in (copied, whole)
    ]
    assert saved[0] and saved[1]
    assert saved[0][0] == saved[1][0]
    for mine, other in zip(*(jax.tree.leaves(tree) for _, tree in saved), strict=True):
        if not jax.dtypes.issubdtype(mine.dtype, jax.dtypes.prng_key):
            assert same(mine, other)
    keys = [jax.random.key_data(tree.state.key) for _, tree in saved]
    np.testing.assert_array_equal(*keys)
    assert main(["train", f"resume={copied}", "total_steps=500"]) == 0
    assert metrics(copied)[-1]["step"] == 500


@pytest.mark.slow
def test_a_shard_is_the_run_of_its_seeds_bit_for_bit(worked: Path, tmp_path: Path) -> None:
    plan, jobs = shards.read(worked), runs.old_run(worked)[1]
    (tmp_path / "alone").mkdir()
    list(execute.execute(tmp_path / "alone", [plan.shards[1].of(jobs)]))
    assert metrics(tmp_path / "alone") == metrics(worked / "shards" / "0001.1")


@pytest.mark.slow
def test_a_shard_that_is_left_goes_on_where_it_was_bit_for_bit(
    worked: Path, tmp_path: Path
) -> None:
    """Stopped at a checkpoint, then left by a worker that dies, then completed."""
    folder = tmp_path / "big"
    shutil.copytree(worked, folder)
    shutil.rmtree(folder / "shards")
    (folder / "shards").mkdir()
    looks = iter(range(10**9))
    tally = worker(folder, stop=lambda: next(looks) > 5).work()
    assert tally.done == 0
    assert tally.standings[0].state == "stopped"
    assert int(checkpoint.latest(folder / "shards" / "0000.1" / "checkpoint").name) > 0
    shelf = Shelf(folder / "shards")
    lease = shelf.take(0, tally.standings[0])  # a worker that does no more than that
    assert lease is not None
    lease.begin({})
    work.inherit(folder / "shards" / "0000.1", lease.folder)
    age(lease.folder, LEASE_S + 5)
    with lease:
        elsewhere(lease.folder)
        age(lease.folder, LEASE_S + 5)
    assert worker(folder).work().complete
    assert (folder / "shards" / "0000.3.done").exists()
    assert metrics(folder / "shards" / "0000.3") == metrics(worked / "shards" / "0000.1")


def test_status_tells_of_each_state_without_jax(copied: Path) -> None:
    for name in ("0000.1.done", "0001.1.done"):
        (copied / "shards" / name).unlink()
    elsewhere(copied / "shards" / "0000.1")
    (copied / "shards" / "0000.1" / OWNER).touch()
    (copied / "shards" / "0001.1" / END).write_text('{"state": "failed", "reason": "no room"}')
    script = "import sys; from jaxvff.cli.main import main; main(sys.argv[1:]); print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "status", str(copied)], capture_output=True, text=True
    )
    assert "2 shards, 1 running, 1 failed" in done.stdout
    assert "0 running: vdn_lr=0.001, seeds 0 to 1 of the job's; process" in done.stdout
    assert re.search(r"on far, attempt 1, 400 of 400 steps, last heard of \d+ s ago", done.stdout)
    assert "1 failed: " in done.stdout
    assert ": no room" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_damaged_lease_file_is_told_of_and_what_becomes_of_the_shard(
    copied: Path, capsys
) -> None:
    (copied / "shards" / "0000.1.done").unlink()
    (copied / "shards" / "0000.1" / OWNER).write_text("{")
    assert main(["status", str(copied)]) == 0
    said = capsys.readouterr().out
    assert "; unknown, owner.json is damaged or missing" in said
    assert "without a sign of life for 150 s another worker takes it over" in said


@pytest.mark.slow
def test_a_shard_that_fails_is_told_of_and_taken_again_when_asked_for(
    copied: Path, monkeypatch
) -> None:
    shutil.rmtree(copied / "shards")
    (copied / "shards").mkdir()
    told: list[str] = []
    real = execute.execute

    def broken(folder: Path, *args, **options):
        raise RuntimeError("a bad day") if folder.name == "0000.1" else UserError("a bad file")

    monkeypatch.setattr(execute, "execute", broken)
    with pytest.raises(UserError, match="2 shards in a row failed here"):
        worker(copied, tell=told.append).work()
    assert [line.split(": ", 1)[1] for line in told if "failed" in line] == [
        "failed: RuntimeError: a bad day", "failed: a bad file",
    ]  # fmt: skip
    assert "Traceback" in (copied / "shards" / "0000.1" / "fault.txt").read_text()
    monkeypatch.setattr(execute, "execute", real)
    assert worker(copied).work().done == 0
    tally = worker(copied).work(retry=True)
    assert tally.complete
    assert tally.done == 2


def test_a_shard_on_which_workers_die_and_save_nothing_fails(copied: Path, monkeypatch) -> None:
    shutil.rmtree(copied / "shards")
    (copied / "shards").mkdir()
    monkeypatch.setattr(work, "MOST_DEATHS", 2)
    dying = worker(copied)

    def die(lease, job):
        raise KeyboardInterrupt  # nothing is told, as by kill -9

    monkeypatch.setattr(dying, "_execute", die)
    for _ in range(4):  # shard 0, 1, 0, and, as that has failed now, 1
        with pytest.raises(KeyboardInterrupt):
            dying.work()
        for attempt in (copied / "shards").glob("*.[0-9]"):
            elsewhere(attempt)
            age(attempt, LEASE_S + 5)
    standing = Shelf(copied / "shards").standings(2)[0]
    assert standing.state == "failed"
    assert "2 workers died on it one after the other and saved nothing" in standing.reason


def test_a_disk_that_is_full_ends_the_worker_and_leaves_the_shard_to_others(
    copied: Path, monkeypatch
) -> None:
    shutil.rmtree(copied / "shards")
    (copied / "shards").mkdir()
    mine = worker(copied)

    def full(lease, job):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mine, "_execute", full)
    with pytest.raises(OSError, match="No space left"):
        mine.work()
    assert [s.state for s in Shelf(copied / "shards").standings(2)] == ["stopped", "waiting"]


# Presets, and games on the host.


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_planned_with_each_of_its_lanes_once(name: str, tmp_path: Path) -> None:
    n_shards = {"coordination": 90, "beyond": 60, "football_ladder": 10}.get(name, 44)
    folder = tmp_path / "big"
    assert main(["plan", "reproduce", name, f"shards={n_shards}", f"run_dir={folder}"]) == 0
    plan, (command, jobs) = shards.read(folder), runs.old_run(folder)
    assert command == f"reproduce {name}"
    lanes = [
        (shard.job, json.dumps(value.label), seed)
        for shard in plan.shards
        for value in shard.of(jobs).values
        for seed in value.seeds
    ]
    assert len(plan.shards) == n_shards
    assert len(lanes) == len(set(lanes)) == sum(job.n_lanes for job in jobs)


@pytest.mark.slow
def test_a_preset_in_shards_has_the_rates_of_one_machine(tmp_path: Path) -> None:
    asked = ["reproduce", "random_games", "sweep.method=[vdn,iql]", "seeds=4", "total_steps=300",
             "hidden_dim=8", "batch_size=16", "buffer_size=64", "learn_start=16"]  # fmt: skip
    whole, big = tmp_path / "whole", tmp_path / "big"
    assert main([*asked, f"run_dir={whole}"]) == 0
    assert main(["plan", *asked, "shards=5", f"run_dir={big}"]) == 0
    assert main(["work", str(big)]) == 0
    assert main(["merge", str(big)]) == 0
    mine, other = results_of(big), results_of(whole)
    assert [r["sweep"] for r in mine] == [r["sweep"] for r in other]
    assert [r["rates"] for r in mine] == [r["rates"] for r in other]
    assert all(same(a["per_seed"]["max_error"], b["per_seed"]["max_error"])
               for a, b in zip(mine, other, strict=True))  # fmt: skip
    names = {p.relative_to(whole) for p in whole.rglob("*") if "checkpoint" not in p.parts}
    lacking = names - {p.relative_to(big) for p in big.rglob("*")}
    assert {p.name for p in lacking} <= {locks.NAME}


@pytest.mark.slow
def test_table1_in_shards_has_its_own_page(tmp_path: Path, capsys) -> None:
    """With two of its methods: all that says so is the command that the plan is of."""
    asked = [*TINY[1:], "sweep.method=[vdn,nmqmix]", "sweep.env=[matrix/a,matrix/b]", "seeds=4"]
    command = "reproduce table1"
    whole, jobs = runs.new_run([*asked, f"run_dir={tmp_path / 'whole'}"], command=command)
    assert progress.train_and_show(whole, jobs, command=command, resume=False) == 0
    big, jobs = runs.new_run(
        [*asked, f"run_dir={tmp_path / 'big'}"], command=command, elsewhere=True
    )
    shards.make(big, jobs, 4)
    assert main(["work", str(big)]) == 0
    capsys.readouterr()
    assert main(["merge", str(big)]) == 0
    assert "Table 1 over 4 seeds" in capsys.readouterr().out
    assert (big / "table1.png").exists()
    mine, other = (json.loads((x / "table1.json").read_text())["results"] for x in (big, whole))
    assert [r["paper"] for r in mine] == [r["paper"] for r in other]
    assert [r["share_by_step"] for r in mine] == [r["share_by_step"] for r in other]
    assert [r["rates"] for r in mine] == [r["rates"] for r in other]


@pytest.mark.slow
def test_games_on_the_host_are_trained_in_shards(tmp_path: Path, monkeypatch, capsys) -> None:
    games = str(Path(__file__).parent / "games")
    monkeypatch.syspath_prepend(games)
    monkeypatch.setenv("PYTHONPATH", games)
    folder = tmp_path / "big"
    asked = ["env=custom", "env.entry=foreign:Countdown", "env.time_limit=8", "method=vdn",
             "n_envs=2", "segment_length=18", "total_steps=340", "eval_interval=170",
             "eval_episodes=2", "hidden_dim=8", "buffer_size=16", "batch_size=2", "updates=1",
             "learn_start=2", "seeds=4"]  # fmt: skip
    assert main(["plan", "train", *asked, "shards=2", f"run_dir={folder}"]) == 0
    assert "trust=true" in capsys.readouterr().out
    for command in ("work", "merge"):
        assert "names code that would be run here" in refused(capsys, command, str(folder))
    assert main(["work", str(folder), "trust=true"]) == 0
    assert main(["merge", str(folder), "trust=true"]) == 0
    (result,) = results_of(folder)
    assert result["seed"] == [0, 1, 2, 3]
    assert all(np.isfinite(result["test_return"]))
    assert (folder / "curves.png").exists()


# What is refused.


def refused(capsys, *args: str) -> str:
    assert main(list(args)) == 2
    return capsys.readouterr().err


def test_a_plan_that_changed_is_refused_and_what_was_trained_is_kept(copied: Path, capsys) -> None:
    before = sorted(p.name for p in (copied / "shards").rglob("*"))
    text = (copied / "run.yaml").read_text()
    (copied / "run.yaml").write_text(text.replace("total_steps=400", "total_steps=800"))
    for command in ("work", "status", "merge"):
        assert "was changed after it was planned" in refused(capsys, command, str(copied))
    (copied / "run.yaml").write_text(text)
    saved = json.loads((copied / "plan.json").read_text())
    (copied / "plan.json").write_text(json.dumps(saved | {"shards": saved["shards"][:1]}))
    assert "was changed after it was planned" in refused(capsys, "merge", str(copied))
    (copied / "plan.json").write_text("{")
    assert "plan.json cannot be read" in refused(capsys, "work", str(copied))
    assert sorted(p.name for p in (copied / "shards").rglob("*")) == before


def test_a_folder_that_is_no_plan_or_another_one_is_refused(
    copied: Path, whole: Path, capsys
) -> None:
    for command in ("work", "status", "merge"):
        assert "is no plan: it has no plan.json" in refused(capsys, command, str(whole))
    err = refused(capsys, "work", str(copied), "plan=0123")
    assert "is not what was launched: plan 0123 there and " in err
    assert "one that all machines share" in err
    assert "takes the folder of a plan" in refused(capsys, "work")
    assert "lr=1 is none of them" in refused(capsys, "work", str(copied), "lr=1")
    assert "wait=maybe must be true or false" in refused(capsys, "work", str(copied), "wait=maybe")


@pytest.mark.parametrize("name", ["jaxvff", "source", "jax"])
def test_workers_of_other_versions_are_refused(
    copied: Path, name: str, capsys, monkeypatch
) -> None:
    real = shards.versions()
    monkeypatch.setattr(shards, "versions", lambda: real | {name: "0.0.9"})
    for command in ("work", "merge", "launch"):
        own = ["on=local"] if command == "launch" else []
        err = refused(capsys, command, str(copied), *own)
        assert "and this machine has 0.0.9: seeds of both would not belong together" in err


def changed(attempt: Path, **changes: object) -> None:
    """Rewrite what a complete shard says of itself."""
    with np.load(attempt / RESULTS) as saved:
        arrays = dict(saved)
    about = json.loads(str(arrays.pop("about"))) | changes
    with (attempt / RESULTS).open("wb") as file:
        np.savez(file, about=np.array(json.dumps(about)), **arrays)


def merged_says(folder: Path) -> str:
    plan, jobs = shards.read(folder), runs.old_run(folder)[1]
    with pytest.raises(UserError) as caught:
        merge.load(folder, plan, jobs)
    assert not (folder / "table.json").exists()
    return str(caught.value)


def test_merge_refuses_shards_that_are_not_all_there(copied: Path) -> None:
    (copied / "shards" / "0001.1.done").unlink()
    elsewhere(copied / "shards" / "0001.1")
    age(copied / "shards" / "0001.1", LEASE_S + 5)
    assert "1 of 2 shards of" in merged_says(copied)
    assert "1 (stale)" in merged_says(copied)


def test_merge_refuses_seeds_that_are_there_twice_or_missing(copied: Path) -> None:
    jobs = runs.old_run(copied)[1]
    twice = shards.Shard(0, range(2), range(0, 2))
    attempt = copied / "shards" / "0001.1"
    changed(attempt, shard=[0, [0, 1], [0, 1]], fingerprint=twice.of(jobs).fingerprint())
    message = merged_says(copied)
    assert "seeds of vdn_lr=0.001 are missing, 4 in all: [5, 6] of sweep value 0" in message
    more = shards.Shard(0, range(2), range(4))
    changed(attempt, shard=[0, [0, 1], [0, 1, 2, 3]], fingerprint=more.of(jobs).fingerprint())
    message = merged_says(copied)
    assert "seeds of vdn_lr=0.001 are there twice, 4 in all: [3, 4] of sweep value 0" in message


def test_merge_refuses_shards_of_another_plan_version_or_config(copied: Path) -> None:
    attempt = copied / "shards" / "0001.1"
    with np.load(attempt / RESULTS) as saved:
        about = json.loads(str(saved["about"]))
    changed(attempt, plan="other")
    assert "is of another plan" in merged_says(copied)
    changed(attempt, plan=about["plan"], versions=about["versions"] | {"jax": "0.1"})
    assert "planned with jax 0.1, and" in merged_says(copied)
    changed(attempt, versions=about["versions"], fingerprint="other")
    assert "has another fingerprint" in merged_says(copied)


def test_merge_refuses_what_is_damaged(copied: Path, capsys) -> None:
    path = copied / "shards" / "0001.1" / RESULTS
    content = path.read_bytes()
    for damage in (b"", content[: len(content) // 2], b"PK" + content[2:400]):
        path.write_bytes(damage)
        assert "is damaged" in merged_says(copied)
    path.write_bytes(content)
    lines = path.with_name("metrics.jsonl")
    lines.write_text("".join(lines.read_text().splitlines(keepends=True)[:-2]))
    assert "lacks reports" in refused(capsys, "merge", str(copied))
