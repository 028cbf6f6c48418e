"""Interquartile means and their intervals, with and without stopped seeds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jaxvff.reports.statistics import interval, iqm

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
