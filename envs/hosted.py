"""Games on the host, from the outside: the options of their workers, and how large a game is.

A game has two files: `envs/<game>.py` with its options, and `envs/host/<game>.py`, which plays it
in a worker process. This module never imports a game: a worker is asked for its sizes.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Crew, EnvSpec, HostEnv

HERE = Path(__file__).parent / "host"
PROBE_TIMEOUT_S = 300.0  # for a game to say how large it is; StarCraft II takes long to start
TELL_AFTER_S = 10.0  # of them a user is told what is waited for
INTERPRETER = "give the path of an interpreter: Python 3.8 or newer, with NumPy and the game"
LAST_PRINTED = 200  # characters of a worker's last line that a message shows
# One thread a worker: the games share the cores, and their matrix products must not take more.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def command(python: str, order: dict[str, Any]) -> list[str]:
    """The command line of a worker.

    Args:
      python: an interpreter with NumPy and the game; it needs no jaxvff.
      order: what the worker is to do, see envs/host/worker.py.
    """
    return [python, str(HERE), json.dumps(order)]


def environment() -> dict[str, str]:
    """The environment variables of a worker."""
    return {**os.environ, **ONE_THREAD}


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """The options that all games on the host share; a game's own Options inherit them."""

    python: str | None = option(
        None, "interpreter of the workers, with NumPy and the game; null: this one", code=True
    )
    workers: int | None = option(None, "worker processes; null: one per core", low=1)
    step_timeout: float = option(
        120.0,
        "longest step; a step that takes longer is a fault",
        unit="seconds",
        low=0,
        above=True,
    )
    max_restarts: int = option(
        10,
        "faults (lost workers, rejected episodes) that a run survives within restart_minutes",
        low=0,
    )
    restart_minutes: float = option(
        10.0, "how long a fault counts towards max_restarts", unit="minutes", low=0, above=True
    )

    def __post_init__(self) -> None:
        check(self, "env.")
        if self._interpreter() is None:
            raise UserError(f"env.python={self.python!r} is no program; {INTERPRETER}")

    def _interpreter(self) -> str | None:
        return shutil.which(sys.executable if self.python is None else self.python)

    def crew(self) -> Crew:
        """How the worker processes are run."""
        interpreter = self._interpreter()
        assert interpreter is not None
        return Crew(
            python=interpreter,
            workers=self.workers,
            step_timeout=float(self.step_timeout),
            max_restarts=self.max_restarts,
            restart_minutes=float(self.restart_minutes),
        )


def host_env(game: str, arguments: Mapping[str, object], crew: Crew) -> HostEnv:
    """A game of envs/host with its sizes, which a worker is asked for.

    Args:
      game: a module of envs/host.
      arguments: of its `make`, beside the seed; JSON can say them.
      crew: the workers.

    Raises:
      UserError: the game is not installed, or refuses its arguments.
    """
    arguments = dict(arguments)
    told = json.loads(_ask(game, json.dumps(arguments), crew.python))
    if "missing" in told:
        raise UserError(f"{game} cannot be played by {crew.python}: {told['missing']}")
    if "refused" in told:
        raise UserError(told["refused"])
    if "failed" in told:
        raise UserError(f"{game} with {arguments} cannot be made: {told['failed']}")
    sizes = dict(told["spec"])
    results = tuple(sizes.pop("results"))
    return HostEnv(
        spec=EnvSpec(**sizes),
        results=results,
        game=game,
        options=arguments,
        crew=crew,
        signature=(game, json.dumps(arguments, sort_keys=True), crew),
    )


@functools.lru_cache(maxsize=64)
def _ask(game: str, arguments: str, python: str) -> str:
    """What a worker tells of a game, as JSON.

    Args:
      game: a module of envs/host.
      arguments: of its `make`, as JSON, which unlike a dict can be cached.
      python: the worker's interpreter.

    Raises:
      UserError: it takes too long, or ends without an answer.
    """
    order = {"only_spec": True, "game": game, "options": json.loads(arguments), "seeds": [0]}
    # Files, not pipes: a game may print much, and leave processes that hold a pipe open.
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as printed:
        order["answer"] = answer.fileno()
        told_of = threading.Timer(TELL_AFTER_S, _tell_of_waiting, [game])
        told_of.daemon = True
        told_of.start()
        try:
            done = subprocess.run(
                command(python, order),
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                pass_fds=(answer.fileno(),),
                timeout=PROBE_TIMEOUT_S,
                env=environment(),
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"{game} did not start within {PROBE_TIMEOUT_S:g} s{_last(_content(printed))}; "
                "start the game by itself to see what it waits for"
            ) from error
        except OSError as error:
            raise UserError(
                f"env.python={python!r} cannot be started: {error.strerror}; {INTERPRETER}"
            ) from error
        finally:
            told_of.cancel()
        told, last = _content(answer), _last(_content(printed))
    if told:
        return told
    how = f"ended with exit code {done.returncode}"
    if done.returncode < 0:
        how = f"was killed by signal {-done.returncode}"
    raise UserError(
        f"{game} did not start: env.python={python!r} {how} before it answered{last};"
        f" {INTERPRETER}, and see that the game does not end it"
    )


def _tell_of_waiting(game: str) -> None:
    print(
        f"waiting for {game} to start, up to {PROBE_TIMEOUT_S:g} s; Ctrl-C ends it",
        file=sys.stderr,
        flush=True,
    )


def _last(printed: str) -> str:
    """The last line that a worker printed, for a message; empty if it printed none."""
    lines = printed.strip().splitlines()
    return f"; it printed last: {lines[-1][:LAST_PRINTED]}" if lines else ""


def _content(file: BinaryIO) -> str:
    """All that a process wrote to a file."""
    file.seek(0)
    return file.read().decode(errors="replace")
