"""One worker process, and the protocol between it and the pool that started it.

The pool starts a worker with a JSON text on its command line: the game, its options and sizes, a
seed for each of its games, and the numbers of the file descriptors below. From then on:

- The pool writes one byte for each step that it asks for: 0 or 1, the half of the games to step.
  It may write the next byte before the answer to the one before has come. Byte 2 asks all games to
  begin anew.
- The worker answers with one line when its games have begun, and with one for each byte, in order.
  An empty line says that all went well. Otherwise it is a JSON object: {"rejected": [text, ...]}
  for episodes that the worker gave up and began anew, {"failed": text} when the worker itself ends.
- Actions and observations are not sent: they lie in shared memory (envs/host/shared.py).
- The pool never writes to a third pipe, the lifeline. It closes when the pool's process ends,
  however that happens, and the worker then ends as well.

The other side of the protocol is envs/host/worker.py.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque

from jaxvff.envs import hosted
from jaxvff.envs.host.worker import BEGIN_ANEW

POLL_S = 0.2  # between two checks whether a silent process is still alive
LOG_TAIL = 2000  # bytes of a worker's output that are kept, and shown when it is lost
LAST_WORDS_S = 0.5  # to read what a process has printed that has ended; its children may live on


class WorkerLost(Exception):
    """A worker died, hung or gave up; the text says which and why."""


class Worker:
    """A process and its pipes. The end of what it prints is kept, for error messages."""

    def __init__(self, python: str, order: dict[str, object], memory_fd: int) -> None:
        """Start the process; the first `wait` returns when its games have begun.

        Args:
          python: the interpreter.
          order: what the worker plays, see `Pool`; the file descriptors are added here.
          memory_fd: file descriptor of the shared arrays.
        """
        requests, self._requests = os.pipe()  # ours is the end that writes
        self._answers, answers = os.pipe()
        lifeline, self._lifeline = os.pipe()
        printed, prints = os.pipe()
        descriptors = {
            "go": requests,
            "answer": answers,
            "lifeline": lifeline,
            "memory": memory_fd,
        }
        try:
            self._process = subprocess.Popen(
                hosted.command(python, {**order, **descriptors}),
                pass_fds=tuple(descriptors.values()),
                stdin=subprocess.DEVNULL,
                stdout=prints,
                stderr=subprocess.STDOUT,
                env=hosted.environment(),
                # A session of its own: Ctrl-C reaches only the pool, and `kill` reaches all
                # processes that the game has started.
                start_new_session=True,
            )
        finally:
            for descriptor in (requests, answers, lifeline, prints):
                os.close(descriptor)
        self._tail = _Tail(printed)
        self._ended = False  # `kill` was called
        self._unread = b""  # the start of a line whose end has not come yet
        self._asked_at = deque([time.monotonic()])  # one for every answer that is still to come
        self._answered_at = 0.0  # when the last answer came

    @property
    def pid(self) -> int:
        """Process id, and the id of the process group that it leads."""
        return self._process.pid

    def step(self, half: int) -> None:
        """Ask for a step of the games of a half, 0 or 1; call `wait` once for each request."""
        self._asked_at.append(time.monotonic())
        with contextlib.suppress(BrokenPipeError):  # the process has ended; `wait` says how
            os.write(self._requests, bytes([half]))

    def begin_anew(self) -> None:
        """Ask for all games to begin anew, with the seeds in shared memory; `wait` once."""
        self.step(BEGIN_ANEW)

    def wait(self, timeout_s: float) -> list[str]:
        """Wait for the answer to the oldest request, or for the start of the games.

        Args:
          timeout_s: seconds since the request, or since the answer before if that came later.

        Returns:
          What was wrong with each episode that the worker rejected; usually empty.

        Raises:
          WorkerLost: it died, gave up, or did not answer in time.
        """
        deadline = max(self._asked_at.popleft(), self._answered_at) + timeout_s
        while b"\n" not in self._unread:
            self._read_more(deadline, timeout_s)
        self._answered_at = time.monotonic()
        line, _, self._unread = self._unread.partition(b"\n")
        answer = json.loads(line) if line else {}
        if "failed" in answer:
            raise WorkerLost(answer["failed"])
        return answer.get("rejected", [])

    def kill(self) -> None:
        """End the process and all that it has started; without effect the second time."""
        if self._ended:
            return
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for descriptor in (self._requests, self._answers, self._lifeline):
            os.close(descriptor)

    def _read_more(self, deadline: float, timeout_s: float) -> None:
        """Read what the worker has written; if nothing came, check that it lives and has time."""
        left_s = deadline - time.monotonic()
        # Look before giving up: the answer may have come while nobody waited for it.
        if select.select([self._answers], [], [], max(0.0, min(left_s, POLL_S)))[0]:
            part = os.read(self._answers, 1 << 16)
            if not part:  # the worker's end of the pipe is closed
                raise WorkerLost(self._how_it_ended())
            self._unread += part
        elif self._process.poll() is not None:
            raise WorkerLost(self._how_it_ended())
        elif left_s <= 0:
            raise WorkerLost(f"did not answer within {timeout_s:g} s")

    def _how_it_ended(self) -> str:
        """Exit code or signal of the process, and the end of what it printed."""
        code = self._process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        printed = self._tail.text()
        return f"{how}; it printed:\n{printed}" if printed else how


class _Tail:
    """The end of what a process and its children print, read by a thread.

    A game may print as much as it likes: nothing of it is written to disk, and it never waits for
    the pool, which may be busy.
    """

    def __init__(self, descriptor: int) -> None:
        """`descriptor` is the end of the pipe that is read; closed when nobody can write to it."""
        self._bytes = b""
        self._thread = threading.Thread(target=self._read, args=(descriptor,), daemon=True)
        self._thread.start()

    def text(self) -> str:
        """Its last LOG_TAIL bytes, as text. Call it when the process has ended."""
        self._thread.join(LAST_WORDS_S)
        return self._bytes.decode(errors="replace").strip()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=0) as pipe:
            while part := pipe.read(1 << 16):
                self._bytes = (self._bytes + part)[-LOG_TAIL:]
