"""The file that a pool shares with its workers: in RAM where there is room, all of it reserved."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from jaxvff.core.errors import UserError
from jaxvff.core.sizes import readable

RAM = Path("/dev/shm")  # files in memory; containers give it 64 MB unless they are told otherwise


def shared_file(n_bytes: int, tell: Callable[[str], None]) -> BinaryIO:
    """A file without a name: nothing is left of it when its processes have ended.

    Its bytes are reserved. Otherwise a process that writes where there is no room is killed.

    Args:
      n_bytes: its size, > 0.
      tell: called with a line of text if RAM has no room for it and the disk has.

    Raises:
      UserError: there is no room for it on disk either.
    """
    disk = Path(tempfile.gettempdir())
    remedy = f"a larger {RAM} (docker run --shm-size=1g)"
    tried = []
    for folder in (RAM, disk) if RAM.is_dir() else (disk,):
        free = shutil.disk_usage(folder).free
        file = _reserved(folder, n_bytes) if n_bytes <= free else None
        if file is None:
            tried.append(f"{folder} has {readable(free)} free")
            continue
        if tried:
            tell(
                f"the games' episodes ({readable(n_bytes)}) are kept on disk, in {folder}, which "
                f"may be slower: {tried[0]}; {remedy} avoids that"
            )
        return file
    raise UserError(
        f"the games' episodes need {readable(n_bytes)} that are shared with the workers: "
        f"{', '.join(tried)}; lower n_envs, seeds or the longest episode, or give it {remedy}"
    )


def _reserved(folder: Path, n_bytes: int) -> BinaryIO | None:
    """The file, or None if the folder cannot hold it."""
    try:
        file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (the caller closes it)
    except OSError:  # a folder that cannot be written to
        return None
    try:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            os.truncate(file.fileno(), n_bytes)
    except OSError:  # another process was faster, or a limit for the size of files
        file.close()
        return None
    return file
