"""The picture of a diagnosis: faults over the episode, how large they are, and whose they are.

Apart from the figures, because matplotlib takes a second to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from jaxvff.reports import plots
from jaxvff.reports.diagnosis import LOSSES, Diagnosis

FILE = "diagnosis.png"
MOST = 10  # rows that are drawn: as many as tab10 has colours
STYLES = {"greedy": "-", "random": "--"}  # states of -> line


def draw(found: Sequence[Diagnosis], path: Path) -> None:
    """Three panels: is the greedy joint action best, what is lost, which agents are wrong.

    Args:
      found: the first MOST titles with a joint value are drawn.
      path: of the PNG.
    """
    names = list(dict.fromkeys(map(_name, found)))[:MOST]
    palette = plots.plt.get_cmap("tab10")
    colors = {name: palette(k) for k, name in enumerate(names)}
    shown = [(colors[_name(each)], each) for each in found if _name(each) in colors]
    height = 3.6 + 0.22 * len(names)
    figure, axes = plots.plt.subplots(1, 3, figsize=(13, height), layout="constrained")
    for k, (color, each) in enumerate(shown):
        # What lies below another line is wider, and shows on both sides of it.
        line = {
            "color": color,
            "ls": STYLES[each.states],
            "lw": 1.2 + 6 * (1 - (k + 1) / len(shown)),
        }
        _over_time(axes[0], each, line)
        axes[1].plot(LOSSES, _mean(each.per_seed["exceeds"]), **line)
    _agents(axes[2], shown)
    axes[0].set(
        xlabel="env steps since the start of the episode",
        ylabel="share of states",
        ylim=(-0.03, 1.03),
        title="the greedy joint action is the best one",
    )
    axes[1].set(
        xscale="log",
        xlabel="regret as a share of Q's range in the state",
        ylabel="share of states that lose so much or more",
        ylim=(-0.03, 1.03),
        title="how much is lost",
    )
    axes[2].set(
        xlabel="agent", ylabel="share of wrong pairs", title="actions that an agent orders wrongly"
    )
    handles = [plots.plt.Line2D([], [], color=colors[name], label=name) for name in names]
    handles += [
        plots.plt.Line2D([], [], color="k", ls=STYLES[kind], label=f"states of {kind} play")
        for kind in dict.fromkeys(each.states for each in found)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    plots.save(figure, path)


def _name(each: Diagnosis) -> str:
    return f"{each.title}: {each.value}"


def _mean(per_seed: np.ndarray) -> np.ndarray:
    """The mean over seeds `[...]` of `[seeds, ...]`; NaN where no seed has a number."""
    known = np.isfinite(per_seed)
    total, n = np.where(known, per_seed, 0).sum(0), known.sum(0)
    return np.where(n > 0, total / np.maximum(n, 1), np.nan)


def _over_time(ax: Axes, each: Diagnosis, line: Mapping[str, Any]) -> None:
    """The mean over seeds, and of greedy play a faint line for each of few seeds."""
    by_time, steps = each.per_seed["is_best_by_time"], each.bins[:-1]
    if len(steps) == 1:  # a game of one step
        by_time, steps = np.repeat(by_time, 2, axis=1), np.array([0, 1])
    ax.plot(steps, _mean(by_time), **line)
    if each.states == "greedy" and len(by_time) <= plots.FEW_SEEDS:
        ax.plot(steps, by_time.T, color=line["color"], lw=0.6, alpha=0.4)


def _agents(ax: Axes, shown: Sequence[tuple[plots.Color, Diagnosis]]) -> None:
    """Bars of each agent, one for each row, with a dot for each of few seeds."""
    width = 0.8 / max(1, len(shown))
    for k, (color, each) in enumerate(shown):
        wrong = each.per_seed["wrong_pairs_of_agent"]
        at = np.arange(wrong.shape[1]) + (k + 0.5) * width - 0.4
        hatch = "" if STYLES[each.states] == "-" else "///"
        ax.bar(at, _mean(wrong), width, color=color, hatch=hatch, edgecolor="w", alpha=0.8)
        if len(wrong) <= plots.FEW_SEEDS:
            ax.plot(np.tile(at, (len(wrong), 1)), wrong, "k.", ms=3, alpha=0.5)
    n_agents = max(each.per_seed["wrong_pairs_of_agent"].shape[1] for _, each in shown)
    if n_agents <= 12:
        ax.set_xticks(range(n_agents))
