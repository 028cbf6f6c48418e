"""A sweep value of a run, or of a record, as a report has it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from jaxvff.reports.records import Line, MedianSeed, Titled, env_steps, measured
from jaxvff.reports.statistics import Rate

COMPLETE, RUNNING, ENDED, RECORDED = "complete", "running", "ended early", "a record"


class Learned(NamedTuple):
    """What the median seed learned of a matrix game."""

    payoff: np.ndarray  # [U] * A, env units
    median_seed: MedianSeed


class Training(NamedTuple):
    """How one run made an entry, or some of its seeds."""

    run: str  # the folder or file that it is from
    command: str  # of the run; empty where nobody told
    seeds: int
    steps: int  # nominal env steps a seed that were done
    timing: dict[str, float]  # of the whole job: compile_s, wall_s, lanes_in_program
    machine: dict[str, Any]
    learned: Learned | None

    @property
    def seed_steps_per_s(self) -> float:
        """Env steps per second, summed over the lanes of its job, compilation left out."""
        seconds = self.timing.get("wall_s", 0.0) - self.timing.get("compile_s", 0.0)
        lanes = self.timing.get("lanes_in_program", self.seeds)
        return lanes * self.steps / seconds if seconds > 0 else float("nan")


@dataclass(frozen=True, kw_only=True)
class Entry(Titled):
    """A sweep value of one run, or of several that differ in their seeds alone."""

    trainings: tuple[Training, ...]  # one of each run
    rules: dict[str, Any]  # of its task (rules.py): entries with the same ones are of one task
    settings: dict[str, Any]  # of the composed configuration, by dotted keys; of a record: its own
    seeds: list[int]
    n_seeds: int  # len(seeds), but for records that only count them
    steps: int  # nominal env steps a seed that were done
    total_steps: int  # that were asked for
    state: str
    lines: list[Line]  # a report each, with lists over seeds
    final: dict[str, np.ndarray]  # test_* and what else a record has of its seeds, [seeds]
    rates: dict[str, Rate] = field(default_factory=dict)  # of SUCCESSES
    stopped_at: np.ndarray  # [seeds] env steps; -1: the seed did not stop

    @property
    def run(self) -> str:
        """The folder or file that it is from; of several: all, with commas."""
        return ", ".join(training.run for training in self.trainings)

    @property
    def stopped(self) -> dict[int, int]:
        """The seeds that stopped, with the env steps at which they did."""
        pairs = zip(self.seeds, self.stopped_at.tolist(), strict=True)
        return {seed: int(at) for seed, at in pairs if at >= 0}

    def curve(self, name: str, most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Env steps and values of a metric, `[reports, seeds]` each, where any seed has a number.

        A seed without a number has NaN.

        Args:
          name: of the metric.
          most: reports, evenly spread, the last one among them; None: all.
        """
        lines = [line for line in self.lines if measured(line, name)]
        lines = [lines[k] for k in evenly(len(lines), most)]
        values = [np.array(line[name], float) for line in lines]
        steps = [np.array(env_steps(line), float) for line in lines]
        shape = (len(lines), len(self.seeds))
        return np.reshape(steps, shape), np.reshape(values, shape)


def evenly(n: int, most: int | None) -> list[int]:
    """The numbers of at most so many of n reports, evenly spread; the last one is among them."""
    kept = np.linspace(0, n - 1, n if most is None else min(n, most)).round().astype(int)
    return list(dict.fromkeys(kept.tolist()))
