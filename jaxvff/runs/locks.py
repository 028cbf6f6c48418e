"""Who writes into a run folder, and which checkpoint is being read.

Both are locks of the operating system on files, which end with the process that holds them however
it ends: nothing has to be cleaned up after a crash.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxvff.core.errors import UserError

NAME = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # what file systems without locks answer


class Writer:
    """This process, as the only one that writes into a run folder."""

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
          UserError: another process has it; the message says which.
        """
        self._folder, self.uses = folder, 1
        self._fd = self._take()

    def in_place(self) -> bool:
        """Whether the folder is still where it was."""
        return _is(self._fd, self._folder / NAME)

    def renew(self) -> None:
        """Take the lock anew, where the folder had to be put back.

        Raises:
          UserError: another process was faster.
        """
        if not self.in_place():
            old, self._fd = self._fd, self._take()
            os.close(old)

    def close(self) -> None:
        """Let others write."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def _take(self) -> int:
        fd = os.open(self._folder / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(fd, 200).decode(errors="replace") or "another process"
            os.close(fd)
            raise UserError(
                f"{self._folder} is being written by {owner}; wait until it ends, or stop it and "
                f"go on with resume={self._folder}"
            ) from None
        if not locked:
            print(
                f"jaxvff: {self._folder} is on a file system without locks; make sure that no "
                "other process writes there",
                file=sys.stderr,
            )
        os.ftruncate(fd, 0)
        os.write(fd, f"process {os.getpid()} on {socket.gethostname()}".encode())
        return fd


_held: dict[Path, Writer] = {}  # by folder: a lock is of the process, whoever asks for it there


@contextmanager
def sole_writer(folder: Path) -> Iterator[Writer]:
    """Be the only process that writes into a run folder; may be nested.

    Raises:
      UserError: another process writes there.
    """
    key = folder.resolve()
    if key in _held:
        _held[key].uses += 1
    else:
        _held[key] = Writer(folder)
    writer = _held[key]
    try:
        yield writer
    finally:
        writer.uses -= 1
        if not writer.uses:
            del _held[key]
            writer.close()


def held(folder: Path) -> bool | None:
    """Whether a process of this machine writes into a run folder; None: nobody can say."""
    try:
        fd = os.open(folder / NAME, os.O_RDWR)
    except OSError:
        return None
    try:
        return False if _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) else None
    except BlockingIOError:
        return True
    finally:
        os.close(fd)


@contextmanager
def reading(path: Path) -> Iterator[bool]:
    """Keep a file from being removed by `unread`; False: it is no longer there."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        _lock(fd, fcntl.LOCK_SH)
        yield _is(fd, path)
    finally:
        os.close(fd)


@contextmanager
def unread(path: Path) -> Iterator[bool]:
    """Whether nobody reads a file, and nobody begins to meanwhile."""
    fd = os.open(path, os.O_RDWR)
    try:
        try:
            _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        except BlockingIOError:
            free = False
        yield free
    finally:
        os.close(fd)


def _lock(fd: int, how: int) -> bool:
    """Lock an open file; False: its file system has no locks.

    Raises:
      BlockingIOError: another process has it, and `how` says not to wait.
    """
    try:
        fcntl.flock(fd, how)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    return True


def _is(fd: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except OSError:
        return False
