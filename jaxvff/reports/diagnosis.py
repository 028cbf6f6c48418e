"""What `diagnose` found: figures of every seed, a table, and a file with all of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from jaxvff.core.files import write_json
from jaxvff.core.types import Array
from jaxvff.reports.machine import machine
from jaxvff.reports.records import Titled
from jaxvff.reports.statistics import Aggregate, Rate, interval, wilson
from jaxvff.runs.learned import Trained
from jaxvff.runs.plan import Job, SweepValue
from jaxvff.settings.diagnosis import DiagnosisOptions
from jaxvff.training.diagnosis import Found, States, is_enumerated

FILE = "diagnosis.json"
SHARES = ("is_best", "settled", "wrong_pairs", "rising")  # of the figures of a seed, in [0, 1]
FIGURES = (*SHARES, "regret", "relative_regret")  # those that are averaged over seeds
PERCENTILES = (50, 90, 99, 100)  # of the regret over states
# Of the picture: the share of states whose regret is at least so much of the range
LOSSES = np.geomspace(1e-4, 1.0, 33)
NEARLY_ALL = 0.99  # of a seed's states: there the greedy joint action counts as the best one
MOST_BINS = 20  # parts of an episode
LEAST_STATES = 20  # of a part of an episode in one seed; fewer are too few for a share

Figures = dict[str, np.ndarray]  # [...] of one seed, [seeds, ...] of several


@dataclass(frozen=True, kw_only=True)
class Diagnosis(Titled):
    """What was found of one sweep value, under one policy and one joint value."""

    steps: int  # nominal env steps per seed
    seed: list[int]
    states: str  # of greedy or random play
    value: str  # which joint value of the method
    n_joint_actions: int
    enumerated: bool  # False: the largest value was searched, and regrets are lower bounds
    bins: np.ndarray  # [bins + 1] env steps since the start of an episode, see `of_seed`
    per_seed: Figures
    aggregate: dict[str, Aggregate]  # of FIGURES: IQM over seeds, 95 % bootstrap interval
    # Seeds in which the greedy joint action is best in NEARLY_ALL states; None: all have stopped
    best_in_seeds: Rate | None


def time_bins(episode_limit: int) -> np.ndarray:
    """The parts of an episode `[bins + 1]`, of equal length: from an env step to before the next.

    Args:
      episode_limit: env steps.
    """
    return np.unique(np.linspace(0, episode_limit, MOST_BINS + 1).astype(int))


def of_seed(states: States, bins: np.ndarray) -> Figures:
    """The figures of one seed.

    Args:
      states: NumPy arrays `[games, T, ...]`.
      bins: from `time_bins`.

    Returns:
      states `[]`, how many were looked at; is_best, settled: shares of them; settled_if_not_best:
      the share of those where the greedy joint action is not best, yet no agent alone can improve
      on it; regret, env units; relative_regret, to the range of the joint value; regret_percentiles
      `[PERCENTILES]`; exceeds `[LOSSES]`; wrong_pairs, of all ordered pairs of actions; rising, of
      all agents with a choice; own_best, wrong_pairs and rising of each agent `[A]`; is_best and
      relative_regret by time `[bins]`. NaN where there is nothing to take a share of.
    """
    counts, order = states.counts, states.order
    best, regret = order.is_best[counts], order.regret[counts]
    with np.errstate(divide="ignore", invalid="ignore"):  # a range of 0 has a regret of 0
        relative = np.where(regret == 0, 0.0, regret / order.spread[counts])
    deciding = counts[..., None] & states.has_choice
    wrong, pairs = (x[counts].sum(0) for x in (order.wrong, order.pairs))
    by_agent = np.array([deciding[..., i].sum() for i in range(deciding.shape[-1])])
    own_best, rising = ((x & deciding).sum((0, 1)) for x in (order.own_best, states.rising))
    part = np.digitize(states.time[counts], bins[1:-1])
    in_part = [part == i if np.sum(part == i) >= LEAST_STATES else [] for i in range(len(bins) - 1)]
    return {
        "states": np.array(best.size),
        "is_best": _mean(best),
        "settled": _mean(order.settled[counts]),
        "settled_if_not_best": _mean(order.settled[counts][~best]),
        "regret": _mean(regret),
        "relative_regret": _mean(relative),
        "regret_percentiles": np.percentile(regret, PERCENTILES) if best.size else _nan(4),
        "exceeds": np.array([_mean(relative >= x) for x in LOSSES]),
        "wrong_pairs": _share(wrong.sum(), pairs.sum()),
        "rising": _share(rising.sum(), by_agent.sum()),
        "own_best_of_agent": _share(own_best, by_agent),
        "wrong_pairs_of_agent": _share(wrong, pairs),
        "rising_of_agent": _share(rising, by_agent),
        "is_best_by_time": np.array([_mean(best[at]) for at in in_part]),
        "relative_regret_by_time": np.array([_mean(relative[at]) for at in in_part]),
    }


def _mean(x: Array | np.ndarray) -> np.ndarray:
    return np.array(np.mean(x) if np.size(x) else np.nan)


def _share(part: Array | np.ndarray, whole: Array | np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _nan(n: int) -> np.ndarray:
    return np.full(n, np.nan)


def diagnoses(
    job: Job, trained: Trained, asked: DiagnosisOptions, found: Iterable[Found]
) -> Iterator[Diagnosis]:
    """A Diagnosis for each sweep value, policy and joint value.

    Args:
      job: of the lanes.
      trained: its newest checkpoint. A lane that stopped has no figures, and is part of no mean.
      asked: what was asked.
      found: of all lanes; each is looked at when it comes, and not kept.
    """
    spec, stopped = job.env.spec, np.asarray(trained.carry.state.stopped_at) >= 0
    bins = time_bins(spec.episode_limit)
    figures = {(each.lane, each.policy, each.value): of_seed(each.states, bins) for each in found}
    kinds = dict.fromkeys((policy, value) for _, policy, value in figures)
    for i, value in enumerate(job.values):
        for policy, joint in kinds:
            n = len(value.seeds)
            seeds = [figures[lane, policy, joint] for lane in range(i * n, (i + 1) * n)]
            gone = stopped[i * n : (i + 1) * n]
            per_seed = _stacked(seeds, gone)
            if not joint.of_acting:
                per_seed = {k: v for k, v in per_seed.items() if not k.startswith("rising")}
            yield Diagnosis(
                **_titled(value),
                steps=trained.step(job),
                seed=list(value.seeds),
                states=policy,
                value=joint.name,
                n_joint_actions=spec.n_actions**spec.n_agents,
                enumerated=is_enumerated(spec, asked),
                bins=bins,
                per_seed=per_seed,
                aggregate={k: interval(per_seed[k][:, None]) for k in FIGURES if k in per_seed},
                best_in_seeds=_best_in_seeds(per_seed["is_best"]),
            )


def _best_in_seeds(is_best: np.ndarray) -> Rate | None:
    known = is_best[np.isfinite(is_best)]
    return wilson(int(np.sum(known >= NEARLY_ALL)), len(known)) if len(known) else None


def _titled(value: SweepValue) -> dict[str, Any]:
    method = value.config.method["name"]
    return {"sweep": value.label, "method": method, "env": value.config.env}


def _stacked(seeds: Sequence[Figures], stopped: np.ndarray) -> Figures:
    """The figures of several seeds `[seeds, ...]`; NaN of those that stopped."""
    stacked = {name: np.stack([each[name] for each in seeds]).astype(float) for name in seeds[0]}
    for values in stacked.values():
        values[stopped] = np.nan
    return stacked


def write(folder: Path, asked: DiagnosisOptions, found: Sequence[Diagnosis]) -> None:
    """Write diagnosis.json.

    Args:
      folder: of the run.
      asked: what was asked.
      found: of all sweep values.
    """
    record = {
        "machine": machine(),
        "asked": asdict(asked),
        "percentiles": PERCENTILES,
        "losses": LOSSES,
        "results": [each.to_json() for each in found],
    }
    write_json(folder / FILE, record)


WORDS = ("play", "Q")  # headings of columns of words; the others are of numbers
HEADINGS = (
    *WORDS, "states", "best", "95 %", "seeds", "regret", "share", "wrong", "worst", "Nash", "∂>0"
)  # fmt: skip


def table(found: Sequence[Diagnosis]) -> Group:
    """A table for each sweep value: a row for each policy and joint value."""
    parts: list[Text | Table] = [
        Text("Is the greedy joint action the best one? IQM over seeds, 95 % interval", "bold")
    ]
    for title in dict.fromkeys(each.title for each in found):
        own = [each for each in found if each.title == title]
        n_joint = f"{own[0].n_joint_actions:,}"
        how = f"all {n_joint}" if own[0].enumerated else f"ascents among {n_joint}"
        parts.append(Text(f"\n{title}: {how} joint actions of each state", "bold"))
        view = Table(box=box.SIMPLE, padding=0)  # fits 80 columns
        for heading in HEADINGS:
            justify: Literal["left", "right"] = "left" if heading in WORDS else "right"
            view.add_column(heading, justify=justify, overflow="fold", no_wrap=heading in WORDS)
        for each in own:
            view.add_row(*_cells(each))
        parts.append(view)
    return Group(*parts, Text(_legend(found), style="dim"))


def _cells(each: Diagnosis) -> list[str]:
    """A row of the table."""
    at_most, at_least = ("", "") if each.enumerated else ("≤", "≥")
    best, in_seeds = each.aggregate["is_best"], each.best_in_seeds
    between = [_text(bound, ".2f") for bound in (best.low, best.high)]
    iqm = {name: x.iqm for name, x in each.aggregate.items()}
    return [
        each.states,
        each.value,
        f"{int(np.nansum(each.per_seed['states'])):,}",
        at_most + _text(best.iqm, ".2f"),
        "-".join(between) if np.isfinite(best.low) else "-",
        f"{in_seeds.successes}/{in_seeds.n}" if in_seeds else "-",
        at_least + _text(iqm["regret"], ".2g"),
        at_least + _text(iqm["relative_regret"], ".3f"),
        _text(iqm["wrong_pairs"], ".3f"),
        worst_agent(each.per_seed["wrong_pairs_of_agent"]),
        _text(iqm["settled"], ".2f"),
        _text(iqm.get("rising", np.nan), ".2f"),
    ]


def _text(x: float, form: str) -> str:
    """A number without a zero before the point; a dash where there is none."""
    text = format(x, form)
    return (text[1:] if text.startswith("0.") else text) if np.isfinite(x) else "-"


def worst_agent(wrong: np.ndarray) -> str:
    """`2: .31`, the agent with the largest share of wrong pairs in the mean over seeds.

    Args:
      wrong: `[seeds, A]`, NaN where an agent has no pairs.

    Returns:
      A dash where no pair of any agent is wrong.
    """
    has_pairs = np.isfinite(wrong)
    mean = np.where(has_pairs, wrong, 0).sum(0) / np.maximum(has_pairs.sum(0), 1)
    worst = int(np.argmax(mean))
    return f"{worst}: {_text(mean[worst], '.2f')}" if mean[worst] > 0 else "-"


def _legend(found: Sequence[Diagnosis]) -> str:
    """What the columns are."""
    lines = [
        "best: share of states in which no joint action has a larger Q than the greedy one; seeds: "
        f"in how many seeds that is {NEARLY_ALL:.0%} of the states or more",
        "regret: largest Q less Q of the greedy joint action, env units, mean over states; share: "
        "of what Q ranges over in that state",
        "wrong: pairs of an agent's actions that Q, the others staying greedy, orders otherwise "
        "than the agent's utility; worst: the agent with most of them, and its share",
        "Nash: share of states in which no agent alone can improve on the greedy joint action",
        "∂>0: share of ∂Q_tot/∂Q_i > 0 there, where Q is made of the utilities that act",
    ]
    if not all(each.enumerated for each in found):
        lines.append(
            "≤ and ≥: coordinate ascents have looked for the largest Q, and there may be a larger "
            "one; max_enumerated= is the most joint actions that are all looked at"
        )
    return "\n".join(lines)
