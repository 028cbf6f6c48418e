"""The parts of a report that compare methods: on one task, and across tasks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxvff.reports import svg, tables
from jaxvff.reports.plots import CURVES, LOGARITHMIC, MOST_CURVES, SHARES
from jaxvff.reports.records import SUCCESSES
from jaxvff.reports.statistics import (
    Aggregate,
    Improvement,
    Rate,
    band,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    wilson,
)
from jaxvff.reports.study import Entry

MOST_REPORTS = 40  # of a curve that are drawn, evenly spread; the last one is among them
RESAMPLES = 200  # of the bands of curves; final scores have statistics.interval's
MOST_COMPARED = 12  # methods in a table of pairs
N_THRESHOLDS = 101  # of a performance profile
WIN_RATE, RETURN = "test_win_rate", "test_return"
SCORE_NAMES = {WIN_RATE: "greedy win rate", RETURN: "greedy return"}
LENGTH = "test_length"
AT = ("method", "env_steps")  # the first columns of the data of curves

Named = tuple[str, str, Entry]  # task, name, entry


class File(NamedTuple):
    """A CSV of a picture, to be saved."""

    what: str
    name: str
    uri: str
    # Of single seeds: the style of each curve in it, from which the page draws them; else empty.
    styles: str = ""


class Picture(NamedTuple):
    """A picture with its data."""

    title: str
    note: str
    svg: str
    files: list[File]


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


class Pairs(NamedTuple):
    """Probabilities of improvement of each method over each other one."""

    names: list[str]
    cells: list[list[Improvement | None]]  # None on the diagonal
    left_out: int


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
    """Comparisons over all tasks that have a win rate; None if there are fewer than two."""
    score = score or WIN_RATE
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
    rows.sort(key=lambda row: -interval(_matrix(row[1])).iqm)
    return Across(
        tasks=names,
        score=_words(score),
        scores=[(svg.swatch(styles[n]), n, interval(_matrix(of))) for n, of in rows],
        left_out=[name for name in scores if name not in complete],
        profile=_profile("all tasks", rows[:MOST_COMPARED], styles, score),
        pairs=_pairs(rows),
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
    pictures = _curves(task, drawn, styles, metrics)
    if pictures:
        legend = [Curve(svg.swatch(styles[name]), name) for name, e in drawn if e.lines]
    compared = [(name, [e.final[score]]) for name, e in mine if _has(e, score)]
    columns = _columns([e for _, e in mine])
    return Task(
        name=task,
        anchor=f"task-{number}",
        legend=legend,
        left_out=sum(bool(e.lines) for _, e in mine[MOST_CURVES:]),
        curves=pictures,
        has_seeds=any(file.styles for picture in pictures for file in picture.files),
        columns=[_words(name) for name in columns],
        with_rates=any(entry.rates for _, entry in mine),
        scores=[_row(name, entry, columns, styles[name]) for name, entry in mine],
        final=_final(task, mine, styles, score),
        profile=_profile(task, compared[:MOST_COMPARED], styles, score) if compared else None,
        pairs=_pairs(compared),
        score=_words(score),
        payoffs=[tables_of for name, e in mine if (tables_of := _payoffs(name, e))],
    )


def _rank(entry: Entry, score: str) -> float:
    """By which sweep values are sorted: the share of seeds that do both, else the score's IQM."""
    if "both" in entry.rates:
        return entry.rates["both"].rate + 1e-3 * entry.rates["optimal"].rate
    found = entry.final.get(score, np.empty(0))
    middle = iqm(found[np.isfinite(found)])
    return middle if np.isfinite(middle) else -np.inf


def _has(entry: Entry, score: str) -> bool:
    return bool(np.isfinite(entry.final.get(score, np.nan)).any())


def _columns(entries: Sequence[Entry]) -> list[str]:
    """The scores that any entry has: win rate and return first, lengths last.

    Matrix games have one step, so that their length says nothing.
    """
    found = {n for e in entries for n in e.final if n.startswith("test_") and _has(e, n)}
    if any(entry.rates for entry in entries):
        found.discard(LENGTH)
    first = [name for name in (WIN_RATE, RETURN) if name in found]
    return first + sorted(found - {*first}, key=lambda name: (name == LENGTH, name))


def _words(name: str) -> str:
    """A metric in words."""
    return SCORE_NAMES.get(name, name.removeprefix("test_").replace("_", " "))


def _row(name: str, entry: Entry, columns: Sequence[str], style: int) -> Score:
    steps = [line["step"] for line in entry.lines] or [entry.steps]
    return Score(
        name=name,
        swatch=svg.swatch(style),
        scores=_aggregates(entry, columns),
        rates=[entry.rates.get(success) for success in SUCCESSES],
        seeds=entry.n_seeds,
        stopped=len(entry.stopped),
        steps=max(steps[-1], entry.steps),
    )


def _aggregates(entry: Entry, columns: Sequence[str]) -> list[Aggregate | None]:
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


# Learning curves


def _curves(
    task: str, drawn: Sequence[tuple[str, Entry]], styles: dict[str, int], metrics: Sequence[str]
) -> list[Picture]:
    """A picture of each metric that anybody measured."""
    out = []
    lines = [line for _, entry in drawn for line in entry.lines]
    measured = {k for line in lines for k, v in line.items() if isinstance(v, list)}
    if any(set(SUCCESSES) <= entry.lines[-1].keys() for _, entry in drawn if entry.lines):
        out.append(_shares(task, drawn, styles))
    wanted = dict.fromkeys(m for m in (*CURVES, *metrics) if m in measured)
    found = (_metric(task, drawn, styles, metric) for metric in wanted)
    return out + [picture for picture in found if picture]


def _metric(
    task: str, drawn: Sequence[tuple[str, Entry]], styles: dict[str, int], metric: str
) -> Picture | None:
    curves, means, seeds = [], [], []
    most = max((len(entry.seeds) for _, entry in drawn), default=0)
    for name, entry in drawn:
        steps, values = _thinned(*entry.curve(metric))
        if not values.size:
            continue
        at = np.nanmedian(np.where(np.isnan(values), np.nan, steps), axis=1)
        curves.append(svg.Drawn(styles[name], at, *band(values, resamples=RESAMPLES)))
        means += [[name, *row] for row in zip(at, *curves[-1][2:], strict=True)]
        padding = [""] * (most - len(entry.seeds))
        seeds += [[name, step, *row, *padding] for step, row in zip(at, values, strict=True)]
    if not curves:
        return None
    title = CURVES.get(metric, _words(metric))
    return Picture(
        title=title,
        note="IQM over seeds, 95 % bootstrap interval",
        svg=svg.curves(
            curves,
            label=f"{title} on {task} against env steps. {_ends(drawn, metric)}",
            x_label="env steps per seed",
            share=metric == WIN_RATE,
            log=metric in LOGARITHMIC and all((c.middle > 0).all() for c in curves),
        ),
        files=[
            _file("curves", f"{task}-{metric}", [*AT, "iqm", "low", "high"], means),
            _file(
                "each seed",
                f"{task}-{metric}-seeds",
                [*AT, *(f"seed {k + 1}" for k in range(most))],
                seeds,
                styles=" ".join(str(curve.style) for curve in curves),
            ),
        ],
    )


def _ends(drawn: Sequence[tuple[str, Entry]], metric: str) -> str:
    """Where curves end, in words."""
    ends = [
        f"{name} {band(values[-1:], resamples=1).iqm[0]:.3g}"
        for name, entry in drawn
        if (values := entry.curve(metric)[1]).size
    ]
    return f"At the end: {', '.join(ends)}."


def _shares(task: str, drawn: Sequence[tuple[str, Entry]], styles: dict[str, int]) -> Picture:
    """The share of seeds that fit and are greedy-optimal, over the training."""
    curves, rows, ends = [], [], []
    for name, entry in drawn:
        lines = [line for line in entry.lines if "both" in line]
        if not lines:
            continue
        lines = [lines[k] for k in _evenly(len(lines))]
        n = entry.n_seeds
        rates = [wilson(round(_share(line["both"]) * n), n) for line in lines]
        steps, middle, low, high = np.array(
            [(line["step"], r.rate, r.low, r.high) for line, r in zip(lines, rates, strict=True)]
        ).T
        curves.append(svg.Drawn(styles[name], steps, middle, low, high))
        rows += [[name, *row] for row in zip(steps, middle, low, high, strict=True)]
        ends.append(f"{name} {middle[-1]:.2f}")
    title = "share of seeds that fit and are greedy-optimal"
    return Picture(
        title=title,
        note="95 % Wilson interval",
        svg=svg.curves(
            curves,
            label=f"{title}, on {task}, against env steps. At the end: {', '.join(ends)}.",
            x_label="env steps per seed",
            share=True,
        ),
        files=[_file(SHARES, f"{task}-both", [*AT, "share", "low", "high"], rows)],
    )


def _share(successes: list[bool] | float) -> float:
    """Of a report; a record has the share itself."""
    return float(np.mean(successes))


def _thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most MOST_REPORTS reports of arrays `[reports, seeds]`."""
    kept = _evenly(len(values))
    return steps[kept], values[kept]


def _evenly(n: int) -> np.ndarray:
    """The numbers of at most MOST_REPORTS of n reports."""
    return np.unique(np.linspace(0, n - 1, min(n, MOST_REPORTS)).round().astype(int))


# Final scores, profiles, pairs


def _final(
    task: str, mine: Sequence[tuple[str, Entry]], styles: dict[str, int], score: str
) -> Picture | None:
    """The final figures with their intervals, the best first."""
    found: list[svg.Span] = []
    rates = any(entry.rates for _, entry in mine)
    for name, entry in mine:
        if rates and "both" in entry.rates:
            rate = entry.rates["both"]
            found.append(svg.Span(styles[name], name, rate.rate, rate.low, rate.high))
        elif not rates and _has(entry, score):
            mean = _aggregates(entry, [score])[0]
            assert mean is not None
            found.append(svg.Span(styles[name], name, mean.iqm, mean.low, mean.high))
    if not found:
        return None
    what = "share of seeds that fit and are greedy-optimal" if rates else _words(score)
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
        files=[_file("figures", f"{task}-final", columns, [row[1:] for row in found])],
    )


def _profile(
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
            x_label=f"threshold of the {_words(score)}",
        ),
        files=[_file("profile", f"{task}-profile", columns, data)],
    )


def _pairs(rows: Sequence[tuple[str, list[np.ndarray]]]) -> Pairs | None:
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


def _matrix(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Scores of each task as `[runs, tasks]`; tasks of fewer runs end in NaN."""
    out = np.full((max(map(len, scores)), len(scores)), np.nan)
    for k, of_task in enumerate(scores):
        out[: len(of_task), k] = of_task
    return out


# Payoff tables


def _payoffs(name: str, entry: Entry) -> list[Payoff]:
    """The true and the learned table of two agents."""
    if entry.learned is None or not tables.fits_grid(entry.learned.payoff):
        return []
    payoff, median = entry.learned
    learned = f"{name}: Q_tot and utilities that seed {median.seed} learned, the median by error"
    return [
        _payoff("payoffs", payoff, payoff, None),
        _payoff(learned, median.q_tot, payoff, median.utilities),
    ]


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


# Data


def _file(
    what: str,
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    styles: str = "",
) -> File:
    """A CSV as a data URI; what is not finite is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(x) for x in row] for row in rows)
    slug = re.sub(r"[^\w.-]+", "-", name).strip("-")
    text = out.getvalue()
    for character in '%\n #"':  # by hand: urllib's quote takes seconds for megabytes
        text = text.replace(character, f"%{ord(character):02X}")
    return File(what, f"{slug}.csv", f"data:text/csv;charset=utf-8,{text}", styles)


def _plain(x: object) -> object:
    if not isinstance(x, float):
        return x
    return f"{x:.5g}" if np.isfinite(x) else ""
