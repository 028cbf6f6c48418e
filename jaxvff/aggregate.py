"""Interquartile means over seeds, with stratified-bootstrap intervals.

Source: Agarwal et al. (2021), Deep Reinforcement Learning at the Edge of the Statistical
Precipice, §4.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import trim_mean

LEVELS = (2.5, 97.5)  # percentiles that bound the 95 % interval


class Aggregate(NamedTuple):
    """An interquartile mean and its 95 % interval; NaN where there is nothing to say."""

    iqm: float
    low: float
    high: float
    n: int  # scores that count
    excluded: int  # scores that are not finite


def iqm(scores: np.ndarray) -> float:
    """Mean of the middle half of all scores, whatever their shape; NaN without any."""
    return float(trim_mean(scores, 0.25, axis=None)) if np.size(scores) else np.nan


def interval(scores: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Aggregate:
    """The IQM over runs and tasks, with a percentile interval of the stratified bootstrap.

    Runs are drawn with replacement within each task. A score that is not finite is left out and
    counted. One run a task has no interval: resampling it would claim one of width zero.

    Args:
      scores: `[runs, tasks]`.
      resamples: of the bootstrap.
      seed: of the bootstrap, so that a table can be made again.
    """
    tasks = [task[np.isfinite(task)] for task in np.asarray(scores, float).T]
    kept = np.concatenate(tasks)
    low = high = np.nan
    if any(len(task) > 1 for task in tasks):
        rng = np.random.default_rng(seed)
        drawn = [rng.choice(task, (resamples, len(task))) for task in tasks if len(task)]
        means = trim_mean(np.concatenate(drawn, axis=1), 0.25, axis=1)
        low, high = (float(x) for x in np.percentile(means, LEVELS))
    return Aggregate(iqm(kept), low, high, len(kept), np.size(scores) - len(kept))
