"""Exceptions that nobody expected: what is told, and the log with the traceback."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import platformdirs

from jaxvff.cli.main import DEBUG

KEPT_LOGS = 20  # the newest ones in a folder
LONGEST = 300  # characters of an error's message that are shown
PREFIX = "jaxvff_"
OUT_OF_MEMORY = "RESOURCE_EXHAUSTED"  # how XLA's message begins


def tell(error: Exception, args: Sequence[str]) -> int:
    """Say what happened, where the traceback is, and what was kept: the notes of the error.

    Args:
      error: the exception; whoever knows what was kept has added a note to it.
      args: what the user typed after `jaxvff`.

    Returns:
      The exit code.
    """
    trace = "".join(traceback.format_exception(error))
    log = _write_log(f"{_versions()}\ncommand: jaxvff {shlex.join(args)}\n\n{trace}")
    if DEBUG in args or log is None:
        print(trace, file=sys.stderr)
    where = "no log could be written" if log is None else f"the traceback is in {log}"
    lines = (what_happened(error), *getattr(error, "__notes__", ()), where)
    for line in lines:
        print(f"jaxvff: {line}", file=sys.stderr)
    return 1


def of_threads(args: Sequence[str]) -> list[Exception]:
    """The exceptions that end threads of this process from now on; with --debug also shown.

    Python would show their tracebacks, those of checkpoints among them, which the main thread waits
    for and tells anyway.
    """
    found: list[Exception] = []
    shown = threading.excepthook

    def collect(ended: threading.ExceptHookArgs) -> None:
        if isinstance(ended.exc_value, Exception):
            found.append(ended.exc_value)
        if DEBUG in args:
            shown(ended)

    threading.excepthook = collect
    return found


def what_happened(error: Exception) -> str:
    """In a line, and whose fault it is."""
    kind = type(error).__name__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    said = f"{kind}: {first[:LONGEST]}" if first else kind
    if isinstance(error, MemoryError) or OUT_OF_MEMORY in said:
        return f"out of memory ({said}); fewer seeds=, or a smaller buffer_size=, need less"
    return f"unexpected {said} (a fault of jaxvff, not of what you typed)"


def _versions() -> str:
    packages = ", ".join(f"{name} {_version(name)}" for name in ("jaxvff", "jax", "jaxlib"))
    return f"{packages}, python {platform.python_version()}, {platform.platform()}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout on the path that is not installed
        return "?"


def _write_log(text: str) -> Path | None:
    """A new file in the user's folder of logs, else in the folder of temporary files."""
    for folder in (Path(platformdirs.user_log_dir("jaxvff")), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = f"{PREFIX}{time.strftime('%Y-%m-%d_%H-%M-%S')}_"
            descriptor, path = tempfile.mkstemp(".log", name, folder)
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
                file.write(text)
            _remove_old_logs(folder)
        except OSError:  # a home that cannot be written to, a full disk
            continue
        return Path(path)
    return None


def _remove_old_logs(folder: Path) -> None:
    """All but the newest."""
    with contextlib.suppress(FileNotFoundError):  # another process removes them as well
        logs = sorted(folder.glob(f"{PREFIX}*.log"), key=lambda path: path.stat().st_mtime_ns)
        for old in logs[:-KEPT_LOGS]:
            old.unlink()
