"""One worker process: started by path, told to step by a byte, answering each with a line."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import tempfile
import time
from collections import deque
from typing import Any

from jaxvff.envs import hosted

POLL_S = 0.2  # between two looks at whether a silent process still lives
TAIL = 2000  # characters of what a worker printed, shown when it is lost
MOST_LOG, LOOK_EVERY = 1 << 20, 4096  # bytes of that kept on disk; answers between two looks at it


class Lost(Exception):
    """A worker died, hung or gave up; the text says which and why."""


class Worker:
    """A process and its pipes. Whatever it prints goes to a file that nobody else sees."""

    def __init__(self, python: str, order: dict[str, Any], memory: int) -> None:
        """Start it; `ready` waits until its games have begun.

        Args:
          python: the interpreter.
          order: see envs/host/worker.py; file descriptors are added here.
          memory: file descriptor of the shared arrays.
        """
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `kill`)
        go, self._go = os.pipe()
        self._answer, answer = os.pipe()
        # The worker ends when the other end of this one closes, and only this process has it.
        lifeline, self._lifeline = os.pipe()
        fds = {"go": go, "answer": answer, "lifeline": lifeline, "memory": memory}
        try:
            self._process = subprocess.Popen(
                hosted.command(python, {**order, **fds}),
                pass_fds=tuple(fds.values()),
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                env=hosted.environment(),
                start_new_session=True,  # Ctrl-C is ours to answer; and its games end with it
            )
        finally:
            for fd in (go, answer, lifeline):
                os.close(fd)
        self._unread = b""
        self._asked = deque([time.monotonic()])  # when, for every answer that is due
        self._answered = 0.0  # when it last was
        self._n_answers = 0

    @property
    def pid(self) -> int:
        """Of the process, which leads a process group of its own."""
        return self._process.pid

    def step(self, group: int) -> None:
        """Ask for a step of the games of a group; `wait` for each that was asked for, in turn."""
        self._asked.append(time.monotonic())
        with contextlib.suppress(BrokenPipeError):  # `wait` says what became of it
            os.write(self._go, bytes([group]))

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """What the worker has to tell after a step (or its start): usually nothing.

        Args:
          timeout_s: since it was asked, or since its last answer if it was busy then.

        Raises:
          Lost: it died, said that it gives up, or did not answer in time.
        """
        due = max(self._asked.popleft(), self._answered) + timeout_s
        while b"\n" not in self._unread:
            left = due - time.monotonic()
            # Look before giving up: the answer may have come while nobody waited for it.
            if select.select([self._answer], [], [], max(0.0, min(left, POLL_S)))[0]:
                part = os.read(self._answer, 1 << 16)
                if not part:
                    raise Lost(self._obituary())
                self._unread += part
            elif self._process.poll() is not None:
                raise Lost(self._obituary())
            elif left <= 0:
                raise Lost(f"did not answer within {timeout_s:g} s")
        self._answered = time.monotonic()
        self._n_answers += 1
        if self._n_answers % LOOK_EVERY == 0:
            self._forget()
        line, _, self._unread = self._unread.partition(b"\n")
        told = json.loads(line) if line else {}
        if "failed" in told:
            raise Lost(told["failed"])
        return told

    def kill(self) -> None:
        """End the process and all it has started; without effect on one that has ended."""
        if self._log.closed:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for fd in (self._go, self._answer, self._lifeline):
            os.close(fd)
        self._log.close()

    def _forget(self) -> None:
        """Give back what a game that prints a lot has printed; the file goes on, with a hole."""
        if os.fstat(self._log.fileno()).st_blocks * 512 > MOST_LOG:
            os.ftruncate(self._log.fileno(), 0)

    def _obituary(self) -> str:
        """How it ended, and what it said last."""
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - TAIL))
        said = self._log.read().decode(errors="replace").strip()
        return f"{how}; it said:\n{said}" if said else how
