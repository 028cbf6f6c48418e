"""The parts of a report that compare methods: on one task, and across tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxvff.reports import page_curves, page_payoffs, page_scores, svg
from jaxvff.reports.entry import Entry
from jaxvff.reports.page_data import Picture
from jaxvff.reports.page_payoffs import Payoff
from jaxvff.reports.page_scores import MOST_COMPARED, RETURN, WIN_RATE, Pairs, has, words
from jaxvff.reports.plots import MOST_CURVES
from jaxvff.reports.records import SUCCESSES
from jaxvff.reports.statistics import Aggregate, Rate, interval, iqm

LENGTH = "test_length"

Named = tuple[str, str, Entry]  # task, name, entry


class Curve(NamedTuple):
    """An entry of a legend."""

    swatch: str
    name: str


class Score(NamedTuple):
    """A row of final scores."""

    name: str
    swatch: str
    scores: list[Aggregate | None]  # by the columns of the task
    rates: list[Rate | None]  # by SUCCESSES
    seeds: int
    stopped: int
    steps: int


class Task(NamedTuple):
    """What a report shows of one task."""

    name: str
    anchor: str
    legend: list[Curve]
    left_out: int  # curves that are not drawn
    curves: list[Picture]
    has_seeds: bool
    columns: list[str]  # of scores
    with_rates: bool
    scores: list[Score]
    final: Picture | None
    profile: Picture | None
    pairs: Pairs | None
    score: str  # what is compared, in words
    payoffs: list[list[Payoff]]  # the true and the learned table of each sweep value


class Across(NamedTuple):
    """What a report shows of several tasks together."""

    tasks: list[str]
    score: str
    scores: list[tuple[str, str, Aggregate]]  # swatch, name
    left_out: list[str]
    profile: Picture
    pairs: Pairs | None


def tasks(named: Sequence[Named], metrics: Sequence[str], score: str | None) -> list[Task]:
    """The sections of a report, one a task.

    Args:
      named: all sweep values.
      metrics: curves to draw besides the usual ones.
      score: what is compared; None: the win rate, else the return.
    """
    styles = _styles(named)
    by_task: dict[str, list[tuple[str, Entry]]] = {}
    for task, name, entry in named:
        by_task.setdefault(task, []).append((name, entry))
    return [
        _task(k, task, mine, styles, metrics, score or _score(e for _, e in mine))
        for k, (task, mine) in enumerate(by_task.items())
    ]


def across(named: Sequence[Named], score: str | None) -> Across | None:
    """Comparisons over all tasks that have the score; None if there are fewer than two.

    Args:
      named: all sweep values.
      score: what is compared; None: the win rate. Returns are not: each task has units of its own.
    """
    score = score or WIN_RATE
    if score == RETURN:
        return None
    scores: dict[str, dict[str, np.ndarray]] = {}  # by name and task
    for task, name, entry in named:
        if np.isfinite(entry.final.get(score, np.nan)).any():
            scores.setdefault(name, {})[task] = entry.final[score]
    names = list(dict.fromkeys(task for of_name in scores.values() for task in of_name))
    complete = {name: of for name, of in scores.items() if len(of) == len(names)}
    if len(names) < 2 or not complete:
        return None
    styles = _styles(named)
    rows = [(name, [of[task] for task in names]) for name, of in complete.items()]
    rows.sort(key=lambda row: -interval(page_scores.matrix(row[1])).iqm)
    return Across(
        tasks=names,
        score=words(score),
        scores=[(svg.swatch(styles[n]), n, interval(page_scores.matrix(of))) for n, of in rows],
        left_out=[name for name in scores if name not in complete],
        profile=page_scores.profile("all tasks", rows[:MOST_COMPARED], styles, score),
        pairs=page_scores.pairs(rows),
    )


def _styles(named: Sequence[Named]) -> dict[str, int]:
    """A method looks the same in all pictures of a page."""
    return {name: k for k, name in enumerate(dict.fromkeys(name for _, name, _ in named))}


def _score(entries: Iterable[Entry]) -> str:
    """What a task is judged by: win rates where anybody won, else returns."""
    wins = (entry.final.get(WIN_RATE) for entry in entries)
    return WIN_RATE if any(w is not None and np.nansum(w) > 0 for w in wins) else RETURN


def _task(
    number: int,
    task: str,
    mine: list[tuple[str, Entry]],
    styles: dict[str, int],
    metrics: Sequence[str],
    score: str,
) -> Task:
    # The best come first: in tables, and in pictures that do not have room for all.
    mine = sorted(mine, key=lambda each: -_rank(each[1], score))
    drawn, legend = mine[:MOST_CURVES], []
    pictures = page_curves.curves(task, drawn, styles, metrics)
    if pictures:
        legend = [Curve(svg.swatch(styles[name]), name) for name, e in drawn if e.lines]
    compared = [(name, [e.final[score]]) for name, e in mine if has(e, score)]
    columns = _columns([e for _, e in mine])
    return Task(
        name=task,
        anchor=f"task-{number}",
        legend=legend,
        left_out=sum(bool(e.lines) for _, e in mine[MOST_CURVES:]),
        curves=pictures,
        has_seeds=any(file.styles for picture in pictures for file in picture.files),
        columns=[words(name) for name in columns],
        with_rates=any(entry.rates for _, entry in mine),
        scores=[_row(name, entry, columns, styles[name]) for name, entry in mine],
        final=page_scores.final(task, mine, styles, score),
        profile=page_scores.profile(task, compared[:MOST_COMPARED], styles, score)
        if compared
        else None,
        pairs=page_scores.pairs(compared),
        score=words(score),
        payoffs=[both for name, e in mine for both in page_payoffs.payoffs(name, e)],
    )


def _rank(entry: Entry, score: str) -> float:
    """By which sweep values are sorted: the share of seeds that do both, else the score's IQM."""
    if "both" in entry.rates:
        return entry.rates["both"].rate + 1e-3 * entry.rates["optimal"].rate
    found = entry.final.get(score, np.empty(0))
    middle = iqm(found[np.isfinite(found)])
    return middle if np.isfinite(middle) else -np.inf


def _columns(entries: Sequence[Entry]) -> list[str]:
    """The scores that any entry has: win rate and return first, lengths last.

    Matrix games have one step, so that their length says nothing.
    """
    found = {n for e in entries for n in e.final if n.startswith("test_") and has(e, n)}
    if any(entry.rates for entry in entries):
        found.discard(LENGTH)
    first = [name for name in (WIN_RATE, RETURN) if name in found]
    return first + sorted(found - {*first}, key=lambda name: (name == LENGTH, name))


def _row(name: str, entry: Entry, columns: Sequence[str], style: int) -> Score:
    steps = [line["step"] for line in entry.lines] or [entry.steps]
    return Score(
        name=name,
        swatch=svg.swatch(style),
        scores=page_scores.aggregates(entry, columns),
        rates=[entry.rates.get(success) for success in SUCCESSES],
        seeds=entry.n_seeds,
        stopped=len(entry.stopped),
        steps=max(steps[-1], entry.steps),
    )
