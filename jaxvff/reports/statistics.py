"""Rates, interquartile means and comparisons over seeds, each with its 95 % interval.

NumPy alone: scipy.stats takes a second to import.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

PERCENTILES = (2.5, 97.5)  # the bounds of a 95 % bootstrap interval
Z = 1.959963984540054  # the 97.5 % point of the normal distribution
MOST_DRAWN = 2**20  # scores that are drawn at a time


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


class Band(NamedTuple):
    """IQMs of several reports with their 95 % bootstrap intervals; NaN where there is none."""

    iqm: np.ndarray  # [reports]
    low: np.ndarray  # [reports]
    high: np.ndarray  # [reports]


class Profile(NamedTuple):
    """A performance profile: the share of runs above each threshold, with its 95 % interval."""

    share: np.ndarray  # [K]
    low: np.ndarray  # [K]
    high: np.ndarray  # [K]


class Improvement(NamedTuple):
    """The probability that a run of X scores higher than one of Y, with its 95 % interval."""

    probability: float
    low: float
    high: float


def wilson(successes: int, n: int) -> Rate:
    """A rate and its 95 % Wilson score interval.

      (p + z²/2n ± z √(p(1 - p)/n + z²/4n²)) / (1 + z²/n),   p = successes / n, z = 1.96 (Z)

    Unlike the normal approximation, the interval has a width even when all seeds succeed or fail.

    Args:
      successes: seeds that succeeded, in [0, n].
      n: seeds, > 0.

    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    p = successes / n
    middle, width = p + Z**2 / (2 * n), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    low, high = ((middle + side) / (1 + Z**2 / n) for side in (-width, width))
    # Rounding must not exclude what none or all of the seeds did.
    bounds = (0.0 if successes == 0 else low, 1.0 if successes == n else high)
    return Rate(int(successes), int(n), p, *bounds)


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


def band(scores: np.ndarray, *, resamples: int = 2000, seed: int = 0) -> Band:
    """The IQM over seeds at each report, with the interval that `interval` gives for one task.

    All reports are resampled by the same draws, so that a curve and its bounds go together.

    Args:
      scores: `[reports, seeds]`; what is not finite is left out.
      resamples: how often the bootstrap draws.
      seed: of the bootstrap.
    """
    values = np.asarray(scores, float)
    out = np.full((3, len(values)), np.nan)
    there = np.isfinite(values)
    # Reports that lack the same seeds are drawn together.
    for kept in np.unique(there, axis=0):
        at, n = (there == kept).all(axis=1), int(kept.sum())
        if n:
            out[0, at] = _middle_mean(values[at][:, kept], axis=1)
        if n > 1:
            counts = _counts(n, resamples, seed)
            reports = np.flatnonzero(at)  # not all at once, which may take gigabytes
            for some in np.array_split(reports, -(-len(reports) * counts.size // MOST_DRAWN)):
                means = _resampled(values[some][:, kept], counts)
                out[1:, some] = np.percentile(means, PERCENTILES, axis=1)
    return Band(*out)


def performance_profile(
    tasks: Sequence[np.ndarray],
    thresholds: np.ndarray,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Profile:
    """The share of runs that score above each threshold, a mean over tasks.

      F(τ) = 1/M Σ_m 1/N_m Σ_n 1[x_mn > τ]

    A score that is not finite, of a seed that stopped, is above no threshold: it is a failure.

    Args:
      tasks: the scores of each of M tasks, `[runs of the task]`, at least one run each.
      thresholds: `[K]`.
      resamples: how often the stratified bootstrap draws.
      seed: of the bootstrap.

    Source: Agarwal et al. (2021), §4.2, the run-score distribution.
    """
    share, drawn = np.zeros(len(thresholds)), np.zeros((resamples, len(thresholds)))
    for k, scores in enumerate(map(_failures_last, tasks)):
        above = scores[:, None] > np.asarray(thresholds, float)  # [runs, K]
        share += above.mean(axis=0) / len(tasks)
        drawn += _draws(len(scores), resamples, (seed, k)) @ above.astype(np.float32) / len(tasks)
    return Profile(share, *np.percentile(drawn, PERCENTILES, axis=0))


def probability_of_improvement(
    x: Sequence[np.ndarray], y: Sequence[np.ndarray], *, resamples: int = 2000, seed: int = 0
) -> Improvement:
    """P(X > Y): how often a run of X scores higher than a run of Y, a mean over tasks.

      1/M Σ_m 1/(N_m K_m) Σ_n Σ_k S(x_mn, y_mk),   S = 1 if x > y, ½ if x = y, else 0

    A score that is not finite is lower than every other one, and equal to its like.

    Args:
      x: the scores of each of M tasks, `[runs of the task]`, at least one run each.
      y: the same of the other method, in the same order of tasks.
      resamples: how often the stratified bootstrap draws, the runs of X and of Y independently.
      seed: of the bootstrap.

    Source: Agarwal et al. (2021), §4.3, eq. 2 (Mann and Whitney's U statistic over N K).
    """
    probability, drawn = 0.0, np.zeros(resamples)
    for k, (xs, ys) in enumerate(zip(map(_failures_last, x), map(_failures_last, y), strict=True)):
        higher = (xs[:, None] > ys) + 0.5 * (xs[:, None] == ys)  # [runs of X, runs of Y]
        probability += float(higher.mean()) / len(x)
        of_x, of_y = (_draws(len(s), resamples, (seed, k, i)) for i, s in enumerate((xs, ys)))
        drawn += ((of_x @ higher.astype(np.float32)) * of_y).sum(axis=1) / len(x)
    low, high = np.percentile(drawn, PERCENTILES)
    return Improvement(probability, float(low), float(high))


def _failures_last(scores: np.ndarray) -> np.ndarray:
    """Scores `[runs]`; what is not finite becomes the lowest of all."""
    values = np.asarray(scores, float)
    return np.where(np.isfinite(values), values, -np.inf)


@functools.lru_cache(maxsize=32)  # methods that are compared are resampled alike
def _indices(n: int, resamples: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """Which of n runs a bootstrap draws, `[resamples, n]`."""
    return np.random.default_rng(seed).integers(0, n, (resamples, n))


@functools.lru_cache(maxsize=32)
def _draws(n: int, resamples: int, seed: tuple[int, ...]) -> np.ndarray:
    """How large a share of each resample each of n runs is, `[resamples, n]`."""
    return _counts(n, resamples, seed) / np.float32(n)


@functools.lru_cache(maxsize=32)
def _counts(n: int, resamples: int, seed: int | tuple[int, ...]) -> np.ndarray:
    """How often each resample has each of n runs, `[resamples, n]`."""
    cells = _indices(n, resamples, seed) + n * np.arange(resamples)[:, None]
    counts = np.bincount(cells.ravel(), minlength=resamples * n).reshape(resamples, n)
    return counts.astype(np.float32)


def _resampled(scores: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """`_middle_mean` of each resample, four times as fast as to draw the scores and sort them.

    Of the scores in order, x_1 <= ... <= x_n, a resample has c_j that are x_j or lower. So
    k_j = clip(c_j, first, last) - first of its middle ones are x_j or lower, and their sum is
    Σ_j (k_j - k_{j-1}) x_j = Σ_j k_j (x_j - x_{j+1}) with x_{n+1} = 0.

    Args:
      scores: `[reports, n]`, finite.
      counts: of `_counts`.

    Returns:
      `[reports, resamples]`.
    """
    n = scores.shape[1]
    first, last = n // 4, n - n // 4
    order = np.argsort(scores, axis=1)
    middle = np.cumsum(counts[:, order], axis=2)  # [resamples, reports, n]
    np.clip(middle, first, last, out=middle)
    middle -= first
    steps = -np.diff(np.take_along_axis(scores, order, axis=1), axis=1, append=0.0)
    return np.einsum("drn,rn->rd", middle, steps) / (last - first)


def _middle_mean(scores: np.ndarray, axis: int | None) -> np.ndarray:
    """The mean along an axis (None: of all) without the lowest and the highest quarter.

    A quarter is rounded down to whole scores, as in scipy.stats.trim_mean(scores, 0.25).
    """
    scores = scores.ravel() if axis is None else np.moveaxis(scores, axis, -1)
    n = scores.shape[-1]
    first, last = n // 4, n - n // 4
    return np.partition(scores, (first, last - 1), axis=-1)[..., first:last].mean(axis=-1)
