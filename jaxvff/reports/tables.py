"""Results as tables in the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.columns import Columns
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxvff.reports import records
from jaxvff.reports.records import EpisodeRecord, Record, TableRecord
from jaxvff.reports.statistics import Aggregate, Rate

LETTERS = "ABCDEFGH"  # of an agent's actions
GRID_ACTIONS = len(LETTERS)  # a game of two agents with more actions is shown as a list
LARGEST_PAYOFFS = 8  # rows of such a list, before that of the greedy joint action
FULL_TABLES = 3  # sweep values whose learned tables are shown; all have their rates
RATES = {"fit": "fit", "optimal": "greedy-optimal", "both": "both"}  # SUCCESSES -> heading
SCORES = {"test_win_rate": "win rate", "test_return": "return"}  # of EpisodeRecord -> heading


def print_results(console: Console, found: Sequence[Record]) -> None:
    """Of matrix games the first learned tables and all rates; of episodes the scores."""
    games, episodes = records.by_kind(found)
    for game in games[:FULL_TABLES]:
        console.print(learned_table(game))
    if games:
        console.print(rates_table(games))
    if episodes:
        console.print(scores_table(episodes))


def scores_table(episodes: Sequence[EpisodeRecord]) -> Table:
    """Greedy win rates and returns over seeds, a row per sweep value."""
    # Where nobody can win there is no win rate, and no column of dashes.
    shown = {
        name: heading
        for name, heading in SCORES.items()
        if any(name in r.aggregate and r.aggregate[name].n for r in episodes)
    }
    table = Table(title="Greedy episodes: interquartile mean over seeds, 95 % bootstrap interval")
    table.add_column("run", overflow="fold")
    for heading in ("env steps", *shown.values(), "seeds", "stopped"):
        table.add_column(heading, justify="right", overflow="fold")
    for r in episodes:
        steps = f"{int(np.median(r.env_steps)):,}"
        scores = (score_text(r.aggregate.get(name)) for name in shown)
        table.add_row(r.title, steps, *scores, str(len(r.seed)), str(r.stopped))
    return table


def score_text(score: Aggregate | None) -> str:
    """`0.44 [0.28,0.61]`, the interval without a space; a dash for what was not measured."""
    if score is None or not np.isfinite(score.iqm):
        return "-"
    if not np.isfinite(score.low):
        return f"{score.iqm:.2f}"
    return f"{score.iqm:.2f} [{score.low:.2f},{score.high:.2f}]"


def rates_table(games: Sequence[TableRecord]) -> Table:
    """The shares of seeds with their intervals, a row per sweep value."""
    table = Table(title="Share of seeds, with 95 % Wilson interval")
    table.add_column("run", overflow="fold")
    for heading in (*RATES.values(), "seeds"):
        table.add_column(heading, justify="right", overflow="fold")
    for r in games:
        table.add_row(r.title, *(rate_text(r.rates[name]) for name in RATES), str(len(r.seed)))
    return table


def rate_text(rate: Rate) -> str:
    """`0.44 (.28-.61)`, the interval in brackets."""
    low, high = (f"{bound:.2f}".removeprefix("0") for bound in (rate.low, rate.high))
    return f"{rate.rate:.2f} ({low}-{high})"


def learned_table(game: TableRecord) -> Group:
    """The true table beside the one that the median seed learned, as in the paper's Table 1."""
    true, learned = game.payoff, game.median_seed
    head = f"{game.title}: seed {learned.seed}, the median by largest error"
    n = decimals(true)
    if fits_grid(true):
        tables = [
            _grid("true payoff", true, None, n),
            _grid("learned Q_tot (utilities on the margins)", learned.q_tot, learned.utilities, n),
        ]
        return Group(Text(head, style="bold"), Columns(tables, padding=(0, 4)))
    listed = _joint_actions(true, learned.q_tot, learned.utilities, n + 1)
    return Group(Text(head, style="bold"), listed)


def fits_grid(payoff: np.ndarray) -> bool:
    """Whether payoffs `[U] * A` are those of two agents with few enough actions for a grid."""
    return payoff.ndim == 2 and len(payoff) <= GRID_ACTIONS


def _grid(name: str, values: np.ndarray, utilities: np.ndarray | None, n_decimals: int) -> Table:
    """The joint values of two agents; the best joint action is green.

    Args:
      name: the table's title.
      values: `[U, U]`.
      utilities: `[2, U]`, shown on the margins, and the greedy joint action is the best one; None:
        the one with the largest value is.
      n_decimals: of all numbers.
    """

    def margin(agent: int, action: int) -> str:
        shown = "" if utilities is None else f"({number(utilities[agent, action], n_decimals)})"
        return LETTERS[action] + shown

    best = greedy_cell(values) if utilities is None else greedy(utilities)
    table = Table(title=name, title_justify="left")
    table.add_column(r"u1 \ u2" if utilities is None else r"Q1 \ Q2")
    for j in range(values.shape[1]):
        table.add_column(margin(1, j), justify="right", overflow="fold")
    for i, row in enumerate(values):
        cells = [number(x, n_decimals) for x in row]
        cells = [f"[bold green]{c}[/]" if (i, j) == best else c for j, c in enumerate(cells)]
        table.add_row(margin(0, i), *cells)
    table.caption = "green: " + ("largest payoff" if utilities is None else "greedy joint action")
    return table


def _joint_actions(
    true: np.ndarray, learned: np.ndarray, utilities: np.ndarray, n_decimals: int
) -> Table:
    """The joint actions with the largest payoffs, and the greedy one in the last row.

    Args:
      true: `[U] * A`, the payoffs.
      learned: `[U] * A`.
      utilities: `[A, U]`.
      n_decimals: of all numbers.
    """
    order = np.argsort(-true, axis=None)[:LARGEST_PAYOFFS]
    largest = [np.unravel_index(i, true.shape) for i in order]
    table = Table(title="largest payoffs, then the greedy joint action")
    for heading in ("joint action", "true", "learned"):
        table.add_column(heading, justify="right", overflow="fold")
    for cell in [*largest, greedy(utilities)]:
        name = " ".join(str(int(action)) for action in cell)
        table.add_row(name, number(true[cell], n_decimals), number(learned[cell], n_decimals))
    return table


def number(x: float, decimals: int = 1) -> str:
    """So many decimals, and no minus sign before a zero."""
    return f"{round(float(x), decimals) + 0.0:.{decimals}f}"


def decimals(payoff: np.ndarray) -> int:
    """How many decimals show payoffs: three digits of the largest |payoff|, and at least one."""
    largest = np.max(np.abs(payoff), initial=0.0, where=np.isfinite(payoff))
    return max(1, 2 - math.floor(math.log10(largest))) if largest > 0 else 1


def greedy(utilities: np.ndarray) -> tuple[int, ...]:
    """The joint action of greedy agents, of utilities `[A, U]`."""
    return tuple(int(i) for i in np.argmax(utilities, axis=-1))


def greedy_cell(values: np.ndarray) -> tuple[int, ...]:
    """The joint action with the largest of the values `[U] * A`."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(values), values.shape))
