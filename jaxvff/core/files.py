"""Files that are written whole or not at all, and values as JSON."""

from __future__ import annotations

import json
import math
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


def plain(x: Any) -> Any:
    """Arrays and NumPy scalars as JSON values; what is not finite as null."""
    if isinstance(x, dict):
        return {str(k): plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [plain(v) for v in x]
    if hasattr(x, "tolist"):
        return plain(np.asarray(x).tolist())
    if isinstance(x, float):
        return float(f"{x:.7g}") if math.isfinite(x) else None
    return x


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A new empty file to write to, which takes the place of `path` when all went well.

    Its name cannot be foreseen, so that nobody can have put a link there; it ends as `path` does.
    """
    partial = path.with_name(f".{path.stem[:50]}.{secrets.token_hex(8)}{path.suffix}")
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave the new name with nothing in it


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole or not at all; what is not finite becomes null."""
    write_text(path, json.dumps(plain(value), indent=1) + "\n")


def file_name(text: str, longest: int) -> str:
    """A text as part of the name of a file: no separators, at most `longest` bytes of UTF-8."""
    name = "".join(c if c.isprintable() and c not in "/\\" else "-" for c in text)
    return name.encode("utf-8", "replace")[:longest].decode("utf-8", "ignore")
