"""Pictures of a report as SVG, within its page and with the colours of its style sheet.

matplotlib draws in colours that stand for roles (the n-th curve, text, a grid line). What it has
drawn gets the style sheet's names for them, so that one picture serves a light and a dark page.
matplotlib takes a second to import: import this module where something is drawn.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter

N_COLORS = 10
DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))  # then the colours repeat
TEXT, GRID = "#01abf0", "#01abf1"  # what stands for the colour of text and of grid lines
SIZE = (4.6, 3.0)  # inches, of 72 px
RC: Any = {
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "jaxvff",  # the same picture has the same ids
    "text.parse_math": False,  # $ in a name is a dollar
    "font.size": 9,
    "axes.edgecolor": TEXT,
    "axes.labelcolor": TEXT,
    "axes.titlesize": 10,
    "text.color": TEXT,
    "xtick.color": TEXT,
    "ytick.color": TEXT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "path.simplify_threshold": 0.2,
}


class Drawn(NamedTuple):
    """A curve with its interval."""

    style: int  # the number of the curve, which gives its colour and its dashes
    steps: np.ndarray  # [reports] env steps
    middle: np.ndarray  # [reports]
    low: np.ndarray  # [reports]
    high: np.ndarray  # [reports]


class Span(NamedTuple):
    """A figure with its interval, a row of a picture."""

    style: int
    name: str
    middle: float
    low: float
    high: float


def color(style: int) -> str:
    """What stands for the colour of a curve until the page has its style."""
    return f"#01ab{style % N_COLORS:02d}"


def dashes(style: int) -> Any:
    """The dashes of a curve, as matplotlib takes them."""
    return DASHES[style // N_COLORS % len(DASHES)]


def curves(
    drawn: Sequence[Drawn], *, label: str, x_label: str, share: bool = False, log: bool = False
) -> str:
    """Curves with their bands. The page can draw more into it: it says where its axes are.

    Args:
      drawn: the curves.
      label: what they are of, and what the picture shows in words.
      x_label: of the axis.
      share: the values are in [0, 1].
      log: the axis is logarithmic.
    """
    with rc_context(RC):
        figure, axes = _axes()
        _bands(axes, [(d.style, d.steps, d.low, d.high) for d in drawn])
        for each in drawn:
            look: dict[str, Any] = {"color": color(each.style), "linestyle": dashes(each.style)}
            axes.plot(each.steps, each.middle, lw=1.6, **look)
        if log:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        if share:
            axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel(x_label)
        return _inline(figure, label, _where(figure, axes))


def spans(rows: Sequence[Span], *, label: str, x_label: str, share: bool = False) -> str:
    """Figures with their intervals, one below the other.

    Args:
      rows: from the top.
      label: what the picture shows in words.
      x_label: of the axis.
      share: the figures are in [0, 1].
    """
    with rc_context(RC):
        height = 0.24 * len(rows) + 0.75
        names = [row.name if len(row.name) <= 30 else f"{row.name[:29]}…" for row in rows]
        left = min(0.5, 0.03 + 0.0165 * max(map(len, names), default=0))
        figure, axes = _axes(height, left=left)
        at, colors = range(len(rows)), [color(row.style) for row in rows]
        low, high, middle = ([getattr(row, k) for row in rows] for k in ("low", "high", "middle"))
        axes.hlines(at, low, high, colors=colors, lw=4, alpha=0.4)
        axes.scatter(middle, at, s=25, c=colors, zorder=3)
        axes.set_yticks(range(len(rows)), names)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        if share:
            axes.set_xlim(-0.02, 1.02)
        axes.set_xlabel(x_label)
        return _inline(figure, label)


def steps(
    thresholds: np.ndarray, profiles: Sequence[tuple[int, Any]], *, label: str, x_label: str
) -> str:
    """Performance profiles: shares of runs above each threshold.

    Args:
      thresholds: `[K]`.
      profiles: the style and the statistics.Profile of each curve.
      label: what the picture shows in words.
      x_label: of the axis.
    """
    with rc_context(RC):
        figure, axes = _axes()
        # As steps: each bound stays until the next threshold.
        at = np.repeat(thresholds, 2)[1:]
        _bands(
            axes,
            [(k, at, np.repeat(p.low, 2)[:-1], np.repeat(p.high, 2)[:-1]) for k, p in profiles],
        )
        for style, profile in profiles:
            look: dict[str, Any] = {"color": color(style), "linestyle": dashes(style)}
            axes.plot(thresholds, profile.share, lw=1.6, drawstyle="steps-post", **look)
        axes.set_ylim(-0.03, 1.03)
        axes.set_xlabel(x_label)
        return _inline(figure, label)


def swatch(style: int) -> str:
    """The colour and the dashes of a curve, for a legend."""
    pattern = dashes(style)
    array = "" if pattern == "-" else " ".join(f"{x * 1.6:g}" for x in pattern[1])
    dash = f' stroke-dasharray="{array}"' if array else ""
    return (
        '<svg class="swatch" width="26" height="10" aria-hidden="true"><line x1="1" x2="25" y1="5" '
        f'y2="5" stroke="var(--c{style % N_COLORS:02d})" stroke-width="3"{dash}/></svg>'
    )


def _axes(height: float = SIZE[1], left: float = 0.12) -> tuple[Figure, Axes]:
    """A figure of one pair of axes: margins in figure widths, and in inches above and below."""
    figure = Figure((SIZE[0], height), facecolor="none")
    FigureCanvasSVG(figure)
    below, above = 0.5, 0.1
    axes = figure.add_axes(
        (left, below / height, 0.97 - left, 1 - (below + above) / height), facecolor="none"
    )
    axes.grid(lw=0.6)
    axes.locator_params(nbins=5)
    axes.set_axisbelow(True)
    return figure, axes


def _bands(axes: Axes, bands: Sequence[tuple[int, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Fill between bounds: style, x, low and high of each band, `[points]`.

    One collection, not a fill_between each: that takes most of the time of a picture.
    """
    outlines, colors = [], []
    for style, x, low, high in bands:
        known = np.isfinite(low) & np.isfinite(high)
        if known.any():
            x, low, high = x[known], low[known], high[known]
            outlines.append(np.stack([np.r_[x, x[::-1]], np.r_[low, high[::-1]]], axis=-1))
            colors.append(color(style))
    axes.add_collection(PolyCollection(outlines, facecolors=colors, alpha=0.18, linewidths=0))


def _where(figure: Figure, axes: Axes) -> str:
    """Attributes that say where axes are: limits in data units, and in the units of the picture."""
    (width, height), box = figure.get_size_inches() * 72, axes.get_position()
    x, y = axes.get_xlim(), axes.get_ylim()
    place = (box.x0 * width, box.x1 * width, (1 - box.y0) * height, (1 - box.y1) * height)
    numbers = " ".join(f"{n:.8g}" for n in (*x, *y, *place))
    return f' data-axes="{numbers}"' + (" data-log" if axes.get_yscale() == "log" else "")


def _inline(figure: Figure, label: str, where: str = "") -> str:
    """An <svg> element with a label for those who do not see it, and the page's colours."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"#01ab(\d\d)", r"var(--c\1)", text)
    text = text.replace(TEXT, "var(--text)").replace(GRID, "var(--grid)")
    text = re.sub(r" font-family: [^;\"]*;|<style .*?</style>", "", text)  # the page has its own
    text = re.sub(r' d="[^"]*"', _tenths, text)
    text = _own_ids(text)
    width, height = (72 * x for x in figure.get_size_inches())
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_attribute(label)}"{where}>'
    )
    return re.sub(r"^<svg[^>]*>", lambda _: head, text, count=1)


def _tenths(path: re.Match[str]) -> str:
    """A path with coordinates to a tenth of a pixel, which is enough."""
    return re.sub(r"(?<=\.\d)\d+", "", path[0])


def _own_ids(text: str) -> str:
    """Drop the ids that nothing refers to, and make the others the picture's own."""
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    prefix = f"p{hashlib.blake2s(text.encode(), digest_size=5).hexdigest()}-"

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in used else ""

    text = re.sub(r' id="([\w.-]+)"', renamed, text)
    return re.sub(r"(url\(#|href=\"#)([\w-]+)", rf"\1{prefix}\2", text)


def _attribute(text: str) -> str:
    for plain, escaped in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(plain, escaped)
    return text
