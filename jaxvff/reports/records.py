"""Records: what is reported of one sweep value. Tables, plots and files are made from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxvff.core.files import plain
from jaxvff.envs.host.grf import PUBLISHED
from jaxvff.reports.statistics import Aggregate, Rate, interval, median_seed, wilson
from jaxvff.runs import metrics_file
from jaxvff.runs.files import METRICS_FILE

if TYPE_CHECKING:  # it imports JAX, which reading records does not need
    from jaxvff.runs.execute import Result

SUCCESSES = ("fit", "optimal", "both")  # of a seed on a matrix game, see core.types.TableScore
# The options that name the task of an environment, whichever kind it is
TASK_OPTIONS = ("game", "map", "name", "file", "scenario", "race", "entry")
LONGEST_SETTING = 30  # characters of key=value in a title; longer ones are cut

Line = dict[str, Any]  # of metrics.jsonl: one report of one sweep value


@dataclass(frozen=True, kw_only=True)
class Titled:
    """What has the title of a sweep value."""

    sweep: dict[str, Any]  # the swept keys with their values
    method: str
    env: dict[str, Any]  # Config.env

    @property
    def algorithm(self) -> str:
        """The method as it was asked for: the same mixer may come with several settings."""
        return str(self.sweep.get("method", self.method))

    @property
    def task(self) -> str:
        """The game, map, scenario, file or import path of the environment."""
        return task(self.env)

    @property
    def label(self) -> str:
        """What the sweep varies besides method and environment; long values are cut."""
        settings = (f"{k}={v}" for k, v in self.sweep.items() if k not in ("method", "env"))
        return ", ".join(
            text if len(text) < LONGEST_SETTING else f"{text[: LONGEST_SETTING - 2]}…"
            for text in settings
        )

    @property
    def title(self) -> str:
        """The method, the environment, and the label."""
        name = f"{self.algorithm} on {env_name(self.env)}"
        return ", ".join(filter(None, [name, self.label]))

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is not finite is null."""
        return plain(_as_dicts(vars(self)))


@dataclass(frozen=True, kw_only=True)
class Record(Titled):
    """What is reported of every sweep value, whatever its environment."""

    steps: int  # nominal env steps per seed
    seed: list[int]
    timing: dict[str, float]
    stopped_at: np.ndarray  # [seeds] env steps; -1: the seed did not stop
    test_return: np.ndarray  # [seeds] greedy return, env units
    # [seeds] each: max_error, regret and SUCCESSES of a matrix game; else test_return, test_length
    # and test_<result>
    per_seed: dict[str, np.ndarray]


class MedianSeed(NamedTuple):
    """What one seed has learned of a matrix game: the lower median by its largest error."""

    seed: int
    q_tot: np.ndarray  # [U] * A
    utilities: np.ndarray  # [A, U]


@dataclass(frozen=True, kw_only=True)
class TableRecord(Record):
    """Of a matrix game: how many seeds know its payoffs, and what the median seed has learned."""

    rates: dict[str, Rate]  # of SUCCESSES
    payoff: np.ndarray  # [U] * A, env units, of the median seed
    median_seed: MedianSeed


@dataclass(frozen=True, kw_only=True)
class EpisodeRecord(Record):
    """Of episodes: greedy scores of every seed, and their interquartile means.

    A seed that stopped has no score. It is counted in `stopped`, and is part of no mean.
    """

    env_steps: np.ndarray  # [seeds] transitions that were collected
    stopped: int  # seeds without a score
    aggregate: dict[str, Aggregate]  # by the names of `per_seed`


class Curve(NamedTuple):
    """A sweep value over its training: its record, and a line per report."""

    record: Record
    lines: list[Line]


def of(result: Result) -> TableRecord | EpisodeRecord:
    """The record of a sweep value; its environment says of which kind (Env.score)."""
    value, metrics, seeds = result.value, result.metrics, list(result.value.seeds)
    shared: dict[str, Any] = {
        "sweep": value.label,
        "method": value.config.method["name"],
        "env": value.config.env,
        "steps": result.step,
        "seed": seeds,
        "timing": {**result.timing, "lanes_in_program": result.lanes},
        "stopped_at": metrics.get("stopped_at", np.full(len(seeds), -1)),
        "test_return": metrics["test_return"],
    }
    if value.env.score is not None:
        k = median_seed(metrics["max_error"])
        return TableRecord(
            **shared,
            rates={name: wilson(int(metrics[name].sum()), len(seeds)) for name in SUCCESSES},
            payoff=np.asarray(value.env.params_for(seeds[k])),
            median_seed=MedianSeed(
                seed=seeds[k], q_tot=metrics["q_tot"][k], utilities=metrics["utilities"][k]
            ),
            per_seed={name: metrics[name] for name in ("max_error", "regret", *SUCCESSES)},
        )
    scores = {k: v for k, v in metrics.items() if k.startswith("test_") and v.ndim == 1}
    return EpisodeRecord(
        **shared,
        env_steps=metrics.get("env_steps", np.full(len(seeds), result.step)),
        stopped=int(np.sum(~np.isfinite(metrics["test_return"]))),
        aggregate={name: interval(score[:, None]) for name, score in scores.items()},
        per_seed=scores,
    )


def from_json(told: Mapping[str, Any]) -> TableRecord | EpisodeRecord:
    """What `Titled.to_json` wrote; null becomes NaN.

    Raises:
      KeyError, TypeError: it is no such record.
    """
    kind = TableRecord if "rates" in told else EpisodeRecord
    values: dict[str, Any] = {name: told[name] for name in kind.__dataclass_fields__}
    for name in ("stopped_at", "test_return", "env_steps", "payoff"):
        if name in values:
            values[name] = _array(values[name])
    values["per_seed"] = {name: _array(x) for name, x in told["per_seed"].items()}
    if kind is TableRecord:
        values["rates"] = {name: Rate(**rate) for name, rate in told["rates"].items()}
        median = told["median_seed"]
        values["median_seed"] = MedianSeed(
            median["seed"], _array(median["q_tot"]), _array(median["utilities"])
        )
    else:
        fields = Aggregate._fields
        values["aggregate"] = {
            name: Aggregate._make(np.nan if (x := score[k]) is None else x for k in fields)
            for name, score in told["aggregate"].items()
        }
    return kind(**values)


def by_kind(records: Sequence[Record]) -> tuple[list[TableRecord], list[EpisodeRecord]]:
    """The records of matrix games, and those of episodes."""
    return (
        [record for record in records if isinstance(record, TableRecord)],
        [record for record in records if isinstance(record, EpisodeRecord)],
    )


def curve(folder: Path, record: Record) -> Curve:
    """What a sweep value reported while it was trained.

    Args:
      folder: where the metrics file of its job is.
      record: of the sweep value.
    """
    lines = metrics_file.read(folder / METRICS_FILE)
    return Curve(record, [line for line in lines if line["sweep"] == plain(record.sweep)])


def measured(line: Line, name: str) -> bool:
    """Whether at least one seed has a number of this name in a line."""
    return any(number is not None for number in line.get(name, []))


def env_steps(line: Line) -> list[int]:
    """Env steps of each seed; lines from before these were counted have the nominal ones."""
    return line.get("env_steps", [line["step"]] * len(line["seed"]))


def task(env: Mapping[str, Any]) -> str:
    """The game, map, scenario, file or import path of an environment.

    Args:
      env: `Config.env`. Without any of these it is a matrix game with payoffs of its own, or an
        environment of one task, whose kind says it. Football that is made easier than the
        published task is marked as eased.
    """
    only = "payoff" if env.get("kind") == "matrix" else env["kind"]
    name = str(next((env[key] for key in TASK_OPTIONS if env.get(key)), only))
    eased = any(env.get(key, published) != published for key, published in PUBLISHED.items())
    return f"{name} (eased)" if eased else name


def env_name(env: Mapping[str, Any]) -> str:
    """The kind of an environment and its task, as `env=` takes them: matrix/a, predator_prey."""
    kind, of_kind = env["kind"], task(env)
    return str(kind) if of_kind == kind else f"{kind}/{of_kind}"


def _array(told: Any) -> np.ndarray:
    """An array of JSON values, in which null is NaN."""
    array = np.array(told)
    return array.astype(float) if array.dtype == object else array


def _as_dicts(value: object) -> object:
    """NamedTuples as dictionaries, also within dictionaries: JSON would have them as lists."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        value = value._asdict()
    return {k: _as_dicts(v) for k, v in value.items()} if isinstance(value, dict) else value
