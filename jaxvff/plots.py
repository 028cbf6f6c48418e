"""PNGs: learned tables as heat maps, learning curves over seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxvff import show

CURVES = {
    "td_error_abs": "|TD error| (env units)",
    "max_error": "largest error of the table (env units)",
    "test_return": "greedy return (env units)",
}


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    partial = path.with_name(path.stem + ".partial.png")
    figure.savefig(partial, dpi=130)
    plt.close(figure)
    partial.replace(path)


def learned_tables(records: list[dict[str, Any]], path: Path, most: int = 12) -> None:
    """True and learned tables side by side, a row per sweep value (the first `most`)."""
    shown = [r for r in records if np.ndim(r["payoff"]) == 2][:most]
    shown = [r for r in shown if len(r["payoff"]) <= show.GRID_ACTIONS]
    if not shown:
        return
    size = (7.2, 3.1 * len(shown) + 0.2)
    figure, axes = plt.subplots(len(shown), 2, figsize=size, squeeze=False, layout="constrained")
    for row, r in zip(axes, shown, strict=True):
        true = np.array(r["payoff"], float)
        heat_map(row[0], true, None, "true payoff", true)
        median = r["median_seed"]
        name = f"{show.title(r)}\nlearned, seed {median['seed']} (median)"
        heat_map(
            row[1],
            np.array(median["q_tot"], float),
            np.array(median["utilities"], float),
            name,
            true,
        )
    save(figure, path)


def heat_map(
    axes: Axes, values: np.ndarray, utilities: np.ndarray | None, name: str, true: np.ndarray
) -> None:
    """One table; colours span the true payoffs, a frame marks the greedy joint action."""
    span = max(float(np.abs(true).max()), 1e-9)
    axes.imshow(np.nan_to_num(values), cmap="RdBu", vmin=-span, vmax=span)
    for (i, j), x in np.ndenumerate(values):
        dark = abs(np.nan_to_num(x)) > 0.6 * span
        axes.text(j, i, show.number(x), ha="center", va="center", color="w" if dark else "k")
    for axis, agent, space in ((axes.yaxis, 0, " "), (axes.xaxis, 1, "\n")):
        labels = [
            letter if utilities is None else f"{letter}{space}({show.number(utilities[agent, k])})"
            for k, letter in enumerate(show.LETTERS[: len(values)])
        ]
        axis.set_ticks(range(len(values)), labels)
    best = show.greedy_cell(values) if utilities is None else show.greedy(utilities)
    frame = plt.Rectangle(
        (best[1] - 0.47, best[0] - 0.47), 0.94, 0.94, fill=False, ec="lime", lw=2.5
    )
    axes.add_patch(frame)
    axes.set_title(name, fontsize=8)


def learning_curves(records: list[dict[str, Any]], folder: Path, path: Path) -> None:
    """Medians over seeds with the 25-75 % range, and shares of seeds, against env steps."""
    lines = show.curves(folder)
    panels = [k for k in CURVES if any(k in line for line in lines)]
    has_shares = any("fit" in line for line in lines)
    n = len(panels) + has_shares
    if not lines or not n:
        return
    figure, axes = plt.subplots(1, n, figsize=(4.2 * n, 3.4), squeeze=False, layout="constrained")
    for r in records[:10]:
        mine = [line for line in lines if line["sweep"] == r["sweep"]]
        steps = [line["step"] for line in mine]
        label = show.title(r)
        for ax, key in zip(axes[0], panels, strict=False):
            _band(ax, steps, [line[key] for line in mine], label)
        if has_shares:
            one = len(records) == 1
            for key in show.RATES if one else ["both"]:
                share = [np.mean(line[key]) for line in mine]
                axes[0, -1].plot(steps, share, label=show.RATES[key] if one else label)
    for ax, key in zip(axes[0], panels, strict=False):
        ax.set(title=CURVES[key], xlabel="env steps per seed")
        if key != "test_return":
            ax.set_yscale("log")
    if has_shares:
        what = "share of seeds" if len(records) == 1 else "share of seeds that fit and are optimal"
        axes[0, -1].set(title=what, xlabel="env steps per seed", ylim=(-0.03, 1.03))
    axes[0, -1].legend(fontsize=8)
    save(figure, path)


def _band(ax: Axes, steps: list[int], values: list[list[float]], label: str) -> None:
    table = np.array([[np.nan if x is None else x for x in row] for row in values], float)
    seen = np.isfinite(table).any(axis=1)
    if not seen.any():
        return
    low, middle, high = np.nanpercentile(table[seen], [25, 50, 75], axis=1)
    steps_seen = np.array(steps)[seen]
    (line,) = ax.plot(steps_seen, middle, label=label)
    ax.fill_between(steps_seen, low, high, alpha=0.25, color=line.get_color(), lw=0)
