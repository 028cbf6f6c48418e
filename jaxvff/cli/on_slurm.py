"""`on=slurm`: an array of jobs, each a worker, through submitit.

Slurm warns a job before its time is over (SIGUSR2). submitit then asks the task to save, and queues
it again; the next sitting goes on with whatever shard is free.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import Any

from jaxvff.cli.launch import LOGS, Engine, Order, begin, number
from jaxvff.core.errors import UserError, extra

LOOK_S = 0.2
WORKERS, WARN_S, MOST_REQUEUES = 16, 120, 100
TEXTS = ("partition", "account", "qos", "constraint")  # as sbatch takes them
KEYS = ("workers", "time", "warn", "requeue", "cpus", "gpus", "memory", *TEXTS)


class Task:
    """What a job of the array does; submitit pickles it, and calls it on a node."""

    def __init__(self, order: Order) -> None:
        """`order`: as it was launched."""
        self._order = order
        self._process: subprocess.Popen | None = None

    def __call__(self, index: int) -> int:
        """Work until no shard is free; others, or the next launch, have what fails here."""
        if not self._order.folder.is_dir():
            raise UserError(
                f"{self._order.folder} is not there on {os.uname().nodename}: the folder of a plan "
                "has to be on a file system that all nodes share"
            )
        job = os.environ.get("SLURM_JOB_ID", "local")
        self._process = begin(self._order, self._order.log(f"slurm_{job}_{index}"), wait=False)
        waiter = threading.Thread(target=self._process.wait, daemon=True)
        waiter.start()
        _wait_for_end(self._process.pid)
        waiter.join()
        code = self._process.returncode
        if code < 0:
            raise RuntimeError(f"the worker was ended by {signal.Signals(-code).name}")
        return code

    def checkpoint(self, index: int) -> Any:
        """Have the worker save and end; what is queued again, None where nothing is left."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                os.kill(self._process.pid, signal.SIGUSR2)
            _wait_for_end(self._process.pid)
        return DelayedSubmission(Task(self._order), index) if self._order.left() else None


def _wait_for_end(process: int) -> None:
    """Wait until a child is gone, without a lock.

    submitit calls `checkpoint` in a signal handler, above a `__call__` that waits: Popen.wait would
    wait there for the lock that the same thread holds.
    """
    while True:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(LOOK_S)


def start(order: Order) -> int:
    """Queue the jobs.

    Raises:
      UserError: there is no Slurm or no submitit here, or Slurm takes no such job.
    """
    minutes = order.options.get("time", "")
    if not minutes.isdecimal() or int(minutes) < 1:
        raise UserError(
            f"time={minutes} must be Slurm's limit for a job in whole minutes; write time=240"
        )
    asked = _parameters(order, int(minutes))
    n = min(number(order, "workers", WORKERS), order.left())
    if shutil.which("sbatch") is None:
        raise UserError(
            "on=slurm finds no sbatch on the path; launch from a login node of the cluster, or "
            f"start workers in another way: jaxvff work {order.folder}"
        )
    try:
        import submitit
    except ImportError as error:
        raise UserError(f"on=slurm needs submitit; {extra('slurm')}") from error
    requeues = number(order, "requeue", MOST_REQUEUES)
    executor = submitit.AutoExecutor(
        order.folder / LOGS / "slurm", cluster="slurm", slurm_max_num_timeout=requeues
    )
    executor.update_parameters(**asked)
    try:
        jobs = executor.map_array(Task(order), range(n))
    except submitit.core.utils.FailedJobError as error:
        said = " ".join(str(error).split()) or "it does not say why"
        raise UserError(f"Slurm took no job: {said}; nothing has started") from error
    print(f"{n} jobs are queued: {jobs[0].job_id.split('_')[0]} (squeue, scancel)")
    print(f"jaxvff status {order.folder} tells how far they are; launch again to add more")
    return 0


def _parameters(order: Order, minutes: int) -> dict[str, Any]:
    """What submitit hands to sbatch."""
    warn_s = number(order, "warn", WARN_S)
    if warn_s >= 60 * minutes:
        raise UserError(
            f"warn={warn_s} is no less than the {60 * minutes} s of time={minutes}; a job has to "
            "work before it is warned"
        )
    texts = {f"slurm_{key}": order.options[key] for key in TEXTS if key in order.options}
    asked: dict[str, Any] = {
        "name": "jaxvff",
        "timeout_min": minutes,
        "slurm_signal_delay_s": warn_s,
        "cpus_per_task": number(order, "cpus", 1),
        "tasks_per_node": 1,
        **texts,
    }
    if "gpus" in order.options:
        asked["gpus_per_node"] = number(order, "gpus", 1)
    if "memory" in order.options:
        asked["mem_gb"] = number(order, "memory", 1)
    return asked


ENGINE = Engine(KEYS, start)
