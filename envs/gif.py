"""Writing a matplotlib figure that changes as a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

DPI = 80
HOLD_S = 2  # how long the end stays


def write(
    figure: Any, path: Path, frames: Iterable[Any], draw: Callable[[Any], None], *, fps: int
) -> None:
    """A frame for each of `frames`, after `draw` of it; the last one stays for HOLD_S seconds."""
    from matplotlib.animation import PillowWriter

    writer = PillowWriter(fps=fps)
    with writer.saving(figure, str(path), DPI):
        for frame in frames:
            draw(frame)
            writer.grab_frame()
        for _ in range(HOLD_S * fps):  # Pillow makes one long frame of equal ones
            writer.grab_frame()
