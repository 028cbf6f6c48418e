"""Ctrl-C, SIGTERM and SIGHUP outside of training: one line, and the process ends at once.

While it trains, a first signal becomes a flag (`runs.execute.interruptible`) and a checkpoint.
"""

from __future__ import annotations

import os
import signal
import time
from _thread import allocate_lock, start_new_thread
from types import FrameType
from typing import NoReturn

NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
SECOND_AFTER_S = 0.5  # a terminal that is closed sends SIGHUP twice; a person needs longer
MESSAGE = b"jaxvff: stopped; what was written is kept\n"
TIDY = b"\r\x1b[K\x1b[?25h"  # for terminals: clear the line of a spinner, show the cursor it hides

_leaving = allocate_lock()  # taken by the thread that ends the process, and never released


def leave_on_signals() -> None:
    """From now on a signal ends this process; one that its parent had ignored (nohup) does not.

    The handler runs between two steps of Python in the main thread, which may compile for minutes.
    So a thread looks out for a second signal, and ends the process whatever the main thread does.
    """
    for name in NAMES:
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)
    arrived, arrives = os.pipe()
    os.set_blocking(arrives, False)
    signal.set_wakeup_fd(arrives, warn_on_full_buffer=False)
    start_new_thread(_watch, (arrived,))


def _on_signal(number: int, frame: FrameType | None) -> None:
    # No exception: JAX's callbacks of the garbage collector and imports in C would swallow it.
    _leave(number)


def _watch(arrived: int) -> None:
    """Leave at the second signal. `arrived` is a pipe with a byte, its number, for each."""
    watched = {getattr(signal, name, None) for name in NAMES}
    first_at = None
    while number := os.read(arrived, 1):
        if number[0] not in watched:
            continue
        now = time.monotonic()
        if first_at is None:
            first_at = now
        elif now - first_at > SECOND_AFTER_S:
            _leave(number[0])


def _leave(number: int) -> NoReturn:
    """End the process with the exit code of a program that the signal has ended."""
    if not _leaving.acquire(blocking=False):
        while True:  # another thread is about to end the process
            time.sleep(1)
    message = MESSAGE
    if os.environ.get("TERM") not in (None, "dumb", "unknown"):
        if os.isatty(2):
            message = TIDY + MESSAGE
        elif os.isatty(1):
            _write(1, TIDY)
    _write(2, message)
    os._exit(128 + number)


def _write(descriptor: int, text: bytes) -> None:
    try:
        os.write(descriptor, text)
    except OSError:  # the terminal is gone, and nobody is left to read it
        return
