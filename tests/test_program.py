"""The process around the commands, each claim with real processes: signals, faults, JAX's switches,
output that goes away."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaxvff.api import switches
from jaxvff.cli import faults, help_texts, streams
from jaxvff.core.errors import UserError
from tests.test_run import metrics

JAXVFF = [sys.executable, "-m", "jaxvff"]
SMALL = ["env=matrix/a", "seeds=1", "learn_start=32", "batch_size=32"]
SHORT = [*SMALL, "total_steps=200", "eval_interval=100"]
STOPPED = "jaxvff: stopped; what was written is kept"


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables: a compilation cache of this module's own, and no more of JAX's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return {**kept, "JAXVFF_CACHE": str(tmp_path_factory.mktemp("cache")), "TERM": "dumb"}


def jaxvff(*args: str, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*JAXVFF, *args], capture_output=True, text=True, **more)  # type: ignore[call-overload]


@contextlib.contextmanager
def started(*args: str, env: dict[str, str], cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that takes signals as in a terminal, whatever this one was told to ignore."""

    def as_in_a_terminal() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    with subprocess.Popen(
        [*JAXVFF, *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=env,
        preexec_fn=as_in_a_terminal,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_handlers(process: subprocess.Popen[str]) -> None:
    """Until the program's first lines have run: Python itself does not catch SIGTERM."""
    status = Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        (caught,) = (x for x in status.read_text().splitlines() if x.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1:
            return
        time.sleep(0.001)


def wait_for(path: Path) -> None:
    for _ in range(6000):
        if path.exists() and path.stat().st_size:
            return
        time.sleep(0.01)
    raise AssertionError(f"{path} has not come")


LONG = [*SMALL, "total_steps=20000000", "eval_interval=1000", "run_dir=run"]
needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize(
    ("number", "after_s"), [(signal.SIGINT, 0.0), (signal.SIGINT, 0.6), (signal.SIGTERM, 0.3)]
)
def test_a_signal_while_importing_ends_the_program_with_a_line(
    number: signal.Signals, after_s: float, compiled: dict[str, str], tmp_path: Path
) -> None:
    with started("train", *LONG, env=compiled, cwd=tmp_path) as process:
        wait_for_handlers(process)
        time.sleep(after_s)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"{STOPPED}\n"
    assert list(tmp_path.iterdir()) == []


@needs_proc
@pytest.mark.slow
def test_ctrl_c_at_eight_moments_of_the_start(compiled: dict[str, str], tmp_path: Path) -> None:
    """From 0.02 s to the first report. Never lost, never a traceback; once it trains, it saves."""
    for name in ("warm", "timed"):  # the first one compiles what the others take from the cache
        (tmp_path / name).mkdir()
        began = time.monotonic()
        with started("train", *LONG, env=compiled, cwd=tmp_path / name) as process:
            wait_for(tmp_path / name / "run" / "metrics.jsonl")
            first_report_s = time.monotonic() - began

    saved = 0
    for i in range(8):
        (folder := tmp_path / str(i)).mkdir()
        with started("train", *LONG, env=compiled, cwd=folder) as process:
            time.sleep(0.02 + i / 7 * first_report_s)
            wait_for_handlers(process)  # Python's own start cannot be helped
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=120)
        assert process.returncode == 130
        if "interrupted; continue with: jaxvff train resume=run" in out:
            assert err == ""
            assert any((folder / "run" / "checkpoint").iterdir())
            saved += 1
        else:
            assert err == f"{STOPPED}\n"
            assert not (folder / "run" / "checkpoint").exists()
    assert 1 <= saved <= 7


@needs_proc
@pytest.mark.slow
def test_a_second_ctrl_c_leaves_at_once_also_while_xla_compiles(
    compiled: dict[str, str], tmp_path: Path
) -> None:
    slow = ["env=smax/3m", "method=qmix", "seeds=2", "compilation_cache=false", "run_dir=run"]
    with started("train", *slow, env=compiled, cwd=tmp_path) as process:
        wait_for(tmp_path / "run" / "config.yaml")  # written just before it compiles
        process.send_signal(signal.SIGINT)
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, err = process.communicate(timeout=120)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert err == f"{STOPPED}\n"


@needs_proc
@pytest.mark.slow
def test_what_stability_has_answered_survives_ctrl_c(
    compiled: dict[str, str], tmp_path: Path
) -> None:
    with started("stability", "run_dir=run", env=compiled, cwd=tmp_path) as process:
        wait_for(tmp_path / "run" / "points.json")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert err == f"{STOPPED}\n"
    assert json.loads((tmp_path / "run" / "points.json").read_text())


@needs_proc
def test_a_signal_that_was_ignored_at_the_start_stays_ignored() -> None:
    """As with nohup, or `&` in a script."""
    script = """
        import os, signal
        from jaxvff.cli import signals

        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signals.leave_on_signals()
        os.kill(os.getpid(), signal.SIGHUP)
        print("it goes on", flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        print("never said")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (143, "it goes on\n")


def test_two_hangups_of_a_terminal_that_is_closed_count_as_one() -> None:
    """A shell and the kernel both send one. The program that saves a checkpoint goes on saving."""
    script = """
        import os, signal, time
        from jaxvff.cli import signals

        signals.leave_on_signals()
        signal.signal(signal.SIGHUP, lambda number, frame: None)  # while training: a flag
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(0.7)
        print("saved", flush=True)
        os.kill(os.getpid(), signal.SIGHUP)
        time.sleep(10)
        print("never said")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (129, "saved\n")


FAULT = """
    import sys
    from jaxvff.cli import main, program

    def broken(rest):
        error = {error}
        error.add_note("what was written is kept in runs/x; go on with: jaxvff train resume=runs/x")
        raise error

    main.COMMANDS = {{"train": broken}}
    program.program()
"""


def run_with_fault(error: str, *args: str, home: Path) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(FAULT.format(error=error))
    return subprocess.run(
        [sys.executable, "-c", script, "train", "lr=0.1", *args],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home), "XDG_STATE_HOME": ""},
    )


def test_a_fault_is_told_in_three_lines_and_its_log_has_the_rest(tmp_path: Path) -> None:
    done = run_with_fault("TypeError('three\\nlines\\nof it')", home=tmp_path)
    assert done.returncode == 1
    what, kept, where = done.stderr.splitlines()
    assert what == (
        "jaxvff: unexpected TypeError: three (a fault of jaxvff, not of what you typed)"
    )
    assert kept == (
        "jaxvff: what was written is kept in runs/x; go on with: jaxvff train resume=runs/x"
    )
    log = Path(where.removeprefix("jaxvff: the traceback is in "))
    assert log.is_relative_to(tmp_path)
    text = log.read_text()
    assert "command: jaxvff train lr=0.1\n" in text
    assert "jax " in text and "python 3." in text
    assert "Traceback" in text and "lines\nof it" in text

    again = run_with_fault("TypeError('x')", "--debug", home=tmp_path)
    assert again.returncode == 1
    assert "Traceback (most recent call last)" in again.stderr
    assert "in broken" in again.stderr
    assert "--debug" in help_texts.GENERAL


def test_a_fault_in_a_thread_is_told_without_a_traceback(tmp_path: Path) -> None:
    """Checkpoints are written by threads, whose tracebacks Python would show."""
    script = """
        import threading
        from jaxvff.cli import main, program

        def command(rest):
            thread = threading.Thread(target=lambda: int("x"))
            thread.start()
            thread.join()
            return 0

        main.COMMANDS = {"train": lambda rest: command(rest)}
        program.program()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), "train"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": ""},
    )
    assert done.returncode == 1
    what, where = done.stderr.splitlines()
    assert what.startswith("jaxvff: unexpected ValueError: invalid literal for int()")
    assert where.startswith(f"jaxvff: the traceback is in {tmp_path}")


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_fills_no_screen(
    compiled: dict[str, str], tmp_path: Path
) -> None:
    """A name that begins with a backslash, which tensorstore refuses: 480 lines of orbax."""
    (folder := tmp_path / "\\back").mkdir()
    done = jaxvff("train", *SHORT, "run_dir=run", env=compiled, cwd=folder)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert 1 <= done.stderr.count("\n") <= 3
    assert all(line.startswith("jaxvff: ") for line in done.stderr.splitlines())


def test_memory_that_is_used_up_is_no_fault_and_has_a_remedy(tmp_path: Path) -> None:
    done = run_with_fault("RuntimeError('RESOURCE_EXHAUSTED: 9 GB')", home=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("jaxvff: out of memory (RuntimeError: RESOURCE_EXHAUSTED: 9 GB)")
    assert "fewer seeds=" in done.stderr.splitlines()[0]


def test_logs_do_not_pile_up_and_may_have_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(faults.platformdirs, "user_log_dir", lambda name: str(tmp_path / "logs"))
    for i in range(25):
        faults.tell(ValueError(i), ["train"])
    kept = sorted((tmp_path / "logs").iterdir())
    assert len(kept) == faults.KEPT_LOGS
    assert any("ValueError: 24" in path.read_text() for path in kept)

    monkeypatch.setattr(faults.platformdirs, "user_log_dir", lambda name: "/proc/nowhere/x")
    monkeypatch.setattr(faults.tempfile, "tempdir", str(tmp_path))
    capsys.readouterr()
    faults.tell(ValueError("no home"), ["train"])
    (log,) = tmp_path.glob("jaxvff_*.log")
    assert str(log) in capsys.readouterr().err


@pytest.fixture(scope="module")
def plain(compiled: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without any switch."""
    folder = tmp_path_factory.mktemp("plain")
    assert jaxvff("train", *SHORT, "run_dir=run", env=compiled, cwd=folder).returncode == 0
    return folder / "run"


REFUSED = [
    ("JAX_ENABLE_X64", "1", "jaxvff needs False"),
    ("JAX_ENABLE_X64", "perhaps", "invalid truth value 'perhaps'"),
    ("JAX_DISABLE_JIT", "1", "jaxvff needs False"),
    ("JAX_NUMPY_DTYPE_PROMOTION", "strict", "jaxvff needs standard"),
    ("JAX_NUMPY_RANK_PROMOTION", "raise", "jaxvff needs allow"),
    ("JAX_DEFAULT_PRNG_IMPL", "rbg", "jaxvff needs threefry2x32"),
    ("JAX_THREEFRY_PARTITIONABLE", "0", "jaxvff needs True"),
    ("JAX_RANDOM_SEED_OFFSET", "5", "jaxvff needs 0"),
    ("JAX_DEBUG_KEY_REUSE", "1", "jaxvff needs False"),
    ("JAX_TRANSFER_GUARD", "disallow", "jaxvff needs allow"),
    ("JAX_NO_TRACING", "1", "jaxvff needs False"),
    ("JAX_PLATFORMS", "nonsense", "set JAX_PLATFORMS=cpu"),
    ("JAX_PLATFORM_NAME", "nonsense", "unset JAX_PLATFORM_NAME"),
    ("XLA_FLAGS", "--xla_nonsense=1", "Unknown flag in XLA_FLAGS: --xla_nonsense=1"),
    ("XLA_FLAGS", "--xla_cpu_enable_fast_math=maybe", "Couldn't interpret value maybe"),
]


def refused(those: list[tuple[str, str, str]]) -> pytest.MarkDecorator:
    names = [f"{variable}={value}" for variable, value, _ in those]
    return pytest.mark.parametrize(("variable", "value", "remedy"), those, ids=names)


@refused(REFUSED)
def test_a_switch_of_jax_that_breaks_a_run_or_changes_its_numbers_is_refused(
    variable: str, value: str, remedy: str, compiled: dict[str, str], tmp_path: Path
) -> None:
    done = jaxvff("train", *SHORT, "run_dir=run", env={**compiled, variable: value}, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("jaxvff: ")
    for part in (variable, value, remedy):
        assert part in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@refused(REFUSED[::5])
def test_evaluate_refuses_the_same_switches(
    variable: str, value: str, remedy: str, compiled: dict[str, str], plain: Path
) -> None:
    done = jaxvff("evaluate", f"run={plain}", env={**compiled, variable: value})
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert remedy in done.stderr


def test_cuda_without_a_gpu_is_answered() -> None:
    script = "import jax; jax.devices()"
    env = {**os.environ, "JAX_PLATFORMS": "cuda"}
    if not subprocess.run([sys.executable, "-c", script], env=env, capture_output=True).returncode:
        pytest.skip("there is a GPU")
    done = jaxvff("train", *SHORT, env=env)
    assert done.returncode == 2
    assert done.stderr.startswith("jaxvff: JAX_PLATFORMS=cuda gives no device: ")
    assert "set JAX_PLATFORMS=cpu" in done.stderr


# Those of a line at once, in one process.
WITHOUT_EFFECT = [
    ("JAX_DEBUG_NANS=1", "JAX_CHECK_TRACER_LEAKS=1", "JAX_ENABLE_CHECKS=1"),
    ("JAX_DEFAULT_DTYPE_BITS=16", "JAX_ENABLE_CUSTOM_PRNG=1", "JAX_NUM_CPU_DEVICES=3"),
    ("JAX_COMPILATION_CACHE_DIR=/proc/nowhere", "MPLCONFIGDIR=/proc/nowhere", "HOME=/proc/nowhere"),
    ("JAX_PLATFORMS=cpu", "XLA_FLAGS=--xla_force_host_platform_device_count=3", "OMP_NUM_THREADS=1",
     "JAX_TRACEBACK_FILTERING=tracebackhide", "TF_CPP_MIN_LOG_LEVEL=0",
     "MPLBACKEND=module://matplotlib_inline.backend_inline"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("settings", WITHOUT_EFFECT, ids=" ".join)
def test_other_variables_change_no_number(
    settings: tuple[str, ...], compiled: dict[str, str], plain: Path, tmp_path: Path
) -> None:
    env = compiled | dict(setting.split("=", 1) for setting in settings)
    done = jaxvff("train", *SHORT, "run_dir=run", env=env, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "run") == metrics(plain)
    assert (tmp_path / "run" / "curves.png").exists()


def test_jax_of_a_notebook_is_left_as_it_is() -> None:
    """`main` in a process that has set JAX up says nothing of it, and changes no signal."""
    script = """
        import signal
        import jax
        from jaxvff.cli import start

        jax.config.update("jax_numpy_rank_promotion", "warn")
        before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        with start.importing():
            print(jax.config.jax_numpy_rank_promotion)
        assert before == [
            signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        ]
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True
    )
    assert done.stdout == "warn\n", done.stderr


def test_flags_are_read_by_another_process_before_jax_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "no_such_file")
    with pytest.raises(UserError, match="XLA_FLAGS='no_such_file' cannot be read by XLA: Could"):
        switches.import_jax()


def shell(command: str, **more: object) -> subprocess.CompletedProcess[str]:
    program = f"{sys.executable} -m jaxvff"
    return subprocess.run(  # type: ignore[call-overload]
        ["bash", "-c", command.replace("JAXVFF", program)], capture_output=True, text=True, **more
    )


@pytest.mark.parametrize(
    "command",
    [
        "JAXVFF train --help | head -1 > /dev/null; exit ${PIPESTATUS[0]}",
        "JAXVFF --help | true; exit ${PIPESTATUS[0]}",
        "JAXVFF --help >&-",
        "JAXVFF --help >&- 2>&- <&-",
        "JAXVFF --help > /dev/full",
    ],
)
def test_help_that_nobody_reads_is_no_mistake(command: str) -> None:
    done = shell(command)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "where", ["| head -1 > /dev/null; exit ${PIPESTATUS[0]}", ">&- 2>&- <&-", "> /dev/full"]
)
def test_a_training_whose_output_goes_away_goes_on(
    where: str, compiled: dict[str, str], plain: Path, tmp_path: Path
) -> None:
    done = shell(f"JAXVFF train {' '.join(SHORT)} run_dir=run {where}", env=compiled, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert metrics(tmp_path / "run") == metrics(plain)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(
        p.name for p in plain.iterdir()
    )


@pytest.mark.slow
def test_no_number_is_cut_in_a_narrow_terminal_that_speaks_ascii(
    compiled: dict[str, str], plain: Path
) -> None:
    env = {**compiled, "COLUMNS": "40", "PYTHONIOENCODING": "ascii"}
    done = jaxvff("evaluate", f"run={plain}", env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "..." not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 40


def test_characters_that_a_terminal_does_not_have_are_replaced() -> None:
    script = (
        "from jaxvff.cli import streams; streams.keep_output_going(); print('5 ≥ λ · ü \\udcff')"
    )
    for encoding, shown in (("ascii", "5 >= lambda . ? ?"), ("utf-8", "5 ≥ λ · ü ?")):
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert done.stdout == f"{shown}\n"
    assert all(text.isascii() for text in streams.PLAIN.values())
