"""Output that never ends a run: into a pipe that is closed, a terminal that speaks ASCII, nowhere.

What cannot be written is dropped, and the run goes on: its results are in its folder.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from typing import IO, Any

# Characters of ours for terminals that have no Unicode; others become a question mark.
PLAIN = {"≥": ">=", "≤": "<=", "·": ".", "×": "x", "→": "->", "…": "...", "∞": "inf", "λ": "lambda"}


def keep_output_going() -> None:
    """Make stdout and stderr of this process drop what they cannot write."""
    # A descriptor that is closed (`>&-`) would be given to the next file that is opened, and what
    # libraries print would be written into it.
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_nowhere(descriptor)
    codecs.register_error("jaxvff", _in_plain_characters)
    sys.stdout = _lasting(sys.stdout, 1)
    sys.stderr = _lasting(sys.stderr, 2)


class _Lasting(io.FileIO):
    """A file whose writes do not fail."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
            while written is None:  # a terminal that does not block, and is full
                select.select([], [self], [])
                written = super().write(data)
        except OSError:  # a closed pipe, a terminal that is gone, a full disk
            _to_nowhere(self.fileno())
            return len(data)
        return written


def _lasting(stream: IO[str] | None, descriptor: int) -> IO[str]:
    """The same stream, or one for what was closed; it drops what cannot be written."""
    raw = _Lasting(descriptor, "w", closefd=False)
    by_line = descriptor == 2 or raw.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(stream, "encoding", None) or "utf-8",
        errors="jaxvff",
        line_buffering=by_line,
    )


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    if nowhere != descriptor:
        os.dup2(nowhere, descriptor)
        os.close(nowhere)


def _in_plain_characters(error: UnicodeError) -> tuple[str, int]:
    """How a codec is told what to write instead of characters that it does not have."""
    assert isinstance(error, UnicodeEncodeError)
    wanted = error.object[error.start : error.end]
    return "".join(PLAIN.get(character, "?") for character in wanted), error.end
