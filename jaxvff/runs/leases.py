"""Which worker has which shard of a plan: attempts, heartbeats, and what became of them.

<run>/shards/0007.1/       the first attempt at shard 7: what a job's folder has, and
<run>/shards/0007.1/owner.json   whose it is; touched while the owner lives
<run>/shards/0007.1/end.json     that it was given up, and why
<run>/shards/0007.1.done   it is complete

An attempt belongs to one worker for good: it makes the folder, which of several workers one alone
can. Whoever takes a shard over makes the next attempt, and begins with a copy of what the last one
has saved. So a worker that was thought dead and wakes up spoils nothing: it writes into a folder
that nobody reads any more, sees the next attempt, and gives up.

Times are compared with one another alone, as the file system itself gives them: clocks of machines
may differ. Light to import.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple

from jaxvff.core.files import write_json
from jaxvff.runs import locks

HEARTBEAT_S = 15.0  # between two touches of owner.json
# Without one for so long an owner counts as dead. NFS may show times that are a minute old.
LEASE_S = 150.0
MOST_DEATHS = 10  # of owners one after the other that saved nothing: it is the shard's fault, then
OWNER, END, DONE = "owner.json", "end.json", "done"

State = Literal["waiting", "running", "stale", "stopped", "failed", "done"]
FREE: tuple[State, ...] = ("waiting", "stopped", "stale")


class Standing(NamedTuple):
    """Where a shard stands, by its newest attempt, or by the one that is complete."""

    state: State
    attempts: tuple[int, ...] = ()  # their numbers, in order
    attempt: Path | None = None
    owner: dict[str, Any] = {}  # noqa: RUF012  # what owner.json says; nothing if it is damaged
    silent_s: float = 0.0  # since the last heartbeat
    reason: str = ""  # why it failed


class Shelf:
    """The folder with the attempts at all shards of a plan."""

    def __init__(self, folder: Path) -> None:
        """`folder`: of the attempts; it exists."""
        self.folder = folder
        self._clock = folder / f".clock_{socket.gethostname()}_{os.getpid()}"

    def standings(self, n_shards: int, done: Iterable[int] = ()) -> list[Standing]:
        """Where each shard stands.

        Args:
          n_shards: of the plan.
          done: shards that are known to be complete, which are not looked at again.
        """
        numbers: dict[int, list[int]] = {}
        complete: dict[int, int] = {}
        for name in os.listdir(self.folder):  # one listing, however many shards there are
            part, _, rest = name.partition(".")
            number, _, mark = rest.partition(".")
            if not (part.isdigit() and number.isdigit()):
                continue
            shard, attempt = int(part), int(number)
            if not mark:
                numbers.setdefault(shard, []).append(attempt)
            elif mark == DONE:
                complete[shard] = min(attempt, complete.get(shard, attempt))
        now, skip, out = self._now(), set(done), []
        for shard in range(n_shards):
            attempts = tuple(sorted(numbers.get(shard, ())))
            if shard in complete or shard in skip:
                path = self.path(shard, complete.get(shard, 1))
                out.append(Standing("done", attempts, path))
            elif not attempts:
                out.append(Standing("waiting"))
            else:
                out.append(self._of_newest(shard, attempts, now))
        return out

    def path(self, shard: int, attempt: int) -> Path:
        """The folder of an attempt."""
        return self.folder / f"{shard:04d}.{attempt}"

    def take(self, shard: int, standing: Standing) -> Lease | None:
        """Begin the next attempt at a shard; None: another worker was faster."""
        number = max(standing.attempts, default=0) + 1
        attempt = self.path(shard, number)
        try:
            attempt.mkdir()
        except FileExistsError:
            return None
        return Lease(self, shard, number)

    def superseded(self, shard: int, attempt: int) -> bool:
        """Whether somebody has taken the shard over, or completed it."""
        done = self.folder / f"{shard:04d}.{attempt}.{DONE}"
        return self.path(shard, attempt + 1).exists() or done.exists()

    def _of_newest(self, shard: int, attempts: tuple[int, ...], now: float) -> Standing:
        """Where a shard stands that is not complete."""
        path = self.path(shard, attempts[-1])
        owner, silent_s = read(path / OWNER), max(0.0, now - _touched(path))
        there = Standing("running", attempts, path, owner, silent_s)
        if (path / END).exists():
            end = read(path / END)  # damaged: it was given up, whatever the reason
            failed = end.get("state") == "failed"
            reason = str(end.get("reason", ""))
            return there._replace(state="failed" if failed else "stopped", reason=reason)
        if silent_s > LEASE_S or _is_dead(path, owner):
            return there._replace(state="stale")
        return there

    def _now(self) -> float:
        """The time, as the file system has it."""
        self._clock.touch()
        try:
            os.utime(self._clock)
            return _mtime(self._clock)
        finally:
            self._clock.unlink(missing_ok=True)


class Lease:
    """A worker's hold on an attempt. It ends with the context, and is kept by a heartbeat."""

    def __init__(self, shelf: Shelf, shard: int, number: int) -> None:
        """Use Shelf.take."""
        self.shard, self.number, self.folder = shard, number, shelf.path(shard, number)
        self._shelf, self._over = shelf, threading.Event()
        self._lost = threading.Event()
        self._owner: dict[str, Any] = {}
        self._beat = threading.Thread(target=self._keep, daemon=True)

    def begin(self, owner: dict[str, Any]) -> None:
        """Say whose it is, and keep saying so. The folder's lock has to be held."""
        host = {"host": socket.gethostname(), "process": os.getpid(), "boot": _boot()}
        self._owner = host | owner
        write_json(self.folder / OWNER, self._owner)
        self._beat.start()

    def begin_from(self, saved: int, deaths: int) -> None:
        """Say where the attempt begins, and how many owners before it died without saving."""
        self._owner |= {"saved": saved, "deaths": deaths}
        write_json(self.folder / OWNER, self._owner)

    def lost(self) -> bool:
        """Whether another worker has taken the shard over."""
        return self._lost.is_set()

    def complete(self) -> None:
        """Mark the attempt as complete."""
        mark = self._shelf.folder / f"{self.folder.name}.{DONE}"
        os.close(os.open(mark, os.O_CREAT | os.O_WRONLY, 0o666))

    def give_up(self, state: Literal["stopped", "failed"], reason: str) -> None:
        """Let others go on with it at once; or, where it failed, only those that ask for it."""
        write_json(self.folder / END, {"state": state, "reason": reason})

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._beat.ident is not None:
            self._beat.join()

    def _keep(self) -> None:
        """Touch owner.json until the lease is over or lost."""
        while not self._over.wait(HEARTBEAT_S):
            try:
                if self._shelf.superseded(self.shard, self.number):
                    self._lost.set()
                    return
                os.utime(self.folder / OWNER)
            except FileNotFoundError:  # somebody removed it; training puts its folder back
                if self.folder.exists():
                    write_json(self.folder / OWNER, self._owner)
            except OSError:
                continue  # a file system that is gone for a while; what is saved there tells of it


def read(path: Path) -> dict[str, Any]:
    """A small JSON file of an attempt; nothing where it is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def poll(look: Callable[[], bool], seconds: float, stop: Callable[[], bool]) -> bool:
    """Look every quarter of a second for some seconds; whether it was true in time."""
    waited = threading.Event()
    for _ in range(max(1, round(4 * seconds))):
        if look():
            return True
        if stop():
            return False
        waited.wait(0.25)
    return look()


def _touched(attempt: Path) -> float:
    """When its owner last lived."""
    for path in (attempt / OWNER, attempt):
        try:
            return _mtime(path)
        except OSError:
            continue
    return 0.0


def _mtime(path: Path) -> float:
    """Of an opened file: NFS asks its server when a file is opened."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.fstat(descriptor).st_mtime
    finally:
        os.close(descriptor)


def _is_dead(attempt: Path, owner: dict[str, Any]) -> bool:
    """Whether the owner ran on this machine, since it was started, and its lock is free."""
    boot = _boot()
    return bool(boot) and owner.get("boot") == boot and locks.held(attempt) is False


def _boot() -> str:
    """What tells this running kernel from all others, whatever the containers on it are called."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
