"""The names of the files in a run folder (runs/folder.py says what they hold); light to import."""

from __future__ import annotations

import hashlib
from pathlib import Path

from jaxvff.core.files import file_name

CONFIG_FILE = "config.yaml"
METRICS_FILE, TIMING_FILE = "metrics.jsonl", "timing.json"
TABLE_FILE = "table.json"
INPUTS = "inputs"  # the folder of what a run reads


def kept_copy(folder: Path, path: str) -> Path:
    """Where the copy of a file is, in the folder INPUTS of a run; files of one name do not meet."""
    return folder / copy_name(path, path)


def copy_name(what: str, path: str, suffix: str = "") -> str:
    """The name of a copy.

    Args:
      what: tells it from other copies of files of the same name.
      path: of the file.
      suffix: that the copy has besides.
    """
    digest = hashlib.sha256(what.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{digest}_{file_name(Path(path).name, 100)}{suffix}"
