"""Shared by the benchmarks: how they run timed processes, and what a record says of its origin."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from jaxvff.core import machine

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "flashbax", "jaxmarl")
Record: TypeAlias = dict[str, Any]  # a JSON object


def last_json(
    command: Sequence[str], *, core: int | None = None, timeout_s: float | None = None
) -> Record:
    """Run a Python script in its own process and parse the last line that it prints.

    Args:
      command: the script and its arguments.
      core: the only core that the process may use, on systems that can pin a process; None: all.
      timeout_s: seconds after which the process is killed; None: no limit.

    Returns:
      The JSON object on the last line of stdout.

    Raises:
      subprocess.TimeoutExpired: the process ran for longer than `timeout_s`.
      SystemExit: the process failed; the message ends with what it wrote to stderr.
    """
    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        preexec_fn=pinned(core),
    )
    if done.returncode or not done.stdout:
        raise SystemExit(
            f"{Path(command[0]).name} failed ({done.returncode}):\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def pinned(core: int | None) -> Callable[[], None] | None:
    """What a new process calls before its program starts, to stay on one core.

    Args:
      core: its number; None: the process may use all cores that this one may.

    Returns:
      The `preexec_fn` of subprocess; None where nothing is to be done, or no process can be pinned.
    """
    if core is None or not hasattr(os, "sched_setaffinity"):
        return None
    return lambda: os.sched_setaffinity(0, {core})


def end_children_on_term() -> None:
    """Make SIGTERM raise SystemExit, so that the processes which a benchmark started end too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def cpu_name() -> str:
    """The processor's model name, or its architecture where the system gives no name."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def about() -> Record:
    """The machine, the package versions, and the commit of this repository."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "machine": {"cpu": cpu_name(), "cores": machine.cores(), "system": platform.system()},
        "versions": {"python": sys.version.split()[0], **packages},
        "commit": commit(ROOT),
    }


def commit(folder: Path) -> str | None:
    """The commit of a checkout, followed by "+" if tracked files have changed since."""
    # Not -C: where `folder` is no repository, git would report the one that contains it.
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={folder}"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, cwd=folder)
    return head.stdout.strip() + "+" * (changed.returncode == 1) or None
