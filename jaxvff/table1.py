"""The paper's Table 1, over many seeds and more methods, its own numbers beside ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from rich.console import Group
from rich.table import Table

from jaxvff import plots, show

# Table 1 of the paper: (utilities of agent 1, of agent 2, Q_tot); one run each, no rates given.
PAPER: dict[tuple[str, str], dict[str, list]] = {
    ("nmqmix", "a"): {
        "utilities": [[8.1, -4.3, -4.3], [7.4, -4.0, -4.1]],
        "q_tot": [[12.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]],
    },
    ("qmix", "a"): {
        "utilities": [[-5.3, 0.1, 0.1], [-5.2, 0.1, 0.1]],
        "q_tot": [[-12.0, -12.0, -12.0], [-12.0, 0.0, -0.1], [-12.0, -0.0, -0.0]],
    },
    ("nmqmix", "b"): {
        "utilities": [[6.2, -4.4, 1.7], [6.0, -3.7, 2.5]],
        "q_tot": [[12.0, 0.0, 10.0], [0.0, 0.0, 10.0], [10.0, 10.0, 10.0]],
    },
    ("qmix", "b"): {
        "utilities": [[-0.6, -0.6, 0.5], [-0.6, -0.6, 0.5]],
        "q_tot": [[0.1, 0.1, 4.1], [0.1, 0.1, 4.1], [5.6, 5.6, 10.0]],
    },
}


def summary(records: list[dict[str, Any]], folders: list[Path]) -> dict[str, Any]:
    """What table1.json holds: our records, shares over time, the paper's numbers, the machine."""
    for r, folder in zip(records, folders, strict=True):
        r["share_by_step"] = {
            str(line["step"]): {k: round(sum(line[k]) / len(line[k]), 4) for k in show.RATES}
            for line in show.curve(folder, r["sweep"])
        }
        r["paper"] = PAPER.get((r["method"], r["env"]["game"]))
    groups = dict(zip(folders, (r["timing"] for r in records), strict=True)).values()
    total = {k: round(sum(t[k] for t in groups), 1) for k in ("wall_s", "compile_s")}
    return {"machine": show.machine(), **total, "results": records}


def terminal(summary: dict[str, Any]) -> Group:
    """Rates by method and game, and what the paper's single runs show."""
    n = len(summary["results"][0]["seed"])
    table = Table(title=f"Table 1 over {n} seeds: share of seeds, 95 % Wilson interval")
    for name in ("method", "game", *show.RATES.values(), "paper"):
        table.add_column(name, justify="left" if name in ("method", "game") else "right")
    for r in summary["results"]:
        table.add_row(
            r["method"],
            r["env"]["game"].upper(),
            *(show.rate_text(r["rates"][k]) for k in show.RATES),
            _paper_says(r),
        )
    m = summary["machine"]
    note = (
        f"{summary['wall_s']:.0f} s in all, {summary['compile_s']:.0f} s of it compiling; "
        f"peak memory {m['peak_rss_mb']} MB; {m['n_devices']} x {m['device']}; jax {m['jax']}"
    )
    return Group(table, note)


def _paper_says(r: dict[str, Any]) -> str:
    if not r["paper"]:
        return "-"
    true, q_tot = np.array(r["payoff"]), np.array(r["paper"]["q_tot"])
    greedy = tuple(np.argmax(r["paper"]["utilities"], axis=1))
    fits, optimal = np.abs(true - q_tot).max() < 0.1, true[greedy] == true.max()
    return f"{'fits' if fits else 'no fit'}, {'optimal' if optimal else 'not optimal'}"


def plot(summary: dict[str, Any], path: Path) -> None:
    """Rates with intervals, shares over time, the median seeds' tables, the paper's."""
    results = summary["results"]
    games = list(dict.fromkeys(r["env"]["game"] for r in results))
    methods = list(dict.fromkeys(r["method"] for r in results))
    rows = 3 + len(games)
    figure = plt.figure(figsize=(2.35 * len(methods), 2.5 * rows + 1), layout="constrained")
    grid = figure.add_gridspec(rows, len(methods) * 2)
    for k, game in enumerate(games):
        half = len(methods)
        ax = figure.add_subplot(grid[0, k * half : (k + 1) * half])
        _rates(ax, [r for r in results if r["env"]["game"] == game], game)
        ax = figure.add_subplot(grid[1, k * half : (k + 1) * half])
        _over_time(ax, [r for r in results if r["env"]["game"] == game], game)
        for i, r in enumerate(r for r in results if r["env"]["game"] == game):
            ax = figure.add_subplot(grid[2 + k, 2 * i : 2 * i + 2])
            median = r["median_seed"]
            name = f"{r['method']}, game {game.upper()}, seed {median['seed']}"
            _table(ax, r, median, name)
    printed = [r for r in results if r["paper"]]
    for i, r in enumerate(printed):
        ax = figure.add_subplot(grid[rows - 1, 2 * i : 2 * i + 2])
        _table(ax, r, r["paper"], f"paper: {r['method']}, game {r['env']['game'].upper()}")
    plots.save(figure, path)


def _table(ax: plt.Axes, r: dict[str, Any], what: dict[str, Any], name: str) -> None:
    values, utilities = np.array(what["q_tot"], float), np.array(what["utilities"], float)
    plots.heat_map(ax, values, utilities, name, np.array(r["payoff"], float))


def _over_time(ax: plt.Axes, results: list[dict[str, Any]], game: str) -> None:
    for r in results:
        steps, color = [int(step) for step in r["share_by_step"]], None
        for key, style in (("fit", "-"), ("optimal", ":")):
            shares = [share[key] for share in r["share_by_step"].values()]
            label = r["method"] if key == "fit" else None
            (line,) = ax.plot(steps, shares, style, label=label, color=color)
            color = line.get_color()
    name = f"Game {game.upper()}: share that fits (solid), is greedy-optimal (dotted)"
    ax.set(title=name, xlabel="env steps per seed", ylim=(-0.03, 1.03))
    ax.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _rates(ax: plt.Axes, results: list[dict[str, Any]], game: str) -> None:
    for k, (key, name) in enumerate(show.RATES.items()):
        rate = np.array([r["rates"][key]["rate"] for r in results])
        low = np.array([r["rates"][key]["low"] for r in results])
        high = np.array([r["rates"][key]["high"] for r in results])
        x = np.arange(len(results)) + 0.27 * (k - 1)
        error = np.clip([rate - low, high - rate], 0, None)
        ax.bar(x, rate, 0.25, label=name, yerr=error, capsize=2, error_kw={"lw": 1})
    n = len(results[0]["seed"])
    ax.set_xticks(range(len(results)), [r["method"] for r in results])
    ax.set(title=f"Game {game.upper()}: share of {n} seeds, 95 % Wilson interval", ylim=(0, 1.02))
    ax.legend(fontsize=8)
