"""`jaxvff launch <folder> on=<engine>`: start workers for a plan where there is room for them."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from jaxvff.cli import planned, status
from jaxvff.core.errors import UserError, check_name
from jaxvff.core.registry import Registry
from jaxvff.runs import shards
from jaxvff.runs.leases import Shelf, Standing
from jaxvff.settings import overrides

LOGS = "logs"  # in the folder of a plan: what its workers print
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG


class Order(NamedTuple):
    """What is launched: the same command for every worker."""

    folder: Path  # absolute: workers may begin elsewhere
    plan: str  # its id, by which a worker knows a folder that is not shared
    n_shards: int
    trusted: bool
    retry: bool
    options: Mapping[str, str]  # of the engine, as they were typed

    def standings(self) -> list[Standing]:
        """Where the shards stand."""
        return Shelf(self.folder / shards.FOLDER).standings(self.n_shards)

    def left(self) -> int:
        """Shards that a worker could take, now or when their worker dies."""
        free = (*(("failed",) if self.retry else ()), "waiting", "stopped", "stale", "running")
        return sum(s.state in free for s in self.standings())

    def command(self, *, wait: bool) -> list[str]:
        """What a worker runs."""
        flags = ["wait=false"] * (not wait) + ["retry=true"] * self.retry
        flags += ["trust=true"] * self.trusted
        return [
            sys.executable,
            "-m",
            "jaxvff",
            "work",
            str(self.folder),
            f"plan={self.plan}",
            *flags,
        ]

    def log(self, name: str) -> Path:
        """The file that a worker prints to."""
        (self.folder / LOGS).mkdir(exist_ok=True)
        return self.folder / LOGS / f"{name}.txt"


class Engine(NamedTuple):
    """Something that starts processes: its own keys with what they are, and how it starts them."""

    keys: tuple[str, ...]
    start: Callable[[Order], int]  # returns the exit code


ENGINES: Registry[Engine] = Registry(
    {
        "local": "jaxvff.cli.on_local:ENGINE",
        "slurm": "jaxvff.cli.on_slurm:ENGINE",
        "ray": "jaxvff.cli.on_ray:ENGINE",
    }
)
KEYS = ("on", "trust", "retry")


def run(args: list[str]) -> int:
    """Start workers, and wait for them where the engine ends with this process."""
    on = next((a.partition("=")[2] for a in args[1:] if a.startswith("on=")), "nothing")
    check_name(on, ENGINES, "on")
    engine = ENGINES[on]
    folder, own = planned.arguments(args, f"launch on={on}", (*KEYS, *engine.keys))
    plan = shards.read(folder)
    shards.check_versions(folder, plan.versions)
    order = Order(
        folder.resolve(),
        plan.id,
        len(plan.shards),
        overrides.flag(own, "trust"),
        overrides.flag(own, "retry"),
        {key: own[key] for key in engine.keys if key in own},
    )
    if not order.left():
        standings = order.standings()
        done = all(s.state == "done" for s in standings)
        after = "all are done: jaxvff merge" if done else "retry=true takes failed shards again:"
        print(status.lines(folder, plan, standings)[0])
        print(f"nothing to start; {after} {shlex.quote(str(folder))}")
        return 0 if done else 1
    return engine.start(order)


def number(order: Order, key: str, default: int) -> int:
    """An option of an engine that is a whole number, 1 or more.

    Raises:
      UserError: it is none.
    """
    text = order.options.get(key)
    if text is not None and (not text.isdecimal() or int(text) < 1):
        raise UserError(
            f"{key}={text} must be a whole number of 1 or more; leave it out: {default}"
        )
    return default if text is None else int(text)


def begin(
    order: Order, log: Path, *, wait: bool, env: Mapping[str, str] | None = None
) -> subprocess.Popen:
    """Start a worker on this machine. It ends, with a checkpoint, when this process does."""
    parent = os.getpid()

    def die_with_parent() -> None:  # in the child; libraries that want no fork are not there yet
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    with log.open("ab") as file:
        return subprocess.Popen(
            order.command(wait=wait),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | (env or {}),
            start_new_session=True,  # signals come from here alone
            preexec_fn=die_with_parent,
        )


def end(order: Order) -> int:
    """Say where the plan stands when its workers have ended; the exit code."""
    plan = shards.read(order.folder)
    standings = order.standings()
    for line in status.lines(order.folder, plan, standings):
        print(line)
    quoted = shlex.quote(str(order.folder))
    if all(s.state == "done" for s in standings):
        print(f"all are done: jaxvff merge {quoted}")
        return 0
    print(f"what workers print is in {order.folder / LOGS}; launch again to go on")
    return 1
