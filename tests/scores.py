"""Made-up results, as runs.execute leaves them: a Result, and the lines of a metrics file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff.runs.execute import Result
from jaxvff.runs.files import METRICS_FILE
from jaxvff.runs.metrics_file import JsonLines
from jaxvff.runs.plan import SweepValue
from jaxvff.settings import build, config
from tests import toy

SEEDS, REPORTS, INTERVAL = 4, 3, 100
TIMING = {"wall_s": 2.0, "compile_s": 1.0}


def score(report: int, seed: int) -> float:
    """The win rate of a seed in a report; all of them differ."""
    return round((report * SEEDS + seed + 1) / 20, 4)


def result(
    folder: Path,
    method: str = "qmix",
    sweep: dict[str, Any] | None = None,
    env: dict[str, Any] | None = None,
    *,
    winners: bool = True,
    stopped: tuple[int, ...] = (),
    counted: bool = True,
) -> Result:
    """A run that is judged by its greedy episodes; its metrics.jsonl is written into `folder`.

    Args:
      folder: of the job's files.
      method: its name.
      sweep: the label.
      env: what Config.env says; SMAX's 3m by default.
      winners: whether there are win rates.
      stopped: seeds (by index) that have no number in the last report.
      counted: whether lines have env_steps.
    """
    reports = []
    for report in range(REPORTS):
        wins = np.array([score(report, seed) for seed in range(SEEDS)])
        metrics = {"test_return": 20 * wins, "td_error_abs": 1 / (1 + wins), "q_tot": 5 * wins}
        metrics |= {"test_win_rate": wins} if winners else {}
        for values in metrics.values():
            values[list(stopped) if report == REPORTS - 1 else []] = np.nan
        step = (report + 1) * INTERVAL
        metrics |= {"env_steps": step - np.arange(SEEDS)} if counted else {}
        reports.append(metrics)
    asked = config.load([f"method={method}", f"seeds={SEEDS}"])
    asked = dataclasses.replace(asked, env=env or {"kind": "smax", "map": "3m"})
    # Nobody plays it: of an environment, a record asks only whether it has a score of its own.
    return _written(folder, SweepValue(sweep or {}, asked, toy.make()), reports)


def table_result(
    folder: Path,
    method: str = "qmix",
    sweep: dict[str, Any] | None = None,
    game: str = "a",
    *,
    seeds: int = SEEDS,
) -> Result:
    """A run on a matrix game of the paper; its metrics.jsonl is written into `folder`.

    From report to report more seeds know the payoffs, to an error of 0.05; seed 0 never does.
    """
    asked = config.load([f"method={method}", f"env=matrix/{game}", f"seeds={seeds}"])
    env = build.environment(asked.env)
    payoff, reports = np.asarray(env.params), []
    for report in range(REPORTS):
        knows = np.arange(seeds) > seeds * (REPORTS - 1 - report) / REPORTS
        error = np.where(knows, 0.05, 1.0 + np.arange(seeds))
        utilities = np.where(np.arange(3) == 0, 1.5, -0.25)
        reports.append(
            {
                "max_error": error,
                "regret": np.where(knows, 0.0, 12.0),
                "fit": knows,
                "optimal": np.arange(seeds) > 0,
                "both": knows & (np.arange(seeds) > 0),
                "test_return": np.where(knows, 12.0, 0.0),
                "td_error_abs": error / 2,
                "q_tot": payoff + error[:, None, None],
                "utilities": np.tile(utilities, (seeds, 2, 1)),
                "env_steps": np.full(seeds, (report + 1) * INTERVAL),
            }
        )
    return _written(folder, SweepValue(sweep or {}, asked, env), reports)


def _written(folder: Path, value: SweepValue, reports: list[dict[str, np.ndarray]]) -> Result:
    folder.mkdir(parents=True, exist_ok=True)
    lines = JsonLines(folder / METRICS_FILE)
    for report, metrics in enumerate(reports, 1):
        of_seeds = {k: v for k, v in metrics.items() if v.ndim == 1}
        lines.write(report * INTERVAL, value.label, list(value.seeds), of_seeds | {"wall_s": 1.0})
    lines.close()
    step = REPORTS * INTERVAL
    return Result(value, step, reports[-1], folder, dict(TIMING), lanes=len(value.seeds))
