"""`on=ray`: workers as tasks of a Ray cluster, which may gain and lose nodes meanwhile."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvff.cli.launch import Engine, Order, begin, end, number
from jaxvff.core.errors import UserError, extra

WORKERS = 16
CONNECT_S = 5.0
KEYS = ("workers", "address", "cpus", "gpus")
# Started by `uv run`, Ray would have every node build this project's environment anew.
OWN_ENVIRONMENT = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
GONE = "what workers finished or saved is kept; launch again to go on"


def start(order: Order) -> int:
    """Start the tasks, and wait for them. Ray begins those again whose node is lost.

    Raises:
      UserError: there is no Ray or no cluster, or it is gone before the end.
    """
    n = min(number(order, "workers", WORKERS), order.left())
    cpus = number(order, "cpus", 1)
    gpus = 0 if order.options.get("gpus", "0") == "0" else number(order, "gpus", 1)
    os.environ.setdefault(OWN_ENVIRONMENT, "0")  # Ray reads it when it is imported
    try:
        import ray
    except ImportError as error:
        raise UserError(f"on=ray needs Ray; {extra('ray')}") from error
    address = order.options.get("address", "auto")
    _check_reachable(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, str(error)) from error
    task = ray.remote(max_retries=-1, num_cpus=cpus, num_gpus=gpus)(work)
    print(f"{n} workers on the Ray cluster at {address}", flush=True)
    try:
        ray.get([task.remote(order, index, cpus) for index in range(n)])
    except ray.exceptions.RayTaskError as error:
        raise UserError(f"a worker on the cluster said: {error.cause}; {GONE}") from error
    except ray.exceptions.RayError as error:
        raise UserError(f"the Ray cluster at {address} is gone: {_first(error)}; {GONE}") from error
    finally:
        ray.shutdown()
    return end(order)


def work(order: Order, index: int, cpus: int) -> int:
    """A task: a worker on whatever node Ray has chosen."""
    node = socket.gethostname()
    if not order.folder.is_dir():
        raise UserError(
            f"{order.folder} is not there on {node}: the folder of a plan has to be on a file "
            "system that all nodes share"
        )
    with _cores(cpus) as mine:
        process = begin(order, order.log(f"ray_{node}_{index}"), wait=True)
        if mine:
            with contextlib.suppress(ProcessLookupError):  # it has ended; its log says why
                os.sched_setaffinity(process.pid, mine)
        code = _wait(process)
    if code < 0:  # Ray begins the task again
        raise SystemExit(f"the worker was ended by {signal.Signals(-code).name}")
    return code


def _wait(process: subprocess.Popen) -> int:
    """Wait for a worker; it ends, with a checkpoint, where Ray ends the task."""
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        raise


@contextmanager
def _cores(n: int) -> Iterator[list[int]]:
    """Cores of this node that no other task has, where the system can bind processes to cores.

    Ray counts cores and binds nobody to them, and JAX would take all that it sees.
    """
    if not hasattr(os, "sched_getaffinity"):
        yield []
        return
    cores = sorted(os.sched_getaffinity(0))
    folder = Path(tempfile.gettempdir()) / f"jaxvff_cores_{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for first in range(0, len(cores) - n + 1, n):
        with (folder / str(cores[first])).open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield cores[first : first + n]
            return
    yield []  # more tasks than cores: they share all of them


def _check_reachable(address: str) -> None:
    """Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return
    try:
        socket.create_connection((host, int(port)), CONNECT_S).close()
    except OSError as error:
        raise _unreachable(address, error.strerror or str(error)) from error


def _unreachable(address: str, why: str) -> UserError:
    return UserError(
        f"no Ray cluster at address={address}: {why.splitlines()[0] if why else 'no answer'}; "
        "start one (ray start --head), or name it: address=<host>:6379"
    )


def _first(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


ENGINE = Engine(KEYS, start)
