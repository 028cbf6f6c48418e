"""How methods compare at the end: final scores, performance profiles, pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxvff.reports import svg
from jaxvff.reports.entry import Entry
from jaxvff.reports.page_data import Picture, file
from jaxvff.reports.plots import MOST_CURVES
from jaxvff.reports.statistics import (
    Aggregate,
    Improvement,
    band,
    performance_profile,
    probability_of_improvement,
)

MOST_COMPARED = 12  # methods in a table of pairs
N_THRESHOLDS = 101  # of a performance profile
WIN_RATE, RETURN = "test_win_rate", "test_return"
SCORE_NAMES = {WIN_RATE: "greedy win rate", RETURN: "greedy return"}


class Pairs(NamedTuple):
    """Probabilities of improvement of each method over each other one."""

    names: list[str]
    cells: list[list[Improvement | None]]  # None on the diagonal
    left_out: int


def has(entry: Entry, score: str) -> bool:
    """Whether any seed has a number of this name."""
    return bool(np.isfinite(entry.final.get(score, np.nan)).any())


def words(name: str) -> str:
    """A metric in words."""
    return SCORE_NAMES.get(name, name.removeprefix("test_").replace("_", " "))


def aggregates(entry: Entry, columns: Sequence[str]) -> list[Aggregate | None]:
    """What `interval` says of each score, all of them resampled at once."""
    there = [c for c in columns if c in entry.final]
    if not there:
        return [None] * len(columns)
    scores = np.stack([entry.final[c] for c in there])  # [columns, seeds]
    known = np.isfinite(scores).sum(axis=1)
    found = {
        c: Aggregate(float(middle), float(low), float(high), int(n), entry.n_seeds - int(n))
        for c, n, middle, low, high in zip(there, known, *band(scores), strict=True)
    }
    return [found.get(c) for c in columns]


def final(
    task: str, mine: Sequence[tuple[str, Entry]], styles: dict[str, int], score: str
) -> Picture | None:
    """The final figures with their intervals, the best first."""
    found: list[svg.Span] = []
    rates = any(entry.rates for _, entry in mine)
    for name, entry in mine:
        if rates and "both" in entry.rates:
            rate = entry.rates["both"]
            found.append(svg.Span(styles[name], name, rate.rate, rate.low, rate.high))
        elif not rates and has(entry, score):
            mean = aggregates(entry, [score])[0]
            assert mean is not None
            found.append(svg.Span(styles[name], name, mean.iqm, mean.low, mean.high))
    if not found:
        return None
    what = "share of seeds that fit and are greedy-optimal" if rates else words(score)
    how = "95 % Wilson interval" if rates else "IQM, 95 % bootstrap interval"
    shown = found[: 2 * MOST_CURVES]
    said = ", ".join(f"{row.name} {row.middle:.3g}" for row in shown)
    columns = ["method", "rate" if rates else "iqm", "low", "high"]
    return Picture(
        title=f"At the end: {what}",
        note=how + (f"; the best {len(shown)} of {len(found)}" if len(found) > len(shown) else ""),
        svg=svg.spans(
            shown,
            label=f"{what} at the end, on {task}: {said}.",
            x_label="share of seeds" if rates else what,
            share=rates or score == WIN_RATE,
        ),
        files=[file("figures", f"{task}-final", columns, [row[1:] for row in found])],
    )


def profile(
    task: str, rows: Sequence[tuple[str, list[np.ndarray]]], styles: dict[str, int], score: str
) -> Picture:
    """Performance profiles; scores of each method are a list over tasks."""
    every = np.concatenate([scores for _, of in rows for scores in of])
    every = every[np.isfinite(every)]
    low, high = (0.0, 1.0) if score == WIN_RATE else (every.min(), every.max())
    thresholds = np.linspace(low, high, N_THRESHOLDS)
    profiles = [(name, performance_profile(of, thresholds)) for name, of in rows]
    data = [
        [name, *row] for name, p in profiles for row in zip(thresholds, *p, strict=True)
    ]  # fmt: skip
    half = thresholds[N_THRESHOLDS // 2]
    said = ", ".join(f"{name} {p.share[N_THRESHOLDS // 2]:.2f}" for name, p in profiles)
    columns = ["method", "threshold", "share", "low", "high"]
    return Picture(
        title="Performance profile",
        note="share of seeds that score above a threshold, 95 % bootstrap interval; a seed that "
        "stopped is above none",
        svg=svg.steps(
            thresholds,
            [(styles[name], p) for name, p in profiles],
            label=f"Performance profile on {task}. Share of seeds above {half:.3g}: {said}.",
            x_label=f"threshold of the {words(score)}",
        ),
        files=[file("profile", f"{task}-profile", columns, data)],
    )


def pairs(rows: Sequence[tuple[str, list[np.ndarray]]]) -> Pairs | None:
    """Every method beside every other one; None for fewer than two."""
    shown = rows[:MOST_COMPARED]
    if len(shown) < 2:
        return None
    cells: list[list[Improvement | None]] = [[None] * len(shown) for _ in shown]
    for i, (_, of_x) in enumerate(shown):
        for j, (_, of_y) in enumerate(shown[:i]):
            found = probability_of_improvement(of_x, of_y)
            cells[i][j] = found
            # The other way round, of the same resamples: S(y, x) = 1 - S(x, y).
            cells[j][i] = Improvement(1 - found.probability, 1 - found.high, 1 - found.low)
    return Pairs([name for name, _ in shown], cells, len(rows) - len(shown))


def matrix(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of each task as `[runs, tasks]`; tasks of fewer runs end in NaN."""
    out = np.full((max(map(len, scores)), len(scores)), np.nan)
    for k, of_task in enumerate(scores):
        out[: len(of_task), k] = of_task
    return out
