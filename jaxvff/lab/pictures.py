"""PNGs, one for each question that has one; a picture is a function of its question's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from jaxvff.lab.basins import ENDS
from jaxvff.lab.study import Row
from jaxvff.reports import plots

COLORS = {"consistent": "tab:blue", "inconsistent": "tab:orange"}
END_COLORS = ("tab:green", "tab:orange", "palegreen", "lightgrey", "black")  # in the order of ENDS
LINEAR_BELOW = 1e-12  # of a symmetric logarithmic axis


def spectra(answer: Row, path: Path) -> None:
    """The smallest eigenvalue of the Hessian on the normal space, along τ and along ε."""
    along = answer["along"]
    if not along:
        return
    figure, axes = plt.subplots(1, len(along), figsize=(10, 4), sharey=True, layout="constrained")
    labels = {"softmax": "temperature τ of the softmax policy", "epsilon_greedy": "ε of ε-greedy"}
    for ax, (policy, line) in zip(axes, along.items(), strict=True):
        for kind, color in COLORS.items():
            of_kind = answer["consistent"] == (kind == "consistent")
            if not of_kind.any():
                continue
            values = line["lowest_normal"][:, of_kind]
            low, middle, high = np.percentile(values, [5, 50, 95], axis=1)
            ax.plot(line["level"], middle, color=color, label=f"{kind} ({of_kind.sum()} points)")
            ax.fill_between(line["level"], low, high, color=color, alpha=0.25, lw=0)
        ax.axhline(0, color="k", lw=0.8)
        ax.set_yscale("symlog", linthresh=LINEAR_BELOW)
        ax.set(xlabel=labels[policy], xscale="log" if policy == "softmax" else "linear")
    axes[0].set_ylabel("smallest eigenvalue of H on the normal space")
    axes[0].legend(fontsize=8)
    figure.suptitle("Curvature across the zero-loss set: median over points, 5-95 % shaded")
    plots.save(figure, path)


def escapes(answer: list[Row], path: Path) -> None:
    """Shares that still have their first greedy joint action, and that diverged before."""
    if not answer:
        return
    curves = list(dict.fromkeys((row["optimizer"], row["level"]) for row in answer))
    figure, axes = plt.subplots(
        1, len(curves), figsize=(3.4 * len(curves), 3.6), sharey=True, layout="constrained"
    )
    for ax, curve in zip(np.atleast_1d(axes), curves, strict=True):
        rows = [row for row in answer if (row["optimizer"], row["level"]) == curve]
        _escape_curve(ax, rows)
    figure.suptitle("First change of the greedy joint action, from beside zero-loss points")
    plots.save(figure, path)


def _escape_curve(ax: Axes, rows: list[Row]) -> None:
    """Shares over updates of one optimizer, for both kinds of points."""
    for row in rows:
        color = COLORS[row["kind"]]
        ax.plot(row["step"], row["stayed"], color=color, label=f"{row['kind']}: not left yet")
        if np.max(row["diverged"]) > 0:
            ax.plot(row["step"], row["diverged"], ":", color=color, label="diverged before")
    last = rows[-1]
    level = last["level"]
    name = f"lr·λmax = {level:g}" if level else f"lr = {last['lr'][1]:g}"
    title = f"{last['optimizer']}, {name}"
    ax.set(title=title, xlabel="updates", xscale="log", ylim=(-0.03, 1.03))
    if not level:
        low, middle, high = last["lr_lambda_max"]
        text = f"lr·λmax {low:.2g} to {high:.2g},\nmedian {middle:.2g}"
        ax.text(0.03, 0.5, text, transform=ax.transAxes, fontsize=8)
    ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 0.05))


def basins(answer: Row, path: Path) -> None:
    """Where flows end, by where they start and by what they follow."""
    starts = {name: rows for name, rows in answer.items() if name in ("random", *COLORS)}
    figure, axes = plt.subplots(
        len(starts),
        1,
        figsize=(8.5, 1.9 * len(starts) + 0.8),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    for ax, (name, rows) in zip(axes[:, 0], starts.items(), strict=True):
        left = np.zeros(len(rows))
        for end, color in zip(ENDS, END_COLORS, strict=True):
            width = np.array([row[end] / row["lanes"] for row in rows])
            ax.barh(range(len(rows)), width, left=left, color=color, label=end)
            left += width
        ax.set_yticks(range(len(rows)), [row["dynamics"] for row in rows], fontsize=8)
        ax.invert_yaxis()
        where = "random starts" if name == "random" else f"beside {name} zero-loss points"
        ax.set_title(f"{where} ({rows[0]['lanes']} each)", fontsize=9)
    axes[-1, 0].set_xlabel("share of starts")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=len(ENDS),
        fontsize=8,
    )
    figure.suptitle(f"Ends of the flow after time {answer['time']:g} (lr times updates)")
    plots.save(figure, path)


def barriers(answer: Row, path: Path) -> None:
    """The loss at which two actions tie, the climb to the optimum, and the negation test."""
    ties = answer["bounds"]
    two_agents = np.ndim(answer["to_reach"]) == 2
    n = len(ties) + two_agents + 1
    figure, axes = plt.subplots(1, n, figsize=(3.1 * n, 3.3), layout="constrained")
    for i, losses in enumerate(ties):
        title = f"agent {i + 1}: least loss\nwhere two actions tie"
        _numbers(axes[i], losses, title, xlabel="action", ylabel="action")
    if two_agents:
        _numbers(
            axes[len(ties)],
            answer["to_reach"],
            "loss on every path from greedy\njoint action to the optimum, at least",
            xlabel="action of agent 2",
            ylabel="action of agent 1",
        )
    _negation(axes[-1], answer["negation"], answer["lanes"])
    plots.save(figure, path)


def _negation(ax: Axes, rates: Row, n_lanes: int) -> None:
    """Bars of the negation test's rates, with Wilson intervals: on y and on -y."""
    for k, key in enumerate(("optimal", "fit", "both")):
        rate = [rates[side][key] for side in rates]
        y = np.array([r["rate"] for r in rate])
        error = [y - [r["low"] for r in rate], [r["high"] for r in rate] - y]
        ax.bar(np.arange(len(y)) + 0.27 * (k - 1), y, 0.25, label=key, yerr=np.clip(error, 0, None))
    ax.set_xticks(range(len(rates)), rates)
    ax.set(ylim=(0, 1.02), title=f"negation test: shares of\n{n_lanes} random starts")
    ax.legend(fontsize=8)


def _numbers(ax: Axes, values: np.ndarray, title: str, *, xlabel: str, ylabel: str) -> None:
    """A heat map `[U, U]` with its numbers."""
    ax.imshow(values, cmap="Purples", vmin=0, vmax=max(float(np.max(values)), 1e-9))
    for (i, j), x in np.ndenumerate(values):
        color = "w" if x > 0.6 * np.max(values) else "k"
        ax.text(j, i, f"{x:.3g}", ha="center", va="center", color=color, fontsize=8)
    ticks = range(len(values))
    ax.set(title=title, xticks=ticks, yticks=ticks)
    ax.set_xlabel(xlabel, fontsize=8)
    ax.set_ylabel(ylabel, fontsize=8)
    ax.title.set_fontsize(9)


def phase(answer: list[Row], path: Path) -> None:
    """Loss and descent at fixed mixers, in the plane of two utilities."""
    if not answer:
        return
    figure, axes = plt.subplots(
        1, len(answer), figsize=(5.4 * len(answer), 4.6), squeeze=False, layout="constrained"
    )
    for ax, portrait in zip(axes[0], answer, strict=True):
        axis, loss = portrait["axis"], np.log10(np.maximum(portrait["loss"], 1e-4))
        filled = ax.contourf(axis, axis, loss, 24, cmap="viridis")
        down_x, down_y = portrait["down"][..., 0], portrait["down"][..., 1]
        ax.streamplot(
            axis, axis, down_x, down_y, color="w", density=1.1, linewidth=0.7, arrowsize=0.8
        )
        ax.axvline(0, color="r", lw=1, ls="--")
        ax.axhline(0, color="r", lw=1, ls="--")
        ax.plot(*portrait["at"], "o", color="r", ms=7, mec="w", label="zero-loss point")
        edges = (axis[0], axis[-1])
        ax.set(xlabel=portrait["names"][0], ylabel=portrait["names"][1], xlim=edges, ylim=edges)
        ax.set_title(
            f"{portrait['kind']}: greedy {tuple(map(int, portrait['greedy']))}", fontsize=9
        )
        ax.legend(fontsize=8, loc="upper right")
        figure.colorbar(filled, ax=ax, label="log10 loss, softmax τ = 1")
    figure.suptitle("Gradient flow of two utilities at a fixed mixer; dashed: ties")
    plots.save(figure, path)
