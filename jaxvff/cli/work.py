"""`jaxvff work <folder>`: train shards of a plan until none is left."""

from __future__ import annotations

import shlex
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from jaxvff.cli import merge, planned
from jaxvff.runs import shards
from jaxvff.settings import overrides
from jaxvff.training import processes

if TYPE_CHECKING:
    from jaxvff.runs.work import Tally

KEYS = ("wait", "retry", "trust", "plan", *processes.KEYS)


def run(args: list[str]) -> int:
    """Train; the exit code: 0 where nothing is left to do, 1 where shards failed."""
    folder, own = planned.arguments(args, "work", KEYS)
    wait, retry = overrides.flag(own, "wait", True), overrides.flag(own, "retry")
    trusted = overrides.flag(own, "trust")
    meeting = processes.meeting(own)
    planned.same_plan(folder, shards.read(folder), own.get("plan"))
    with planned.opened(folder, trusted, meeting) as found, _stopping() as stop:
        from jaxvff.reports.machine import machine
        from jaxvff.runs.work import Worker

        worker = Worker(
            folder,
            found.plan,
            found.jobs,
            stop=stop,
            tell=_tell,
            machine=machine(),
            first=found.place.first(len(found.plan.shards)),
        )
        tally = worker.work(wait=wait, retry=retry)
        stopped = stop()
    if meeting and found.place.index == 0 and tally.complete:
        return merge.run([str(folder), f"trust={str(trusted).lower()}"])
    return _end(folder, tally, stopped)


def _end(folder: Path, tally: Tally, stopped: bool) -> int:
    """Say where the plan stands when a worker has ended; the exit code."""
    left = sum(s.state != "done" for s in tally.standings)
    failed = sum(s.state == "failed" for s in tally.standings)
    quoted = shlex.quote(str(folder))
    _tell(f"this worker did {tally.done} of {len(tally.standings)} shards; {left} are left")
    if tally.complete:
        _tell(f"all are done: jaxvff merge {quoted}")
        return 0
    if stopped:
        _tell(f"stopped; go on with: jaxvff work {quoted}")
        return 130
    if failed:
        _tell(f"{failed} failed: jaxvff status {quoted} says why; retry=true takes them again")
        return 1
    return 0  # other workers have the rest


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Whether to stop: Ctrl-C and the like, and SIGUSR2, which Slurm sends before its limit."""
    from jaxvff.runs.execute import interruptible

    warned = False

    def on_warning(number: int, frame: FrameType | None) -> None:
        nonlocal warned  # no Event, whose lock a second signal could find taken
        warned = True

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR2, on_warning)
    with interruptible() as stopped:
        yield lambda: stopped() or warned


def _tell(line: str) -> None:
    print(line, flush=True)
