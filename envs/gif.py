"""Writing a matplotlib figure that changes as a GIF."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 80
HOLD_S = 2  # how long the end stays

Frame = TypeVar("Frame")


def write(
    figure: Figure,
    path: Path,
    frames: Iterable[Frame],
    draw: Callable[[Frame], None],
    *,
    fps: int,
) -> None:
    """Write a GIF whose last frame stays for HOLD_S seconds.

    Args:
      figure: what is shown.
      path: the GIF.
      frames: what each frame shows.
      draw: brings the figure to what a frame shows.
      fps: frames a second.
    """
    from matplotlib.animation import PillowWriter

    writer = PillowWriter(fps=fps)
    with writer.saving(figure, str(path), DPI):
        for frame in frames:
            draw(frame)
            writer.grab_frame()
        for _ in range(HOLD_S * fps):  # Pillow makes one long frame of equal ones
            writer.grab_frame()
