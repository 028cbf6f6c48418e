"""What benchmarks share: processes that end with a line of JSON, and where figures come from."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvff.core import machine

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "flashbax", "jaxmarl")


def last_json(
    command: Sequence[str], *, core: int | None = None, timeout_s: float | None = None
) -> dict[str, Any]:
    """Run a Python script in a process of its own, and read the last line of its output.

    Args:
      command: the script and its arguments.
      core: the one core that the process may use, where the system can pin it; None: all.
      timeout_s: the process is killed after so many seconds.

    Raises:
      subprocess.TimeoutExpired: it was.
      SystemExit: it failed; the message ends with what it wrote to stderr.
    """

    def pin() -> None:
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {core})

    done = subprocess.run(
        [sys.executable, *command],
        capture_output=True, text=True, timeout=timeout_s, preexec_fn=pin,
    )  # fmt: skip
    if done.returncode or not done.stdout:
        raise SystemExit(
            f"{Path(command[0]).name} failed ({done.returncode}):\n{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def end_children_on_term() -> None:
    """Let SIGTERM end a benchmark as Ctrl-C does; what it runs would go on without it."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))


def cpu_name() -> str:
    """The processor's name, as well as the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return names[0].split(":", 1)[1].strip() if names else platform.processor()


def about() -> dict[str, Any]:
    """The machine, the versions, and our commit."""
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "machine": {"cpu": cpu_name(), "cores": machine.cores(), "system": platform.system()},
        "versions": {"python": sys.version.split()[0], **packages},
        "commit": commit(ROOT),
    }


def commit(folder: Path) -> str | None:
    """The commit of a checkout, "+" behind it if tracked files have changed since."""
    # Not -C: outside of a repository of its own, git would answer for one around it.
    git = ["git", f"--git-dir={folder / '.git'}", f"--work-tree={folder}"]
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
    changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, cwd=folder)
    return head.stdout.strip() + "+" * (changed.returncode == 1) or None
