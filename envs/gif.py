"""Writing a matplotlib figure that changes as a GIF, or as an MP4."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from matplotlib.animation import AbstractMovieWriter
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
    """Write a film whose last frame stays for HOLD_S seconds.

    Args:
      figure: what is shown.
      path: the film, a GIF, or an MP4 if it ends in .mp4, which needs imageio-ffmpeg.
      frames: what each frame shows.
      draw: brings the figure to what a frame shows.
      fps: frames a second.
    """
    writer = _mp4_writer(fps) if path.suffix == ".mp4" else _gif_writer(fps)
    with writer.saving(figure, str(path), DPI):
        for frame in frames:
            draw(frame)
            writer.grab_frame()
        for _ in range(HOLD_S * fps):  # Pillow makes one long frame of equal ones
            writer.grab_frame()


def _gif_writer(fps: int) -> AbstractMovieWriter:
    from matplotlib.animation import PillowWriter

    return PillowWriter(fps=fps)


def _mp4_writer(fps: int) -> AbstractMovieWriter:
    import imageio_ffmpeg
    from matplotlib import rcParams
    from matplotlib.animation import FFMpegWriter

    rcParams["animation.ffmpeg_path"] = imageio_ffmpeg.get_ffmpeg_exe()
    # Players want colours at half the resolution, and for that an even number of pixels.
    even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"
    return FFMpegWriter(fps=fps, codec="libx264", extra_args=["-vf", even, "-pix_fmt", "yuv420p"])
