"""Results for people: tables in the terminal, PNGs, and the JSON that both are made from."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.columns import Columns
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from jaxvff import experiment, payoff, plan
from jaxvff.aggregate import interval
from jaxvff.experiment import METRICS_FILE, Result
from jaxvff.log import plain

LETTERS = "ABCDEFGH"
GRID_ACTIONS = len(LETTERS)  # a game of two agents with more actions is shown as a list
RATES = {"fit": "fit < 0.1", "optimal": "greedy-optimal", "both": "both"}


def record(result: Result) -> dict[str, Any]:
    """Everything that is reported of one sweep value, as JSON values."""
    one, metrics = result.value.config, result.metrics
    out = {
        "sweep": result.value.label,
        "method": one.method["name"],
        "env": one.env,
        "steps": result.step,
        "seed": list(range(one.seed, one.seed + one.seeds)),
        "timing": {**result.timing, "lanes_in_program": result.lanes},
        "stopped_at": metrics.get("stopped_at", np.full(one.seeds, -1)),  # -1: it did not
        "test_return": metrics["test_return"],
    }
    if "utilities" in metrics:  # of a matrix game; q_tot alone is also a mean of the learner
        median = payoff.median_seed(metrics["max_error"])
        out |= {
            "rates": {k: payoff.wilson(int(metrics[k].sum()), one.seeds)._asdict() for k in RATES},
            "payoff": np.asarray(result.value.env.params_for(one.seed + median)),
            "median_seed": {
                "seed": one.seed + median,
                "q_tot": metrics["q_tot"][median],
                "utilities": metrics["utilities"][median],
            },
            "per_seed": {k: metrics[k] for k in ("max_error", "regret", *RATES)},
        }
    else:
        out |= scores(result)
    return plain(out)


def scores(result: Result) -> dict[str, Any]:
    """Greedy scores of every seed, and their interquartile means with 95 % intervals.

    A seed that stopped has no score; it is counted in `stopped`, and in no mean.
    """
    seeds, metrics = result.value.config.seeds, result.metrics
    tested = {k: v for k, v in metrics.items() if k.startswith("test_") and v.ndim == 1}
    return {
        "env_steps": metrics.get("env_steps", np.full(seeds, result.step)),
        "stopped": int(np.sum(~np.isfinite(metrics["test_return"]))),
        "aggregate": {k: interval(v[:, None])._asdict() for k, v in tested.items()},
        "per_seed": tested,
    }


def machine() -> dict[str, Any]:
    """Where the figures come from: versions, devices, and the memory peak of this process."""
    return {
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "device": jax.devices()[0].device_kind,
        "n_devices": jax.device_count(),
        "peak_rss_mb": _peak_rss_mb(),
    }


def _peak_rss_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such thing
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform == "linux" else 1024**2))


def print_results(console: Console, records: list[dict[str, Any]]) -> None:
    """The learned tables (for up to three sweep values) and the rates, or the scores, of all."""
    games = [r for r in records if "rates" in r]
    for r in games[:3]:
        console.print(learned_table(r))
    if games:
        console.print(rates_table(games))
    if scored := [r for r in records if "aggregate" in r]:
        console.print(scores_table(scored))


def task(env: dict[str, Any]) -> str:
    """The game, map, scenario, file or import path of an environment's options."""
    keys = ("game", "map", "name", "file", "scenario", "race", "entry")
    names = (env[key] for key in keys if env.get(key))
    return str(next(names, "payoff"))


def label(sweep: dict[str, Any]) -> str:
    """What a sweep varies but for method and environment, long values cut."""
    parts = (f"{k}={v}" for k, v in sweep.items() if k not in ("method", "env"))
    return ", ".join(part if len(part) < 30 else f"{part[:28]}…" for part in parts)


def algorithm(r: dict[str, Any]) -> str:
    """The method as it was asked for: the same mixer may come with several settings."""
    return str(r["sweep"].get("method", r["method"]))


def title(r: dict[str, Any]) -> str:
    """The method, the game, and the sweep's label."""
    name = f"{algorithm(r)} on {r['env']['kind']}/{task(r['env'])}"
    return ", ".join(filter(None, [name, label(r["sweep"])]))


def scores_table(records: list[dict[str, Any]]) -> Table:
    """Greedy win rates and returns over seeds, a row per sweep value."""
    shown = {
        k: name
        for k, name in (("test_win_rate", "win rate"), ("test_return", "return"))
        if any(r["aggregate"].get(k, {}).get("n") for r in records)
    }
    table = Table(title="Greedy episodes: interquartile mean over seeds, 95 % bootstrap interval")
    table.add_column("run")
    for name in ("env steps", *shown.values(), "seeds", "stopped"):
        table.add_column(name, justify="right")
    for r in records:
        figures = (score_text(r["aggregate"].get(k)) for k in shown)
        steps = f"{int(np.median(r['env_steps'])):,}"
        table.add_row(title(r), steps, *figures, str(len(r["seed"])), str(r["stopped"]))
    return table


def score_text(score: dict[str, Any] | None) -> str:
    """0.44 [0.28,0.61], the interval in one word; a dash for what was not measured."""
    if score is None or score["iqm"] is None:
        return "-"
    if score["low"] is None:
        return f"{score['iqm']:.2f}"
    return f"{score['iqm']:.2f} [{score['low']:.2f},{score['high']:.2f}]"


def rates_table(records: list[dict[str, Any]]) -> Table:
    """The shares of seeds with their intervals, a row per sweep value."""
    table = Table(title="Share of seeds, with 95 % Wilson interval")
    table.add_column("run")
    for name in RATES.values():
        table.add_column(name, justify="right")
    table.add_column("seeds", justify="right")
    for r in records:
        table.add_row(title(r), *(rate_text(r["rates"][k]) for k in RATES), str(len(r["seed"])))
    return table


def rate_text(rate: dict[str, Any]) -> str:
    """0.44 (.28-.61), the interval in brackets."""
    low, high = (f"{rate[k]:.2f}".removeprefix("0") for k in ("low", "high"))
    return f"{rate['rate']:.2f} ({low}-{high})"


def learned_table(r: dict[str, Any]) -> Group:
    """The true table beside the learned one of the median seed, as in the paper's Table 1."""
    true, median = np.array(r["payoff"], float), r["median_seed"]
    learned = np.array(median["q_tot"], float)  # null becomes NaN
    utilities = np.array(median["utilities"], float)
    head = Text(f"{title(r)}: seed {median['seed']}, the median by largest error", style="bold")
    if true.ndim == 2 and true.shape[0] <= GRID_ACTIONS:
        left = _grid("true payoff", true, None)
        right = _grid("learned Q_tot (utilities on the margins)", learned, utilities)
        return Group(head, Columns([left, right], padding=(0, 4)))
    return Group(head, _joint_actions(true, learned, utilities))


def _grid(name: str, values: np.ndarray, utilities: np.ndarray | None) -> Table:
    def margin(agent: int, action: int) -> str:
        value = "" if utilities is None else f"({number(utilities[agent, action])})"
        return LETTERS[action] + value

    best = greedy(utilities) if utilities is not None else greedy_cell(values)
    corner = r"u1 \ u2" if utilities is None else r"Q1 \ Q2"
    table = Table(title=name, title_justify="left")
    table.add_column(corner)
    for j in range(values.shape[1]):
        table.add_column(margin(1, j), justify="right")
    for i, row in enumerate(values):
        cells = [number(x) for x in row]
        cells = [f"[bold green]{c}[/]" if (i, j) == best else c for j, c in enumerate(cells)]
        table.add_row(margin(0, i), *cells)
    table.caption = "green: " + ("largest payoff" if utilities is None else "greedy joint action")
    return table


def number(x: float) -> str:
    """One decimal, and no minus sign before a zero."""
    return f"{round(float(x), 1) + 0.0:.1f}"


def _joint_actions(true: np.ndarray, learned: np.ndarray, utilities: np.ndarray) -> Table:
    order = np.argsort(-true, axis=None)[:8]
    cells = [np.unravel_index(i, true.shape) for i in order]
    chosen = greedy(utilities)
    table = Table(title="largest payoffs, then the greedy joint action")
    for name in ("joint action", "true", "learned"):
        table.add_column(name, justify="right")
    for cell in [*cells, chosen]:
        name = " ".join(map(str, map(int, cell)))
        table.add_row(name, f"{true[cell]:.2f}", f"{learned[cell]:.2f}")
    return table


def greedy(utilities: np.ndarray) -> tuple[int, ...]:
    """The joint action of greedy agents."""
    return tuple(int(i) for i in np.argmax(utilities, axis=-1))


def greedy_cell(values: np.ndarray) -> tuple[int, ...]:
    """The joint action with the largest value."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(values), values.shape))


def stops(
    group: plan.Group, metrics: dict[str, np.ndarray], told: set[tuple[str, int]]
) -> Iterator[str]:
    """A line for each seed that stopped and was not told of before.

    Args:
      group: that is trained.
      metrics: of a report, with stopped_at `[K]`.
      told: sweep values and seeds; those of the lines are added.
    """
    rest = "the others go on" if np.any(metrics["stopped_at"] < 0) else "none goes on"
    for value, mine in experiment.by_value(group, metrics):
        sweep = ", ".join(f"{k}={v}" for k, v in value.label.items())
        for seed, at in enumerate(mine["stopped_at"], value.config.seed):
            if at < 0 or (sweep, seed) in told:
                continue
            told.add((sweep, seed))
            yield (
                f"seed {seed}{sweep and ' of ' + sweep} stopped at env step {at:,}: a reward, an "
                f"observation or the loss was not finite; {rest}"
            )


def curve(folder: Path, sweep: dict[str, Any]) -> list[dict[str, Any]]:
    """The lines of a sweep value in a folder's metrics file, one per report."""
    lines = (json.loads(line) for line in (folder / METRICS_FILE).read_text().splitlines())
    return [line for line in lines if line["sweep"] == plain(sweep)]
