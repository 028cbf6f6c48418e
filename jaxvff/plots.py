"""PNGs: learned tables as heat maps, learning curves over seeds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from jaxvff import show

CURVES = {
    "test_win_rate": "greedy win rate",
    "test_return": "greedy return (env units)",
    "td_error_abs": "|TD error| (env units)",
    "max_error": "largest error of the table (env units)",
}
LOGARITHMIC = ("td_error_abs", "max_error")
SHARES = "shares"  # a panel of its own: one number per report, not one per seed
MOST_CURVES = 20  # as many as tab20 has colours
MOST_LINES = 40  # of rates below one another
FEW_SEEDS = 10  # so many are shown one by one

Curve = tuple[dict[str, Any], list[dict[str, Any]]]  # a record of show.py, its lines


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


def rates(records: list[dict[str, Any]], path: Path) -> None:
    """Shares of seeds with their Wilson intervals: a line per sweep value, or a grid of many."""
    if len(records) > MOST_LINES:
        rate_grid(records, path)
        return
    figure, axes = plt.subplots(
        1, len(show.RATES), figsize=(10, 0.24 * len(records) + 1.4), sharey=True,
        layout="constrained",
    )  # fmt: skip
    at = np.arange(len(records))
    palette = plt.get_cmap("tab10")
    colors = {
        name: palette(k) for k, name in enumerate(dict.fromkeys(map(show.algorithm, records)))
    }
    for ax, (key, name) in zip(axes, show.RATES.items(), strict=True):
        for k, r in enumerate(records):
            rate, color = r["rates"][key], colors[show.algorithm(r)]
            ax.plot([rate["low"], rate["high"]], [k, k], color=color, lw=2, alpha=0.5)
            ax.plot(rate["rate"], k, "o", color=color, ms=4)
        ax.set(title=name, xlim=(-0.02, 1.02), xlabel="share of seeds")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(at, [show.title(r) for r in records], fontsize=7)
    axes[0].set_ylim(len(records) - 0.5, -0.5)
    seeds = " or ".join(str(n) for n in sorted({len(r["seed"]) for r in records}))
    figure.suptitle(f"{seeds} seeds each, 95 % Wilson interval", fontsize=9)
    save(figure, path)


def rate_grid(records: list[dict[str, Any]], path: Path) -> None:
    """Shares of seeds, a row per method, a column per game; a cell has its Wilson interval."""
    methods = list(dict.fromkeys(map(show.algorithm, records)))
    games = list(dict.fromkeys(map(_game, records)))
    size = (0.82 * len(games) + 1.8, 0.44 * len(methods) + 0.9)
    figure, axes = plt.subplots(
        len(show.RATES), 1, figsize=(size[0], len(show.RATES) * size[1]), layout="constrained"
    )
    for ax, (key, name) in zip(axes, show.RATES.items(), strict=True):
        shares = np.full((len(methods), len(games)), np.nan)
        for r in records:
            rate, at = r["rates"][key], (methods.index(show.algorithm(r)), games.index(_game(r)))
            shares[at] = rate["rate"]
            color = "w" if rate["rate"] > 0.6 else "k"
            ax.text(*at[::-1], f"{rate['rate']:.2f}", ha="center", va="bottom", color=color)
            interval = f"{rate['low']:.2f} to {rate['high']:.2f}"
            ax.text(*at[::-1], interval, ha="center", va="top", color=color, fontsize=6)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_yticks(range(len(methods)), methods)
        ax.set_xticks(range(len(games)), [g.replace(", ", "\n") for g in games], fontsize=7)
        ax.set_title(f"{name}: share of seeds, 95 % Wilson interval")
    save(figure, path)


def _game(r: dict[str, Any]) -> str:
    return ", ".join(filter(None, [show.task(r["env"]), show.label(r["sweep"])]))


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


def learning_curves(curves: list[Curve], path: Path) -> None:
    """Medians over seeds with the 25-75 % range, and shares of seeds, against env steps.

    One colour per sweep value (the first MOST_CURVES). A seed that stopped is in no median; the
    legend counts those. A few seeds of a single sweep value are drawn one by one, too.
    """
    lines = [line for _, mine in curves for line in mine]
    panels = [k for k in CURVES if any(_measured(line.get(k)) for line in lines)]
    panels += [SHARES] if any("fit" in line for line in lines) else []
    if not panels:
        return
    palette = plt.get_cmap("tab10" if len(curves) <= 10 else "tab20")
    shown = [(palette(i), curve) for i, curve in enumerate(curves[:MOST_CURVES])]
    n = len(panels)
    size = (4.2 * n, 3.4 + 0.2 * -(-len(shown) // n))  # the legend has a column per panel
    figure, axes = plt.subplots(
        1, n, figsize=size, squeeze=False, sharex=True, layout="constrained"
    )
    for ax, key in zip(axes[0], panels, strict=True):
        draw = _shares if key == SHARES else functools.partial(_band, key=key)
        for color, curve in shown:
            draw(ax, curve, len(curves) == 1, color)
        _dress(ax, key, len(curves) == 1)
    hidden = len(curves) - len(shown)
    figure.legend(
        [plt.Line2D([], [], color=color) for color, _ in shown],
        [_name(curve) for _, curve in shown],
        title="median over seeds, 25-75 % shaded" + (f"; {hidden} more left out" * (hidden > 0)),
        title_fontsize=8,
        loc="outside lower center",
        ncols=min(n, len(shown)),
        fontsize=8,
    )
    save(figure, path)


def _name(curve: Curve) -> str:
    record, lines = curve
    returns = lines[-1].get("test_return", []) if lines else []
    stopped = sum(x is None for x in returns)
    return show.title(record) + (f" ({stopped} of {len(returns)} seeds stopped)" if stopped else "")


def _dress(ax: Axes, key: str, alone: bool) -> None:
    shares = "share of seeds" if alone else "share of seeds that fit and are optimal"
    ax.set(title=CURVES.get(key, shares), xlabel="env steps per seed")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2.5M
    if key in LOGARITHMIC:
        ax.set_yscale("log")
    if key in (SHARES, "test_win_rate"):
        ax.set_ylim(-0.03, 1.03)


def _shares(ax: Axes, curve: Curve, alone: bool, color: Any) -> None:
    lines = [line for line in curve[1] if "fit" in line]
    steps = [line["step"] for line in lines]
    for key in show.RATES if alone else ["both"]:
        share = [np.mean(line[key]) for line in lines]
        ax.plot(steps, share, label=show.RATES[key], color=None if alone else color)
    if alone:
        ax.legend(fontsize=8)


def _band(ax: Axes, curve: Curve, alone: bool, color: Any, key: str) -> None:
    lines = [line for line in curve[1] if _measured(line.get(key))]
    if not lines:
        return
    values = np.array([line[key] for line in lines], float)  # [reports, seeds]; null becomes NaN
    steps = np.array([_steps(line) for line in lines], float)
    low, middle, high = np.nanpercentile(values, [25, 50, 75], axis=1)
    at = np.nanmedian(np.where(np.isnan(values), np.nan, steps), axis=1)
    ax.plot(at, middle, color=color)
    ax.fill_between(at, low, high, alpha=0.25, color=color, lw=0)
    if alone and values.shape[1] <= FEW_SEEDS:
        ax.plot(steps, values, color=color, lw=0.6, alpha=0.4)


def _measured(values: list[float | None] | None) -> bool:
    return any(x is not None for x in values or [])


def _steps(line: dict[str, Any]) -> list[int]:
    """Env steps of each seed; runs of before they were counted have the nominal ones."""
    return line.get("env_steps", [line["step"]] * len(line["seed"]))
