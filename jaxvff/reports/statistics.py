"""Rates and interquartile means over seeds, each with its 95 % interval.

scipy.stats takes a second to import, so the functions that need it import it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

PERCENTILES = (2.5, 97.5)  # the bounds of a 95 % bootstrap interval


class Rate(NamedTuple):
    """A share of seeds with its 95 % Wilson interval."""

    successes: int
    n: int  # seeds
    rate: float  # successes / n
    low: float
    high: float


class Aggregate(NamedTuple):
    """An interquartile mean (IQM) with its 95 % bootstrap interval; NaN where neither exists."""

    iqm: float
    low: float
    high: float
    n: int  # finite scores
    excluded: int  # scores that are not finite


def wilson(successes: int, n: int) -> Rate:
    """A rate and its 95 % Wilson score interval.

      (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n),   p = successes / n, z = 1.96

    Unlike the normal approximation, the interval has a width even when all seeds succeed or fail.

    Args:
      successes: seeds that succeeded, in [0, n].
      n: seeds, > 0.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    from scipy.stats import binomtest

    interval = binomtest(int(successes), int(n)).proportion_ci(0.95, method="wilson")
    return Rate(int(successes), int(n), successes / n, float(interval.low), float(interval.high))


def median_seed(max_error: np.ndarray) -> int:
    """The index of the median seed by its largest error; of an even number, the lower median.

    Args:
      max_error: `[seeds]`; errors that are not finite rank last.
    """
    order = np.argsort(np.where(np.isfinite(max_error), max_error, np.inf), kind="stable")
    return int(order[(len(order) - 1) // 2])


def iqm(scores: np.ndarray) -> float:
    """The interquartile mean: the mean of the middle half of all scores.

    Args:
      scores: finite numbers in an array of any shape.

    Returns:
      The mean; NaN without a score.
    """
    return float(_middle_mean(scores, axis=None)) if np.size(scores) else np.nan


def interval(scores: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Aggregate:
    """The IQM over runs and tasks, with the percentile interval of a stratified bootstrap.

    The bootstrap draws runs with replacement within each task. Scores that are not finite are
    left out and counted. With one run per task there is no interval: all resamples would be
    equal, and an interval of width zero would claim certainty.

    Args:
      scores: `[runs, tasks]`.
      resamples: how often the bootstrap draws.
      seed: of the bootstrap; the same seed gives the same interval.

    Source: Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical
      precipice" (the package rliable).
    """
    tasks = [task[np.isfinite(task)] for task in np.asarray(scores, float).T]
    kept = np.concatenate(tasks)
    low = high = np.nan
    if any(len(task) > 1 for task in tasks):
        rng = np.random.default_rng(seed)
        drawn = [rng.choice(task, (resamples, len(task))) for task in tasks if len(task)]
        means = _middle_mean(np.concatenate(drawn, axis=1), axis=1)
        low, high = (float(x) for x in np.percentile(means, PERCENTILES))
    return Aggregate(iqm(kept), low, high, len(kept), np.size(scores) - len(kept))


def _middle_mean(scores: np.ndarray, axis: int | None) -> np.ndarray:
    """The mean along an axis (None: of all) without the lowest and the highest quarter."""
    from scipy.stats import trim_mean

    return trim_mean(scores, 0.25, axis=axis)
