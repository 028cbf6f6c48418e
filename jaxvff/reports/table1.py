"""The paper's Table 1, over many seeds and more methods, its own numbers beside ours.

It draws with matplotlib, which takes a second to import: import this module where it is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from rich.console import Group
from rich.table import Table

from jaxvff.core.files import write_json
from jaxvff.core.scores import fits
from jaxvff.reports import plots, records, tables
from jaxvff.reports.machine import machine
from jaxvff.reports.records import Record, TableRecord

JSON_FILE, PLOT = "table1.json", "table1.png"
# Where legends are: to the right of the axes, which are full.
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
STYLES = {"fit": "-", "optimal": ":"}  # of the shares over time


class Printed(NamedTuple):
    """What the paper prints of a method on a game."""

    utilities: list[list[float]]  # [A, U]
    q_tot: list[list[float]]  # [U, U]


# (method, game) -> Table 1 of the paper, which shows one run each and gives no rates.
PAPER = {
    ("nmqmix", "a"): Printed(
        utilities=[[8.1, -4.3, -4.3], [7.4, -4.0, -4.1]],
        q_tot=[[12.0, -12.0, -12.0], [-12.0, 0.0, 0.0], [-12.0, 0.0, 0.0]],
    ),
    ("qmix", "a"): Printed(
        utilities=[[-5.3, 0.1, 0.1], [-5.2, 0.1, 0.1]],
        q_tot=[[-12.0, -12.0, -12.0], [-12.0, 0.0, -0.1], [-12.0, -0.0, -0.0]],
    ),
    ("nmqmix", "b"): Printed(
        utilities=[[6.2, -4.4, 1.7], [6.0, -3.7, 2.5]],
        q_tot=[[12.0, 0.0, 10.0], [0.0, 0.0, 10.0], [10.0, 10.0, 10.0]],
    ),
    ("qmix", "b"): Printed(
        utilities=[[-0.6, -0.6, 0.5], [-0.6, -0.6, 0.5]],
        q_tot=[[0.1, 0.1, 4.1], [0.1, 0.1, 4.1], [5.6, 5.6, 10.0]],
    ),
}


class Entry(NamedTuple):
    """A method on a game: what we found, and what the paper prints."""

    record: TableRecord
    shares: dict[int, dict[str, float]]  # env steps per seed -> share of seeds, of each success
    paper: Printed | None

    @property
    def game(self) -> str:
        """The game's name as the paper writes it."""
        return str(self.record.env["game"]).upper()

    def to_json(self) -> dict[str, Any]:
        """The record as table.json has it, and two keys more."""
        paper = self.paper and self.paper._asdict()
        return self.record.to_json() | {"share_by_step": self.shares, "paper": paper}


def write(
    folder: Path,
    found: Sequence[Record],
    job_folders: Sequence[Path],
    trained_on: Mapping[str, Any] | None = None,
) -> Group:
    """Write table1.json and table1.png.

    Args:
      folder: the run folder.
      found: the records of `reproduce table1`.
      job_folders: for each record, where the metrics file of its job is.
      trained_on: the machine; None: this one.

    Returns:
      What the terminal shows.
    """
    entries = [
        _entry(record, job_folder)
        for record, job_folder in zip(found, job_folders, strict=True)
        if isinstance(record, TableRecord)
    ]
    # Sweep values of one job share its time.
    timings = {f: e.record.timing for f, e in zip(job_folders, entries, strict=True)}.values()
    seconds = {k: round(sum(t[k] for t in timings), 1) for k in ("wall_s", "compile_s")}
    where = trained_on or machine()
    results = [entry.to_json() for entry in entries]
    write_json(folder / JSON_FILE, {"machine": where, **seconds, "results": results})
    plot(entries, folder / PLOT)
    note = (
        f"{seconds['wall_s']:.0f} s in all, {seconds['compile_s']:.0f} s of it compiling; "
        f"peak memory {where['peak_rss_mb']} MB; {where['n_devices']} x {where['device']}; "
        f"jax {where['jax']}"
    )
    return Group(_rates_table(entries), note)


def _entry(record: TableRecord, job_folder: Path) -> Entry:
    shares = {
        line["step"]: {k: round(sum(line[k]) / len(line[k]), 4) for k in tables.RATES}
        for line in records.curve(job_folder, record).lines
    }
    return Entry(record, shares, PAPER.get((record.method, record.env["game"])))


def _rates_table(entries: Sequence[Entry]) -> Table:
    """Rates by method and game, and what the paper's single runs show."""
    n = len(entries[0].record.seed)
    table = Table(title=f"Table 1 over {n} seeds: share of seeds, 95 % Wilson interval")
    for heading in ("method", "game", *tables.RATES.values(), "paper"):
        table.add_column(
            heading, justify="left" if heading in ("method", "game") else "right", overflow="fold"
        )
    for entry in entries:
        rates = (tables.rate_text(entry.record.rates[name]) for name in tables.RATES)
        table.add_row(entry.record.method, entry.game, *rates, _verdict(entry))
    return table


def _verdict(entry: Entry) -> str:
    """Whether the paper's run fits the payoffs, and whether its greedy joint action is optimal."""
    if entry.paper is None:
        return "-"
    true = entry.record.payoff
    fit = fits(np.abs(true - np.array(entry.paper.q_tot)).max(), true)
    optimal = true[tables.greedy(np.array(entry.paper.utilities))] == true.max()
    return f"{'fits' if fit else 'no fit'}, {'optimal' if optimal else 'not optimal'}"


def plot(entries: Sequence[Entry], path: Path) -> None:
    """Rates with intervals, shares over time, the median seeds' tables, the paper's tables."""
    games = list(dict.fromkeys(entry.game for entry in entries))
    methods = list(dict.fromkeys(entry.record.method for entry in entries))
    rows, half = 3 + len(games), len(methods)
    figure = plt.figure(figsize=(2.35 * len(methods), 2.5 * rows + 1), layout="constrained")
    grid = figure.add_gridspec(rows, len(methods) * 2)

    # Ours: a game's rates and shares fill half of the width; its tables are a row.
    for k, game in enumerate(games):
        of_game = [entry for entry in entries if entry.game == game]
        columns = slice(k * half, (k + 1) * half)
        _draw_rates(figure.add_subplot(grid[0, columns]), of_game)
        _draw_shares(figure.add_subplot(grid[1, columns]), of_game)
        for i, entry in enumerate(of_game):
            learned, payoff = entry.record.median_seed, entry.record.payoff
            plots.heat_map(
                figure.add_subplot(grid[2 + k, 2 * i : 2 * i + 2]),
                learned.q_tot,
                true=payoff,
                name=f"{entry.record.method}, game {game}, seed {learned.seed}",
                utilities=learned.utilities,
            )

    # The paper's tables, in the last row.
    printed = [(entry, entry.paper) for entry in entries if entry.paper is not None]
    for i, (entry, paper) in enumerate(printed):
        plots.heat_map(
            figure.add_subplot(grid[rows - 1, 2 * i : 2 * i + 2]),
            np.array(paper.q_tot),
            true=entry.record.payoff,
            name=f"paper: {entry.record.method}, game {entry.game}",
            utilities=np.array(paper.utilities),
        )
    plots.save(figure, path)


def _draw_shares(ax: Axes, entries: Sequence[Entry]) -> None:
    """Shares of seeds that fit and that are greedy-optimal, of each method on one game."""
    for entry in entries:
        color = None  # the next one, for both lines of a method
        for name, style in STYLES.items():
            shares = [share[name] for share in entry.shares.values()]
            label = entry.record.method if name == "fit" else None
            (line,) = ax.plot(list(entry.shares), shares, style, label=label, color=color)
            color = line.get_color()
    title = f"Game {entries[0].game}: share that fits (solid), is greedy-optimal (dotted)"
    ax.set(title=title, xlabel="env steps per seed", ylim=(-0.03, 1.03))
    ax.legend(fontsize=7, **BESIDE)


def _draw_rates(ax: Axes, entries: Sequence[Entry]) -> None:
    """Shares of seeds with their Wilson intervals, a group of bars per method on one game."""
    for k, (name, heading) in enumerate(tables.RATES.items()):
        rates = [entry.record.rates[name] for entry in entries]
        share, low, high = np.array([(r.rate, r.low, r.high) for r in rates]).T
        x = np.arange(len(entries)) + 0.27 * (k - 1)
        error = np.clip([share - low, high - share], 0, None)
        ax.bar(x, share, 0.25, label=heading, yerr=error, capsize=2, error_kw={"lw": 1})
    n = len(entries[0].record.seed)
    ax.set_xticks(range(len(entries)), [entry.record.method for entry in entries])
    title = f"Game {entries[0].game}: share of {n} seeds, 95 % Wilson interval"
    ax.set(title=title, ylim=(0, 1.02))
    ax.legend(fontsize=7, **BESIDE)
