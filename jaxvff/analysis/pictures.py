"""A PNG for each question of the lab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from jaxvff import plots

COLORS = {"consistent": "tab:blue", "inconsistent": "tab:orange"}
ENDS = {  # of a flow -> colour
    "fit, optimal": "tab:green",
    "fit, not optimal": "tab:orange",
    "no fit, optimal": "palegreen",
    "no fit, not optimal": "lightgrey",
    "left out": "black",
}
VISIBLE = 1e-12  # of a symmetric logarithmic axis: below, it is linear


def spectra(answer: dict[str, Any], path: Path) -> None:
    """The smallest eigenvalue of the Hessian on the normal space, along τ and along ε."""
    along = answer["along"]
    if not along:
        return
    figure, axes = plt.subplots(1, len(along), figsize=(10, 4), sharey=True, layout="constrained")
    labels = {"softmax": "temperature τ of the softmax policy", "epsilon_greedy": "ε of ε-greedy"}
    for ax, (policy, line) in zip(axes, along.items(), strict=True):
        for kind, color in COLORS.items():
            mine = answer["consistent"] == (kind == "consistent")
            if not mine.any():
                continue
            values = line["lowest_normal"][:, mine]
            low, middle, high = np.percentile(values, [5, 50, 95], axis=1)
            ax.plot(line["level"], middle, color=color, label=f"{kind} ({mine.sum()} points)")
            ax.fill_between(line["level"], low, high, color=color, alpha=0.25, lw=0)
        ax.axhline(0, color="k", lw=0.8)
        ax.set_yscale("symlog", linthresh=VISIBLE)
        ax.set(xlabel=labels[policy], xscale="log" if policy == "softmax" else "linear")
    axes[0].set_ylabel("smallest eigenvalue of H on the normal space")
    axes[0].legend(fontsize=8)
    figure.suptitle("Curvature across the zero-loss set: median over points, 5-95 % shaded")
    plots.save(figure, path)


def escapes(answer: list[dict[str, Any]], path: Path) -> None:
    """Shares that still have their first greedy joint action, and that diverged before."""
    if not answer:
        return
    settings = list(dict.fromkeys((r["optimizer"], r["level"]) for r in answer))
    figure, axes = plt.subplots(
        1, len(settings), figsize=(3.4 * len(settings), 3.6), sharey=True, layout="constrained"
    )
    for ax, setting in zip(np.atleast_1d(axes), settings, strict=True):
        for r in (r for r in answer if (r["optimizer"], r["level"]) == setting):
            color = COLORS[r["kind"]]
            ax.plot(r["step"], r["stayed"], color=color, label=f"{r['kind']}: not left yet")
            if np.max(r["diverged"]) > 0:
                ax.plot(r["step"], r["diverged"], ":", color=color, label="diverged before")
        low, middle, high = r["lr_lambda_max"]
        name = f"lr·λmax = {setting[1]:g}" if setting[1] else f"lr = {r['lr'][1]:g}"
        ax.set(title=f"{setting[0]}, {name}", xlabel="updates", xscale="log", ylim=(-0.03, 1.03))
        if not setting[1]:
            text = f"lr·λmax {low:.2g} to {high:.2g},\nmedian {middle:.2g}"
            ax.text(0.03, 0.5, text, transform=ax.transAxes, fontsize=8)
        ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0, 0.05))
    figure.suptitle("First change of the greedy joint action, from beside zero-loss points")
    plots.save(figure, path)


def basins(answer: dict[str, Any], path: Path) -> None:
    """Where flows end, by where they start and by what they follow."""
    groups = {k: v for k, v in answer.items() if k in ("random", *COLORS)}
    figure, axes = plt.subplots(
        len(groups), 1, figsize=(8.5, 1.9 * len(groups) + 0.8), sharex=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, (name, rows) in zip(axes[:, 0], groups.items(), strict=True):
        left = np.zeros(len(rows))
        for end, color in ENDS.items():
            width = np.array([r[end] / r["lanes"] for r in rows])
            ax.barh(range(len(rows)), width, left=left, color=color, label=end)
            left += width
        ax.set_yticks(range(len(rows)), [r["dynamics"] for r in rows], fontsize=8)
        ax.invert_yaxis()
        where = "random starts" if name == "random" else f"beside {name} zero-loss points"
        ax.set_title(f"{where} ({rows[0]['lanes']} each)", fontsize=9)
    axes[-1, 0].set_xlabel("share of starts")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center",
                  ncols=len(ENDS), fontsize=8)  # fmt: skip
    figure.suptitle(f"Ends of the flow after time {answer['time']:g} (lr times updates)")
    plots.save(figure, path)


def barriers(answer: dict[str, Any], path: Path) -> None:
    """The loss at which two actions tie, the climb to the optimum, and the negation test."""
    tables = answer["bounds"]
    flat = np.ndim(answer["to_reach"]) == 2
    n = len(tables) + flat + 1
    figure, axes = plt.subplots(1, n, figsize=(3.1 * n, 3.3), layout="constrained")
    for i, table in enumerate(tables):
        _numbers(axes[i], table, f"agent {i + 1}: least loss\nwhere two actions tie", "action")
    if flat:
        title = "loss on every path from greedy\njoint action to the optimum, at least"
        _numbers(axes[len(tables)], answer["to_reach"], title, "action of agent")
    ax, rates = axes[-1], answer["negation"]
    for k, key in enumerate(("optimal", "fit", "both")):
        rate = [rates[side][key] for side in rates]
        y = np.array([r["rate"] for r in rate])
        error = [y - [r["low"] for r in rate], [r["high"] for r in rate] - y]
        ax.bar(np.arange(len(y)) + 0.27 * (k - 1), y, 0.25, label=key, yerr=np.clip(error, 0, None))
    ax.set_xticks(range(len(rates)), rates)
    ax.set(ylim=(0, 1.02), title=f"negation test: shares of\n{answer['lanes']} random starts")
    ax.legend(fontsize=8)
    plots.save(figure, path)


def _numbers(ax: Axes, table: np.ndarray, title: str, label: str) -> None:
    ax.imshow(table, cmap="Purples", vmin=0, vmax=max(float(np.max(table)), 1e-9))
    for (i, j), x in np.ndenumerate(table):
        ax.text(j, i, f"{x:.3g}", ha="center", va="center",
                color="w" if x > 0.6 * np.max(table) else "k", fontsize=8)  # fmt: skip
    ticks = range(len(table))
    ax.set(title=title, xticks=ticks, yticks=ticks)
    both = label.endswith("agent")
    ax.set_xlabel(f"{label} 2" if both else label, fontsize=8)
    ax.set_ylabel(f"{label} 1" if both else label, fontsize=8)
    ax.title.set_fontsize(9)


def phase(answer: list[dict[str, Any]], path: Path) -> None:
    """Loss and descent at fixed mixers, in the plane of two utilities."""
    if not answer:
        return
    figure, axes = plt.subplots(
        1, len(answer), figsize=(5.4 * len(answer), 4.6), squeeze=False, layout="constrained"
    )
    for ax, plane in zip(axes[0], answer, strict=True):
        axis, loss = plane["axis"], np.log10(np.maximum(plane["loss"], 1e-4))
        filled = ax.contourf(axis, axis, loss, 24, cmap="viridis")
        ax.streamplot(
            axis, axis, plane["down"][..., 0], plane["down"][..., 1], color="w", density=1.1,
            linewidth=0.7, arrowsize=0.8,
        )  # fmt: skip
        ax.axvline(0, color="r", lw=1, ls="--")
        ax.axhline(0, color="r", lw=1, ls="--")
        ax.plot(*plane["at"], "o", color="r", ms=7, mec="w", label="zero-loss point")
        edges = (axis[0], axis[-1])
        ax.set(xlabel=plane["names"][0], ylabel=plane["names"][1], xlim=edges, ylim=edges)
        ax.set_title(f"{plane['kind']}: greedy {tuple(map(int, plane['greedy']))}", fontsize=9)
        ax.legend(fontsize=8, loc="upper right")
        figure.colorbar(filled, ax=ax, label="log10 loss, softmax τ = 1")
    figure.suptitle("Gradient flow of two utilities at a fixed mixer; dashed: ties")
    plots.save(figure, path)


PICTURES: dict[str, Any] = {
    "spectra": spectra,
    "escapes": escapes,
    "basins": basins,
    "barriers": barriers,
    "phase": phase,
}
