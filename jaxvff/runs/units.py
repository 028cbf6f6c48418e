"""Whether the payoffs or returns of a run have the size that its settings were chosen for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxvff.core.scores import FIT_TOLERANCE
from jaxvff.runs.plan import Job

# Env units, largest |payoff|: those of the published games and a little below. Game A times 10: no
# table of 24 is fitted to 0.1 (NM-QMIX; times 1: 38 %); times 0.1: nearly every one is.
USUAL = (1.0, 100.0)
# Env units, |mean return|: from a reward of 1 that is rarely won to football's 100.
USUAL_RETURN = (0.01, 1000.0)


def about_payoffs(jobs: Sequence[Job]) -> list[str]:
    """A line for each sweep value whose payoffs are far larger or smaller than usual.

    Learning rates, the clipping of gradients, margins and the tolerance of a fitted table are
    numbers in the units of the payoffs, so the results of a game depend on its units.

    Args:
      jobs: of the run. Games whose payoffs are no table are not looked at.
    """
    out = []
    for value in (value for job in jobs for value in job.values):
        if value.env.score is None:
            continue
        payoffs = jax.tree.leaves([value.env.params_for(seed) for seed in value.seeds])
        largest = max(float(np.abs(x).max()) for x in payoffs)
        if largest == 0 or USUAL[0] <= largest <= USUAL[1]:
            continue
        # To some ten, as in the published games.
        factor = 10.0 ** round(math.log10(largest / 10))
        label = " ".join(f"{k}={v}" for k, v in value.label.items() if k != "env.payoff")
        out.append(
            f"warning: the largest |payoff|{f' of {label}' if label else ''} is {largest:.3g}; the "
            f"settings, and the tolerance {FIT_TOLERANCE:g} of a fitted table, were chosen for "
            f"{USUAL[0]:g} to {USUAL[1]:g}: divide the payoffs by {factor:g}"
        )
    return out


def about_returns(job: Job, metrics: Mapping[str, np.ndarray]) -> str:
    """A line if returns are far larger or smaller than usual; empty: they are not, or are all 0.

    Args:
      job: the job in training.
      metrics: of a report.
    """
    returns = np.abs(metrics.get("train_return", np.zeros(0)))
    largest = float(np.nanmax(returns)) if np.isfinite(returns).any() else 0.0
    if job.env.score is not None or largest == 0:  # a game with a table has had its line
        return ""
    if USUAL_RETURN[0] <= largest <= USUAL_RETURN[1]:
        return ""
    return (
        f"warning: {job.name} has returns of {largest:.3g}; the settings were chosen for "
        f"{USUAL_RETURN[0]:g} to {USUAL_RETURN[1]:g}: divide the rewards by "
        f"{10.0 ** round(math.log10(largest / 10)):g}"
    )
