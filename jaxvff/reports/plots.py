"""PNGs: learned tables as heat maps, rates, learning curves over seeds.

matplotlib takes a second to import: import this module where something is drawn, not before.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import matplotlib
import numpy as np

if "inline" not in os.environ.get("MPLBACKEND", ""):  # a notebook keeps its own, for its own plots
    matplotlib.use("Agg")  # draws into files, without a screen
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from jaxvff.core.files import whole
from jaxvff.reports import tables
from jaxvff.reports.records import Curve, Record, TableRecord, env_name, env_steps, measured

CURVES = {  # metric -> title of its panel
    "test_win_rate": "greedy win rate",
    "test_return": "greedy return (env units)",
    "td_error_abs": "|TD error| (env units)",
    "max_error": "largest error of the table (env units)",
}
LOGARITHMIC = ("td_error_abs", "max_error")
SHARES = "shares"  # the panel of successes on matrix games: one share per report, not one per seed
MOST_TABLES = 12  # sweep values whose learned tables are drawn
MOST_CURVES = 20  # as many as tab20 has colours
MOST_ROWS = 6  # environments that have a row of their own
MOST_LINES = 40  # rates below one another; more make a grid
FEW_SEEDS = 10  # so many are drawn one by one, too

Color: TypeAlias = tuple[float, float, float, float]  # red, green, blue, opacity


def save(figure: Figure, path: Path) -> None:
    """Write a PNG whole or not at all."""
    with whole(path) as partial:
        figure.savefig(partial, dpi=130)
    plt.close(figure)


def learned_tables(games: Sequence[TableRecord], path: Path) -> None:
    """True and learned tables side by side, a row for each of the first sweep values.

    Games of more than two agents or of many actions are left out.
    """
    shown = [r for r in games if tables.fits_grid(r.payoff)][:MOST_TABLES]
    if not shown:
        return
    size = (7.2, 3.1 * len(shown) + 0.2)
    figure, axes = plt.subplots(len(shown), 2, figsize=size, squeeze=False, layout="constrained")
    for (left, right), r in zip(axes, shown, strict=True):
        learned = r.median_seed
        heat_map(left, r.payoff, true=r.payoff, name="true payoff")
        heat_map(
            right,
            learned.q_tot,
            true=r.payoff,
            name=f"{r.title}\nlearned, seed {learned.seed} (median)",
            utilities=learned.utilities,
        )
    save(figure, path)


def heat_map(
    axes: Axes,
    values: np.ndarray,
    *,
    true: np.ndarray,
    name: str,
    utilities: np.ndarray | None = None,
) -> None:
    """Draw the joint values of two agents; a frame marks the best joint action.

    Args:
      axes: to draw in.
      values: `[U, U]`, payoffs or learned joint values.
      true: `[U, U]`, the payoffs, which the colours span.
      name: the title.
      utilities: `[2, U]`, shown on the margins, and the frame marks the greedy joint action; None:
        it marks the largest value.
    """
    # The cells.
    span, n = max(float(np.abs(true).max()), 1e-9), tables.decimals(true)
    axes.imshow(np.nan_to_num(values), cmap="RdBu", vmin=-span, vmax=span)
    for (i, j), x in np.ndenumerate(values):
        dark = abs(np.nan_to_num(x)) > 0.6 * span
        axes.text(j, i, tables.number(x, n), ha="center", va="center", color="w" if dark else "k")

    # The actions on the margins.
    for axis, agent, space in ((axes.yaxis, 0, " "), (axes.xaxis, 1, "\n")):
        labels = list(tables.LETTERS[: len(values)])
        if utilities is not None:
            shown = (tables.number(u, n) for u in utilities[agent])
            labels = [f"{a}{space}({u})" for a, u in zip(labels, shown, strict=True)]
        axis.set_ticks(range(len(values)), labels)

    # The frame.
    i, j = tables.greedy_cell(values) if utilities is None else tables.greedy(utilities)
    corner = (j - 0.47, i - 0.47)
    axes.add_patch(plt.Rectangle(corner, 0.94, 0.94, fill=False, ec="lime", lw=2.5))
    axes.set_title(name, fontsize=8)


def rates(games: Sequence[TableRecord], path: Path) -> None:
    """Shares of seeds with their Wilson intervals: a line per sweep value, or a grid of many."""
    if len(games) > MOST_LINES:
        rate_grid(games, path)
    else:
        rate_lines(games, path)


def rate_lines(games: Sequence[TableRecord], path: Path) -> None:
    """Shares of seeds with their Wilson intervals, a line per sweep value, a colour per method."""
    size = (10, 0.24 * len(games) + 1.4)
    figure, axes = plt.subplots(
        1, len(tables.RATES), figsize=size, sharey=True, layout="constrained"
    )
    methods = dict.fromkeys(r.algorithm for r in games)
    palette = plt.get_cmap("tab10")
    colors = {method: palette(k) for k, method in enumerate(methods)}
    for ax, (name, heading) in zip(axes, tables.RATES.items(), strict=True):
        for k, r in enumerate(games):
            rate, color = r.rates[name], colors[r.algorithm]
            ax.plot([rate.low, rate.high], [k, k], color=color, lw=2, alpha=0.5)
            ax.plot(rate.rate, k, "o", color=color, ms=4)
        ax.set(title=heading, xlim=(-0.02, 1.02), xlabel="share of seeds")
        ax.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(games)), [r.title for r in games], fontsize=7)
    axes[0].set_ylim(len(games) - 0.5, -0.5)
    seeds = " or ".join(str(n) for n in sorted({len(r.seed) for r in games}))
    figure.suptitle(f"{seeds} seeds each, 95 % Wilson interval", fontsize=9)
    save(figure, path)


def rate_grid(games: Sequence[TableRecord], path: Path) -> None:
    """Shares of seeds, a row per method, a column per game; a cell has its Wilson interval."""
    rows = list(dict.fromkeys(r.algorithm for r in games))
    columns = list(dict.fromkeys(map(_game, games)))
    width, height = 0.82 * len(columns) + 1.8, 0.44 * len(rows) + 0.9
    n = len(tables.RATES)
    figure, axes = plt.subplots(n, 1, figsize=(width, n * height), layout="constrained")
    for ax, (name, heading) in zip(axes, tables.RATES.items(), strict=True):
        shares = np.full((len(rows), len(columns)), np.nan)
        for r in games:
            rate, i, j = r.rates[name], rows.index(r.algorithm), columns.index(_game(r))
            shares[i, j] = rate.rate
            color = "w" if rate.rate > 0.6 else "k"
            ax.text(j, i, f"{rate.rate:.2f}", ha="center", va="bottom", color=color)
            interval = f"{rate.low:.2f} to {rate.high:.2f}"
            ax.text(j, i, interval, ha="center", va="top", color=color, fontsize=6)
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
        ax.set_yticks(range(len(rows)), rows)
        ax.set_xticks(range(len(columns)), [c.replace(", ", "\n") for c in columns], fontsize=7)
        ax.set_title(f"{heading}: share of seeds, 95 % Wilson interval")
    save(figure, path)


def _game(record: Record) -> str:
    """The column of a record in a grid."""
    return ", ".join(filter(None, [record.task, record.label]))


def learning_curves(curves: Sequence[Curve], path: Path) -> None:
    """Medians over seeds with the 25-75 % range, and shares of seeds, against env steps.

    Each environment has a row, and each other sweep value a colour, as far as these reach. A seed
    that stopped is part of no median; the legend counts those seeds. A few seeds of a single sweep
    value are drawn one by one, too.
    """
    # A panel for everything that was measured.
    lines = [line for curve in curves for line in curve.lines]
    panels = [name for name in CURVES if any(measured(line, name) for line in lines)]
    if any(isinstance(curve.record, TableRecord) and curve.lines for curve in curves):
        panels.append(SHARES)
    if not panels:
        return

    # A row for each environment, a colour for what else tells sweep values apart.
    alone = len(curves) == 1
    rows = _rows(curves)
    names = list(dict.fromkeys(_name(curve, rows) for curve in curves))
    palette = plt.get_cmap("tab10" if len(names) <= 10 else "tab20")
    colors = {name: palette(i) for i, name in enumerate(names[:MOST_CURVES])}

    # The curves.
    n, m = len(panels), len(rows)
    size = (4.2 * n, 3.2 * m + 0.2 + 0.2 * -(-len(colors) // n))  # the legend: a column per panel
    figure, axes = plt.subplots(
        m, n, figsize=size, squeeze=False, sharex=True, layout="constrained"
    )
    for i, (env, of_env) in enumerate(rows.items()):
        for ax, name in zip(axes[i], panels, strict=True):
            for curve in of_env:
                if (color := colors.get(_name(curve, rows))) is None:
                    continue
                if name == SHARES:
                    _draw_shares(ax, curve, alone=alone, color=color)
                else:
                    _draw_band(ax, curve, name, alone=alone, color=color)
            _label_axes(ax, name, alone=alone, below=i == m - 1)
            if m > 1:
                ax.set_title(f"{env}: {ax.get_title()}", fontsize=9)

    # The legend.
    left_out = len(names) - len(colors)
    figure.legend(
        [plt.Line2D([], [], color=color) for color in colors.values()],
        [name + _stopped([c for c in curves if _name(c, rows) == name]) for name in colors],
        title="median over seeds, 25-75 % shaded"
        + (f"; {left_out} more left out" if left_out else ""),
        title_fontsize=8,
        loc="outside lower center",
        ncols=min(n, len(colors)),
        fontsize=8,
    )
    save(figure, path)


def _rows(curves: Sequence[Curve]) -> dict[str, list[Curve]]:
    """The curves of each environment; of too many environments all in one."""
    rows: dict[str, list[Curve]] = {}
    for curve in curves:
        rows.setdefault(env_name(curve.record.env), []).append(curve)
    return rows if len(rows) <= MOST_ROWS else {"": list(curves)}


def _name(curve: Curve, rows: dict[str, list[Curve]]) -> str:
    """What tells a sweep value from the others of its row."""
    record = curve.record
    if len(rows) == 1:
        return record.title
    return ", ".join(filter(None, [record.algorithm, record.label]))


def _draw_shares(ax: Axes, curve: Curve, *, alone: bool, color: Color) -> None:
    """Shares of seeds that succeed: all three of a single sweep value, else `both`."""
    if not isinstance(curve.record, TableRecord):
        return
    steps = [line["step"] for line in curve.lines]
    for name in tables.RATES if alone else ["both"]:
        shares = [np.mean(line[name]) for line in curve.lines]
        ax.plot(steps, shares, label=tables.RATES[name], color=None if alone else color)
    if alone:
        ax.legend(fontsize=8)


def _draw_band(ax: Axes, curve: Curve, name: str, *, alone: bool, color: Color) -> None:
    """The median of a metric over seeds and the range from its 25 % to its 75 % point."""
    lines = [line for line in curve.lines if measured(line, name)]
    if not lines:
        return
    values = np.array([line[name] for line in lines], float)  # [reports, seeds]; null becomes NaN
    steps = np.array([env_steps(line) for line in lines], float)  # [reports, seeds]
    low, middle, high = np.nanpercentile(values, [25, 50, 75], axis=1)
    at = np.nanmedian(np.where(np.isnan(values), np.nan, steps), axis=1)
    ax.plot(at, middle, color=color)
    ax.fill_between(at, low, high, alpha=0.25, color=color, lw=0)
    if alone and values.shape[1] <= FEW_SEEDS:
        ax.plot(steps, values, color=color, lw=0.6, alpha=0.4)


def _label_axes(ax: Axes, name: str, *, alone: bool, below: bool) -> None:
    shares = "share of seeds" if alone else "share of seeds that fit and are optimal"
    ax.set(title=CURVES.get(name, shares), xlabel="env steps per seed" if below else "")
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))  # 2.5M
    if name in LOGARITHMIC:
        ax.set_yscale("log")
    if name in (SHARES, "test_win_rate"):
        ax.set_ylim(-0.03, 1.03)


def _stopped(curves: Sequence[Curve]) -> str:
    """How many seeds of some curves stopped; nothing where none did."""
    returns = [x for c in curves if c.lines for x in c.lines[-1].get("test_return", [])]
    stopped = sum(x is None for x in returns)
    return f" ({stopped} of {len(returns)} seeds stopped)" if stopped else ""
