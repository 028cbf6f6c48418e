"""`on=local`: a worker for each GPU of this machine, several that share one, or the cores."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from types import FrameType

from jaxvff.cli.launch import Engine, Order, begin, end, number

LOOK_S = 0.5
FEWEST_S = 5.0  # a worker that lives shorter is replaced no faster than that ...
MOST_SHORT = 5  # ... and no more often than that in a row
# How JAX takes a GPU's memory. Unless one of them is set it takes three quarters of it at once.
MEMORY = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def start(order: Order) -> int:
    """Start the workers, replace those that are killed, and wait until nothing is left.

    A worker that ends by itself is not replaced: the shards are done, or it has told why not.
    """
    devices = gpus()
    n = min(number(order, "workers", len(devices) or 1), order.left())
    stopped = _stop_on_signals()
    slots = [_Slot(order, i, n, devices) for i in range(n)]
    print(f"{n} workers on this machine; what they print: {order.folder / 'logs'}", flush=True)
    told = False
    # Not any(): every slot has to be asked, since each replaces its own worker.
    while sum(slot.alive(again=not stopped.is_set()) for slot in slots):
        if stopped.is_set() and not told:
            told = True
            print("stopping: every worker saves a checkpoint first", flush=True)
            for slot in slots:
                slot.stop()
        time.sleep(LOOK_S)
    code = end(order)
    return 130 if stopped.is_set() and code else code


class _Slot:
    """The place of a worker: its GPU, or its share of the cores."""

    def __init__(self, order: Order, index: int, n: int, devices: list[str]) -> None:
        self._order, self._index = order, index
        self._env = on_gpu(index, n, devices) if devices else {}
        self._cores = [] if devices else share(index, n)
        self._short_lives, self._given_up = 0, False
        self._ended: float | None = None
        self._process = self._begin()

    def alive(self, *, again: bool) -> bool:
        """Whether its worker lives, or, where it was killed, another one in its place."""
        code = self._process.poll()
        if code is None:
            return True
        if self._given_up:
            return False
        if not (again and code < 0 and self._order.left()):  # < 0: killed
            return False
        if self._ended is None:
            self._ended = time.monotonic()
            short = self._ended - self._began < FEWEST_S
            self._short_lives = self._short_lives + 1 if short else 0
        if self._short_lives > MOST_SHORT:
            print(f"worker {self._index} dies as soon as it begins; see its log", flush=True)
            self._given_up = True
            return False
        if time.monotonic() - self._began > FEWEST_S:
            name = signal.Signals(-code).name
            print(f"worker {self._index} was ended by {name}; another one begins", flush=True)
            self._process = self._begin()
        return True

    def stop(self) -> None:
        """Let it save and end."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def _begin(self) -> subprocess.Popen:
        self._began, self._ended = time.monotonic(), None
        log = self._order.log(f"local_{self._index}")
        process = begin(self._order, log, wait=True, env=self._env)
        if self._cores:
            try:
                os.sched_setaffinity(process.pid, self._cores)  # before it imports JAX
            except ProcessLookupError:
                return process  # it has ended already, and its log says why
        return process


def on_gpu(index: int, n: int, devices: list[str]) -> dict[str, str]:
    """The variables of one of n workers: its GPU, of whose memory it leaves some to the others."""
    own = {"CUDA_VISIBLE_DEVICES": devices[index % len(devices)]}
    if n > len(devices) and not any(name in os.environ for name in MEMORY):
        own[MEMORY[0]] = "false"
    return own


def share(index: int, n: int) -> list[int]:
    """The cores of one of n workers; nothing where the system cannot bind processes to cores."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    mine = sorted(os.sched_getaffinity(0))
    if n >= len(mine):
        return [mine[index % len(mine)]]
    return mine[index::n]


def gpus() -> list[str]:
    """The GPUs that workers may use, as CUDA_VISIBLE_DEVICES names them; without starting JAX."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    if platforms.split(",")[0] == "cpu":
        return []
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    if not Path("/proc/driver/nvidia").exists():
        return []
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    except OSError:
        return []
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU")]


def _stop_on_signals() -> threading.Event:
    """Set by the first Ctrl-C or SIGTERM: the workers are told, and waited for."""
    stopped = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopped.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, on_signal)
    return stopped


ENGINE = Engine(("workers",), start)
