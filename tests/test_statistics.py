"""Interquartile means, rates and comparisons with their intervals, with stopped seeds and without."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from jaxvff.reports.statistics import (
    _middle_mean,
    band,
    interval,
    iqm,
    performance_profile,
    probability_of_improvement,
    wilson,
)

CASES = json.loads((Path(__file__).parent / "data" / "parity" / "rliable.json").read_text())[
    "cases"
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, np.shape(c["scores"]))))
@pytest.mark.parametrize("resamples", [2000, 50_000])
def test_iqm_and_interval_agree_with_rliable(case: dict, resamples: int) -> None:
    """The bounds to three standard errors of a bootstrap percentile, which shrink as 1/√resamples.

    A 2.5 % point of a roughly normal distribution that is `width` wide between its 2.5 % and
    97.5 % points has a standard error of √(.025 · .975) / (.0584 √n) · width / 3.92; rliable's
    own numbers are of 50,000 resamples.
    """
    ours = interval(np.array(case["scores"]), resamples=resamples)
    assert ours.iqm == pytest.approx(case["iqm"], rel=1e-12)
    width = case["high"] - case["low"]
    error = 0.682 * width * np.sqrt(1 / resamples + 1 / 50_000)
    assert ours.low == pytest.approx(case["low"], abs=3 * error)
    assert ours.high == pytest.approx(case["high"], abs=3 * error)


def test_the_iqm_is_the_mean_of_the_middle_half() -> None:
    scores = np.array([9.0, -100, 1, 3, 2, 4, 1000, 0])
    assert iqm(scores) == np.mean([1, 2, 3, 4])
    assert iqm(scores.reshape(4, 2)) == np.mean([1, 2, 3, 4])


def test_a_stopped_seed_counts_in_nothing_but_the_count() -> None:
    scores = np.random.default_rng(0).random((12, 1))
    with_stopped = np.insert(scores, [0, 5, 12], [[np.nan], [np.inf], [-np.inf]], axis=0)
    clean, ragged = interval(scores), interval(with_stopped)
    assert ragged == clean._replace(excluded=3)
    assert (ragged.n, clean.excluded) == (12, 0)


def test_runs_are_drawn_within_their_task() -> None:
    """Tasks that differ and runs that do not: nothing varies unless tasks are mixed up."""
    scores = np.tile([0.0, 1.0, 2.0, 3.0], (6, 1))
    result = interval(scores)
    assert result.low == result.iqm == result.high == 1.5
    assert interval(scores.reshape(-1, 1)).low < 1.5


def test_tasks_may_lose_different_numbers_of_seeds() -> None:
    scores = np.random.default_rng(1).random((6, 3))
    scores[:2, 0], scores[:, 2] = np.nan, np.nan
    result = interval(scores)
    kept = scores[np.isfinite(scores)]
    assert result.iqm == iqm(kept)
    assert (result.n, result.excluded) == (10, 8)
    assert kept.min() <= result.low < result.iqm < result.high <= kept.max()


def test_one_seed_has_a_mean_and_no_interval() -> None:
    result = interval(np.array([[0.5]]))
    assert result.iqm == 0.5
    assert np.isnan([result.low, result.high]).all()


def test_without_a_score_there_is_no_figure() -> None:
    result = interval(np.array([[np.nan], [np.nan]]))
    assert np.isnan([result.iqm, result.low, result.high]).all()
    assert (result.n, result.excluded) == (0, 2)


def test_the_same_scores_have_the_same_interval() -> None:
    scores = np.random.default_rng(2).random((8, 2))
    assert interval(scores) == interval(scores)
    assert interval(scores, seed=1) != interval(scores)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """A percentile interval of 20 runs covers a little less than 95 %; 400 tries err by 0.011."""
    rng = np.random.default_rng(3)
    draws = [interval(rng.normal(size=(20, 1)), resamples=400) for _ in range(400)]
    assert 0.89 < np.mean([d.low < 0 < d.high for d in draws]) < 0.98


COMPARISONS = json.loads(
    (Path(__file__).parent / "data" / "parity" / "rliable_comparisons.json").read_text()
)
REPS = COMPARISONS["reps"]


@pytest.mark.parametrize("case", COMPARISONS["cases"], ids=lambda c: str(np.shape(c["x"])))
def test_the_probability_of_improvement_agrees_with_rliable(case: dict) -> None:
    x, y = (list(np.array(case[name]).T) for name in "xy")
    ours, (p, low, high) = probability_of_improvement(x, y), case["improvement"]
    assert ours.probability == pytest.approx(p, abs=1e-12)
    # As above: three standard errors of the percentiles of both bootstraps. Scores are few, so
    # that these move in steps; the smallest one is added.
    tolerance = 3 * 0.682 * (high - low) * np.sqrt(1 / 2000 + 1 / REPS)
    tolerance += 1 / (len(x) * len(x[0]) * len(y[0]))
    assert ours.low == pytest.approx(low, abs=tolerance)
    assert ours.high == pytest.approx(high, abs=tolerance)


@pytest.mark.parametrize("case", COMPARISONS["cases"], ids=lambda c: str(np.shape(c["x"])))
def test_performance_profiles_agree_with_rliable(case: dict) -> None:
    scores = np.array(case["x"])
    ours = performance_profile(list(scores.T), np.array(case["thresholds"]))
    np.testing.assert_allclose(ours.share, case["profile"], atol=1e-12)
    low, high = np.array(case["profile_low"]), np.array(case["profile_high"])
    tolerance = 3 * 0.682 * (high - low) * np.sqrt(1 / 2000 + 1 / REPS) + 1.01 / scores.size
    assert (np.abs(ours.low - low) <= tolerance).all()
    assert (np.abs(ours.high - high) <= tolerance).all()


def test_the_probability_of_improvement_counts_pairs() -> None:
    """The definition, as a loop; a seed that stopped loses to all, and ties with its like."""
    rng = np.random.default_rng(3)
    x = [rng.integers(0, 4, n).astype(float) for n in (5, 7)]
    y = [rng.integers(0, 4, n).astype(float) for n in (6, 3)]
    x[0][0], y[0][:2], y[1][0] = np.nan, np.nan, np.inf
    expected = []
    for xs, ys in zip(x, y, strict=True):
        wins = 0.0
        for a in xs:
            for b in ys:
                a_fails, b_fails = not np.isfinite(a), not np.isfinite(b)
                if a_fails or b_fails:
                    wins += 0.5 * (a_fails and b_fails) + (b_fails and not a_fails)
                else:
                    wins += float(a > b) + 0.5 * (a == b)
        expected.append(wins / (len(xs) * len(ys)))
    found, other = probability_of_improvement(x, y), probability_of_improvement(y, x)
    assert found.probability == pytest.approx(np.mean(expected))
    assert found.low <= found.probability <= found.high
    assert found.probability + other.probability == pytest.approx(1)


def test_a_profile_falls_and_a_stopped_seed_is_above_nothing() -> None:
    scores = np.array([0.1, 0.5, 0.9, np.nan])
    profile = performance_profile([scores], np.array([-1.0, 0.1, 0.5, 0.95]))
    np.testing.assert_allclose(profile.share, [0.75, 0.5, 0.25, 0])
    assert (profile.low <= profile.share).all()
    assert (profile.share <= profile.high).all()


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_a_band_is_the_interval_of_each_report(n: int) -> None:
    scores = np.random.default_rng(4).random((6, n))
    scores[2:4, 0], scores[5] = np.nan, np.nan
    found = np.stack(band(scores), axis=1)
    expected = [interval(report[:, None])[:3] for report in scores]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_middle_mean_and_the_wilson_interval_are_scipys() -> None:
    scores = np.random.default_rng(5).random((3, 4, 11))
    np.testing.assert_array_equal(
        _middle_mean(scores, axis=1), scipy.stats.trim_mean(scores, 0.25, axis=1)
    )
    for n in (1, 7, 256):
        for successes in {0, 1, n // 2, n}:
            theirs = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
            assert wilson(successes, n)[3:] == pytest.approx(theirs, abs=1e-14)
