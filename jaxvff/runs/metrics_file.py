"""metrics.jsonl: one report a line, kept in step with the checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jaxvff.core.files import plain, write_text


class JsonLines:
    """A file of one JSON object a line, flushed at every line; a Sink (runs/sinks.py).

    When a run resumes, lines after the step of its checkpoint are dropped first, so that the
    file is the same as without the interruption.
    """

    def __init__(self, path: Path, resume_step: int | None = None) -> None:
        """Open `path`; with `resume_step`, keep its lines up to that step."""
        if resume_step is not None and path.exists():
            write_text(path, "".join(self._kept(path, resume_step)))
        self._file = path.open("a" if resume_step is not None else "w")

    @staticmethod
    def _kept(path: Path, step: int) -> list[str]:
        kept = []
        for line in path.read_text().splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:
                break  # a line that a crash cut: it is after the checkpoint
        return kept

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Append one report of one sweep value: a metric is a list over its seeds, or a number."""
        record = {"step": step, "sweep": sweep, "seed": seeds, **metrics}
        self._file.write(json.dumps(plain(record)) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
