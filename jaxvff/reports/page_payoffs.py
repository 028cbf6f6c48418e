"""The payoff tables of matrix games in a report: the true one beside what was learned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jaxvff.reports import tables
from jaxvff.reports.entry import Entry


class Cell(NamedTuple):
    """A number in a payoff table."""

    text: str
    background: str  # a colour, blue for positive and red for negative values
    marked: bool  # the largest payoff, or the greedy joint action


class Payoff(NamedTuple):
    """The payoffs of a game, or what the median seed learned of them."""

    title: str
    rows: list[str]  # headings, with utilities
    columns: list[str]
    cells: list[list[Cell]]


def payoffs(name: str, entry: Entry) -> list[list[Payoff]]:
    """The true and the learned table of two agents, of each run."""
    out = []
    for training in entry.trainings:
        if training.learned is None or not tables.fits_grid(training.learned.payoff):
            continue
        payoff, median = training.learned
        of = f" of {training.run}" if len(entry.trainings) > 1 else ""
        learned = (
            f"{name}: Q_tot and utilities that seed {median.seed} learned, the median by error{of}"
        )
        out.append(
            [
                _payoff("payoffs", payoff, payoff, None),
                _payoff(learned, median.q_tot, payoff, median.utilities),
            ]
        )
    return out


def _payoff(
    title: str, values: np.ndarray, true: np.ndarray, utilities: np.ndarray | None
) -> Payoff:
    n, span = tables.decimals(true), max(float(np.abs(true).max()), 1e-9)
    best = tables.greedy_cell(values) if utilities is None else tables.greedy(utilities)

    def heading(agent: int, action: int) -> str:
        own = "" if utilities is None else f" ({tables.number(utilities[agent, action], n)})"
        return f"{tables.LETTERS[action]}{own}"

    cells = [
        [
            Cell(tables.number(x, n), _background(x / span), (i, j) == best)
            for j, x in enumerate(row)
        ]
        for i, row in enumerate(values)
    ]
    actions = range(len(values))
    rows, columns = ([heading(agent, a) for a in actions] for agent in (0, 1))
    return Payoff(title, rows, columns, cells)


def _background(share: float) -> str:
    """Blue for positive and red for negative shares of the largest payoff, light on any page."""
    strength = min(1.0, abs(share)) * 0.5 if np.isfinite(share) else 0.0
    return f"rgb({'38 120 200' if share > 0 else '214 60 60'} / {strength:.2f})"
