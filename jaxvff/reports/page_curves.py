"""The learning curves of a report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxvff.reports import svg
from jaxvff.reports.entry import Entry, evenly
from jaxvff.reports.page_data import Picture, file, texts
from jaxvff.reports.page_scores import WIN_RATE, words
from jaxvff.reports.plots import CURVES, LOGARITHMIC, SHARES
from jaxvff.reports.records import SUCCESSES
from jaxvff.reports.statistics import band, wilson

MOST_REPORTS = 40  # of a curve that are drawn, evenly spread; the last one is among them
RESAMPLES = 200  # of the bands of curves; final scores have statistics.interval's
AT = ("method", "env_steps")  # the first columns of the data of curves


def curves(
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
    curves, means, seeds, ends = [], [], [], []
    most = max((len(entry.seeds) for _, entry in drawn), default=0)
    for name, entry in drawn:
        steps, values = entry.curve(metric, MOST_REPORTS)
        if not values.size:
            continue
        at = np.nanmedian(np.where(np.isnan(values), np.nan, steps), axis=1)
        curves.append(svg.Drawn(styles[name], at, *band(values, resamples=RESAMPLES)))
        means += [[name, *row] for row in zip(at, *curves[-1][2:], strict=True)]
        padding = [""] * (most - len(entry.seeds))
        seeds += [[name, step, *texts(row), *padding] for step, row in zip(at, values, strict=True)]
        ends.append(f"{name} {curves[-1].middle[-1]:.3g}")
    if not curves:
        return None
    title = CURVES.get(metric, words(metric))
    return Picture(
        title=title,
        note="IQM over seeds, 95 % bootstrap interval",
        svg=svg.curves(
            curves,
            label=f"{title} on {task} against env steps. At the end: {', '.join(ends)}.",
            x_label="env steps per seed",
            share=metric == WIN_RATE,
            log=metric in LOGARITHMIC and all((c.middle > 0).all() for c in curves),
        ),
        files=[
            file("curves", f"{task}-{metric}", [*AT, "iqm", "low", "high"], means),
            file(
                "each seed",
                f"{task}-{metric}-seeds",
                [*AT, *(f"seed {k + 1}" for k in range(most))],
                seeds,
                styles=" ".join(str(curve.style) for curve in curves),
            ),
        ],
    )


def _shares(task: str, drawn: Sequence[tuple[str, Entry]], styles: dict[str, int]) -> Picture:
    """The share of seeds that fit and are greedy-optimal, over the training."""
    curves, rows, ends = [], [], []
    for name, entry in drawn:
        lines = [line for line in entry.lines if "both" in line]
        if not lines:
            continue
        lines = [lines[k] for k in evenly(len(lines), MOST_REPORTS)]
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
        files=[file(SHARES, f"{task}-both", [*AT, "share", "low", "high"], rows)],
    )


def _share(successes: list[bool] | float) -> float:
    """Of a report; a record has the share itself."""
    return float(np.mean(successes))
