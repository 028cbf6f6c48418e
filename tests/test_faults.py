"""Games and workers that break, one kind of fault in each test, with real processes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.envs import custom
from jaxvff.playing.host import memory, process
from jaxvff.playing.host.pool import Pool, TooManyFaults
from jaxvff.runs import checkpoint, execute
from jaxvff.runs.folder import CHECKPOINTS
from jaxvff.runs.plan import plan
from tests.hosts import SMALL, crew, job_in, play, settle, toy_game


def alive(pids: list[int]) -> list[int]:
    """Those of the processes that run; a zombie does not."""
    running = []
    for pid in pids:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                running.append(pid)
        except FileNotFoundError:
            continue
    return running


def test_a_killed_worker_is_noticed_at_once_and_replaced() -> None:
    reported: list[tuple[float, str]] = []
    with Pool(toy_game(), 4, [0], lambda line: reported.append((time.monotonic(), line))) as pool:
        play(pool, 1, 1)
        settle(pool)
        first, other = pool.pids
        seeds = [pool._game_seed(e) for e in range(4)]
        os.kill(first, signal.SIGKILL)
        killed = time.monotonic()
        play(pool, 1, 1)
        settle(pool)
        assert reported[0][0] - killed < 1.0
        assert "was killed by signal 9" in reported[0][1]
        # Its games begin anew, those of the other worker went on.
        np.testing.assert_array_equal(pool.staged.slot[2:], [2, 2])
        assert (pool.staged.slot[:2] <= 1).all()
        assert not pool.staged.ended[:2].any()
        assert pool.restarts == 1
        assert pool.pids[1] == other
        assert pool.pids[0] != first
        now = [pool._game_seed(e) for e in range(4)]
        assert now[0] != seeds[0]
        assert now[2:] == seeds[2:]
        assert play(pool, 8, 1) > 0
    assert not alive([first, other, *pool.pids])


def test_a_worker_that_dies_in_an_episode_takes_that_episode_with_it(tmp_path: Path) -> None:
    """Training goes on, and replay never holds a part of it: every segment ends its episodes."""
    env = toy_game(crew(workers=2), fault="die", once=str(tmp_path / "once"), at_step=2)
    reported: list[str] = []
    with Pool(env, 2, [0], reported.append) as pool:
        seen = []
        for _ in range(6):
            settle(pool)
            seen.append(pool.staged.slot.copy())
            play(pool, 1, 1)
    assert len(reported) == 1
    slots = np.array(seen)
    assert (np.diff(slots, axis=0)[:, 0] != 1).any() or (np.diff(slots, axis=0)[:, 1] != 1).any()


@pytest.mark.parametrize(
    ("fault", "field"),
    [
        ("nan", r"obs\[1, 0\] is nan"),
        ("shape", r"state has shape \[7\], expected \[2\]"),
        ("stuck", "avail: agent 1 has no available action"),
        ("reward", "reward is nan"),
    ],
)
def test_an_episode_with_impossible_values_is_rejected(fault: str, field: str) -> None:
    reported: list[str] = []
    env = toy_game(crew(workers=1), fault=fault, at_step=2, episodes=[1])
    with Pool(env, 2, [0], reported.append) as pool:
        ends = play(pool, 14, 1)
        settle(pool)
        assert np.isfinite(pool.staged.obs).all()
        assert (pool.rejected, pool.restarts) == (2, 0)
    assert ends >= 4
    assert re.search(f"an episode was rejected: game 0, step 2: {field}", reported[0])


def test_a_game_that_raises_is_replaced_and_its_error_is_reported(tmp_path: Path) -> None:
    reported: list[str] = []
    env = toy_game(fault="raise", once=str(tmp_path / "once"))
    with Pool(env, 2, [0], reported.append) as pool:
        play(pool, 6, 1)
        assert pool.restarts == 1
    assert "RuntimeError: the game fell over (toy_game.py:" in reported[0]


def test_a_step_that_takes_too_long_is_given_up(tmp_path: Path) -> None:
    reported: list[str] = []
    env = toy_game(crew(step_timeout=5.0), fault="hang", once=str(tmp_path / "once"))
    with Pool(env, 2, [0], reported.append) as pool:
        began = time.monotonic()
        play(pool, 4, 1)
        assert time.monotonic() - began < 40
        assert pool.restarts == 1
    assert "did not answer within 5 s" in reported[0]


def bytes_on_disk(pid: int) -> int:
    """Of all files that a process has open, but for those it maps and shares with others."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            where, status = os.readlink(link), os.stat(link)
        except FileNotFoundError:  # closed meanwhile
            continue
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 0 and "/dev/shm" not in where:
            total += status.st_blocks * 512
    return total


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files in /proc")
def test_a_game_that_talks_all_the_time_neither_fills_the_disk_nor_the_memory() -> None:
    """200 kB a step, 60 MB in all; the end of it is reported when the worker is lost."""
    reported: list[str] = []
    env = toy_game(crew(workers=1), fault="talk")
    with Pool(env, 1, [0], reported.append) as pool:
        play(pool, 300, 1)
        settle(pool)
        (pid,), (worker,) = pool.pids, pool._workers
        assert bytes_on_disk(pid) + bytes_on_disk(os.getpid()) == 0
        assert len(worker._tail._bytes) == process.LOG_TAIL
        os.kill(pid, signal.SIGKILL)
        play(pool, 1, 1)
        settle(pool)
        assert pool.restarts == 1
    printed = reported[0].split("it printed:\n")[1]
    assert "was killed by signal 9" in reported[0]
    assert re.fullmatch(r"x{1900,2000} at step [0-4]; replaced", printed)


def test_a_child_of_a_game_that_never_stops_printing_is_no_hindrance() -> None:
    with Pool(toy_game(crew(workers=1), fault="chatter"), 1, [0]) as pool:
        while len(pool._workers[0]._tail._bytes) < process.LOG_TAIL:  # until the child is there
            assert play(pool, 100, 1) > 0
        assert play(pool, 100, 1) > 0
        assert len(pool._workers[0]._tail._bytes) == process.LOG_TAIL
        assert pool.restarts == 0
        pids = pool.pids
    assert not alive(pids)


def test_memory_of_games_is_reserved_in_ram_or_else_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it were not reserved, a worker that writes beyond what there is would be killed."""
    told: list[str] = []
    with memory.shared_file(1 << 20, told.append) as file:
        assert os.fstat(file.fileno()).st_blocks * 512 >= 1 << 20
        assert os.fstat(file.fileno()).st_size == 1 << 20
    assert told == []

    ram, disk = tmp_path / "ram", tmp_path / "disk"
    ram.mkdir()
    disk.mkdir()
    free = {ram: 1_000_000, disk: 10_000_000}
    monkeypatch.setattr(memory, "RAM", ram)
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    monkeypatch.setattr(
        shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[Path(folder)])
    )
    with memory.shared_file(2_000_000, told.append) as file:
        assert str(disk) in os.readlink(f"/proc/self/fd/{file.fileno()}")
    assert told == [
        f"the games' episodes (2 MB) are kept on disk, in {disk}, which may be slower: "
        f"{ram} has 1 MB free; a larger {ram} (docker run --shm-size=1g) avoids that"
    ]
    with pytest.raises(
        UserError, match=rf"need 20 MB .*{ram} has 1 MB free, {disk} has 10 MB free; lower n_envs"
    ):
        memory.shared_file(20_000_000, told.append)
    assert list(ram.iterdir()) == list(disk.iterdir()) == []


def test_a_limit_for_files_is_answered_in_a_sentence() -> None:
    """RLIMIT_FSIZE, in a process of its own: a quota that says nothing before a file is made."""
    script = """
        import resource
        from jaxvff.playing.host import memory

        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        try:
            memory.shared_file(1 << 21, print)
        except memory.UserError as error:
            print("refused:", error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.stdout.startswith("refused: the games' episodes need 2.1 MB that are shared")


def test_an_absurd_length_of_episodes_is_refused_before_anything_is_allocated() -> None:
    env = toy_game()
    endless = env._replace(spec=env.spec._replace(episode_limit=10**15))
    with pytest.raises(UserError, match=r"the games' episodes need .* TB .* the longest episode"):
        Pool(endless, 2, [0])


SMALL_SHM = """
    mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77
    exec "$0" -c '
    from jaxvff.core.types import HostEnv
    from tests.hosts import *
    if __name__ == "__main__":
        env = toy_game(crew(workers=2))
        env = env._replace(options={"width": 20000}, spec=env.spec._replace(obs_size=20000))
        with Pool(env, 2, [0], print) as pool:
            print("restarts", pool.restarts, "episodes", play(pool, 12, 1))
    '
"""


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounts a small /dev/shm, which needs root and unshare",
)
def test_a_small_dev_shm_is_no_reason_to_die() -> None:
    """1 MB, as in drill 13: the workers were killed by SIGBUS, eleven times."""
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", textwrap.dedent(SMALL_SHM), sys.executable],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    if done.returncode in (1, 77) and "unshare" in done.stderr + "mount" in done.stderr:
        pytest.skip(f"no mounts here: {done.stderr.strip()}")
    told, played = done.stdout.splitlines()
    assert told.startswith("the games' episodes (1.92 MB) are kept on disk")
    assert "/dev/shm has 1.05 MB free; a larger /dev/shm (docker run --shm-size=1g)" in told
    assert re.fullmatch(r"restarts 0 episodes ([4-9]|\d\d)", played)


def test_too_many_faults_stop_the_pool() -> None:
    env = toy_game(crew(workers=1, max_restarts=3), fault="die")
    with Pool(env, 1, [0], lambda line: None) as pool:
        with pytest.raises(TooManyFaults, match=r"4 faults in 10 minutes, env.max_restarts=3"):
            play(pool, 40, 1)
        assert pool.restarts == 4
    assert not alive(pool.pids)


@pytest.mark.slow
def test_too_many_faults_stop_a_run_with_a_checkpoint(tmp_path: Path) -> None:
    """From its 40th episode on every game dies: what was learned before is kept."""
    env = toy_game(crew(workers=1, max_restarts=0), fault="die", episodes=list(range(40, 99)))
    job = job_in(env, *SMALL)
    quiet = execute.Watcher(tell=lambda line: None)
    with pytest.raises(UserError, match=r"faults.*stopped after [\d,]+ steps, with a checkpoint"):
        list(execute.execute(tmp_path, [job], watcher=quiet))
    saved = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert saved is not None
    # With the game repaired, the run goes on from there.
    repaired = job_in(toy_game(), *SMALL)
    (results,) = execute.execute(tmp_path, [repaired], resume=True)
    assert results[0].step >= 2000


PARENT = """
    import signal

    from jaxvff.playing.host.pool import Pool
    from tests.hosts import play, toy_game

    if __name__ == "__main__":
        # A shell that runs the tests in the background has told all of them to ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with Pool(toy_game(pause=0.01), 4, [0]) as pool:
            print(*pool.pids, flush=True)
            while True:
                play(pool, 1, 1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.slow
def test_nothing_is_left_when_the_parent_ends(number: signal.Signals, tmp_path: Path) -> None:
    """Neither processes nor shared memory, whether it is asked to end or is killed."""
    before = set(os.listdir("/dev/shm")) if Path("/dev/shm").is_dir() else set()
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    root = Path(__file__).resolve().parent.parent
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        start_new_session=True,
    )
    assert parent.stdout is not None
    pids = [int(x) for x in parent.stdout.readline().split()]
    assert len(alive(pids)) == 2
    time.sleep(0.3)
    os.killpg(parent.pid, number)  # as a terminal does it, to the whole process group
    parent.wait(timeout=20)
    for _ in range(50):
        if not alive(pids):
            break
        time.sleep(0.1)
    assert not alive(pids)
    if Path("/dev/shm").is_dir():
        assert set(os.listdir("/dev/shm")) <= before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("env.workers=0", "env.workers=0 is out of range; expected a value in [1, ∞), such as 1"),
        ("env.workers=true", "env.workers=true must be a whole number"),
        ("env.step_timeout=-1", "env.step_timeout=-1 is out of range; expected a value in (0, ∞)"),
        ("env.python=/no/such/python", "is no program; give the path of an interpreter"),
        ("env.max_restart=3", "env.max_restart is no option of custom environments; did you mean"),
        ("env.api=gym", "'gym' is unknown; choose one of pettingzoo, gymnasium"),
    ],
)
def test_bad_options_are_named(option: str, message: str) -> None:
    overrides = ["env=custom", "env.entry=json:loads", "env.time_limit=10", option]
    with pytest.raises(UserError, match=re.escape(message)):
        plan(overrides)


def test_an_entry_that_is_not_there_is_named() -> None:
    with pytest.raises(
        UserError, match=r"No module named 'nowhere'.*write package.module:function"
    ):
        custom.make(custom.Options(entry="nowhere:make", time_limit=3))


def test_a_worker_that_never_starts_says_why() -> None:
    with pytest.raises(UserError, match="did not start: it TypeError"):
        Pool(toy_game(no_such_option=1), 2, [0])
