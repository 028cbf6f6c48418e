"""Games and workers that break, one kind of fault in each test, with real processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.envs import custom
from jaxvff.playing.host import process
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


def test_a_game_that_talks_all_the_time_does_not_fill_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "LOG_CHECK_INTERVAL", 8)
    with Pool(toy_game(crew(workers=1), fault="talk"), 1, [0]) as pool:
        play(pool, 300, 1)  # 2 MB or more
        assert (
            os.fstat(pool._workers[0]._log.fileno()).st_blocks * 512 < 1.2 * process.MAX_LOG_BYTES
        )


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
        ("env.workers=true", "env.workers=True must be a whole number"),
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
