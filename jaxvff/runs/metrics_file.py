"""metrics.jsonl: one report a line, kept in step with the checkpoints."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain, write_text


class JsonLines:
    """A file of one JSON object a line, flushed at every line; a Sink (runs/sinks.py).

    When a run resumes, lines after the step of its checkpoint are dropped first, so that the
    file is the same as without the interruption. A file that is removed or moved while it is
    written is put back with all its lines.
    """

    def __init__(
        self, path: Path, resume_step: int | None = None, tell: Callable[[str], None] = print
    ) -> None:
        """Open `path`; with `resume_step`, keep its lines up to that step.

        Args:
          path: of the file.
          resume_step: env steps of the checkpoint; None: a new run.
          tell: takes a line, of a file that had to be put back.

        Raises:
          UserError: a line is none of ours.
        """
        self._path, self._tell = path, tell
        if resume_step is not None and path.exists():
            write_text(path, "".join(_kept(path, resume_step)))
        self._file = self._open("a+" if resume_step is not None else "w+")

    def _open(self, mode: str) -> IO[str]:
        return self._path.open(mode, encoding="utf-8")  # to be read again where it is put back

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Append one report of one sweep value: a metric is a list over its seeds, or a number."""
        if not self._in_place():
            self._put_back()
        record = {"step": step, "sweep": sweep, "seed": seeds, **metrics}
        self._file.write(json.dumps(plain(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _in_place(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())
        except FileNotFoundError:
            return False

    def _put_back(self) -> None:
        """Copy what was written so far, which stays readable as long as it is open."""
        self._file.seek(0)
        lines = self._file.read()
        self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self._path, lines)
        self._file = self._open("a+")
        self._tell(f"{self._path} was removed or moved; it was written again with all its lines")


def _kept(path: Path, step: int) -> list[str]:
    """The lines up to a step."""
    return [line for line, report in _lines(path) if report["step"] <= step]


def read(path: Path) -> list[dict[str, Any]]:
    """The reports in a file.

    Raises:
      UserError: a line is no report.
    """
    return [report for _, report in _lines(path)]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line, as it is and as a report; without one that a crash cut."""
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(texts, 1):
        if not line.endswith("\n"):
            return
        try:
            report = json.loads(line)
            if not isinstance(report["step"], int):
                raise TypeError(report["step"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: {line.strip()[:60]!r} is no report of a run; remove the "
                "line, or restore the file from a copy"
            ) from error
        yield line, report
