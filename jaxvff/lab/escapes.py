"""Question "escapes": which runs of sampled training leave the zero-loss points they start at.

A run leaves when its greedy joint action changes for the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.lab import hessians, sampled_training
from jaxvff.lab.objective import Policy
from jaxvff.lab.sampled_training import NEVER, Outcome
from jaxvff.lab.study import Row, Study, starts_beside
from jaxvff.lab.zero_loss import KINDS

SGD_LEVELS = (0.1, 1.0, 3.0)  # lr · λ_max of plain gradient descent, which is stable below 2


class _Curve(NamedTuple):
    """What the runs of one escape curve are trained with."""

    optimizer: str
    level: float | None  # lr · λ_max, for all points the same; None: the learning rate is
    lr: np.ndarray  # [K] learning rate of runs beside each point


def answer(study: Study) -> list[Row]:
    """Shares that left, stayed or diverged, for each optimizer and each kind of point."""
    options, points = study.options, study.points
    if not study.spectra:
        return []
    policy = Policy.of("epsilon_greedy", options.epsilon)
    run = hessians.compiled(study.model)
    at_points = run(jnp.asarray(study.payoff), policy, points.x, points.chosen)
    highest = hessians.spectrum(at_points).highest
    curves = [_Curve("sgd", level, level / highest) for level in SGD_LEVELS]
    curves.append(_Curve(options.optimizer, None, np.full(len(highest), options.lr)))
    return [row for curve in curves for row in _rows(study, policy, curve, highest)]


def _rows(study: Study, policy: Policy, curve: _Curve, highest: np.ndarray) -> Iterator[Row]:
    """Train beside points of both kinds; a row for each kind.

    Args:
      study: with the points.
      policy: of the behaviour.
      curve: the optimizer and its learning rates.
      highest: λ_max of each point under the policy, `[K]`.
    """
    outcome, start_points = _train_beside(study, policy, curve)
    for kind, name in KINDS.items():
        of_kind = study.points.consistent[start_points] == kind
        if not of_kind.any():
            continue
        part = Outcome(*(np.asarray(leaf)[of_kind] for leaf in outcome))
        lr = curve.lr[start_points][of_kind]
        lr_lambda_max = (curve.lr * highest)[start_points][of_kind]
        yield {
            "optimizer": curve.optimizer,
            "level": curve.level,
            "kind": name,
            "lanes": int(of_kind.sum()),
            "lr_lambda_max": np.percentile(lr_lambda_max, [0, 50, 100]),
            "lr": np.percentile(lr, [0, 50, 100]),
            **incidence(part, study.options.updates),
            **sampled_training.end_rates(part, study.payoff),
        }


def _train_beside(study: Study, policy: Policy, curve: _Curve) -> tuple[Outcome, np.ndarray]:
    """Runs that start beside the points, and the index of each one's point."""
    options = study.options
    kinds = [indices for kind in KINDS if len(indices := study.points.of_kind(kind))]
    # Both kinds in equal parts, each point as often as needed.
    start_points = np.concatenate([np.resize(k, options.lanes // len(kinds)) for k in kinds])
    n = len(start_points)
    starts = sampled_training.Start(
        x=starts_beside(study, start_points),
        key=jax.random.split(jax.random.key(options.seed + 1), n),
        lr=jnp.asarray(curve.lr[start_points]),
        payoff=jnp.broadcast_to(study.payoff, (n, *study.payoff.shape)),
    )
    outcome = sampled_training.run(
        study.model, policy, starts, optimizer=curve.optimizer, updates=options.updates
    )
    return outcome, start_points


def incidence(outcome: Outcome, updates: int, n_times: int = 60) -> dict[str, np.ndarray]:
    """Shares of lanes over time: still at their greedy joint action, left it, diverged first.

    Every lane is observed to the end. These cumulative incidences of two competing risks therefore
    need no estimator for censoring, and at every time they add to 1.

    Args:
      outcome: leaves with a leading [K].
      updates: how long the lanes were trained.
      n_times: the most times, evenly spaced in log(updates).

    Returns:
      step: the times, in updates; stayed, left and diverged: shares; each `[times]`.
    """
    times = np.unique(np.geomspace(1, updates, n_times).astype(int))
    first = np.minimum(outcome.left, outcome.diverged)
    left = (outcome.left <= outcome.diverged) & (outcome.left != NEVER)
    gone = first[:, None] < times  # [K, times]
    return {
        "step": times,
        "stayed": 1 - gone.mean(0),
        "left": (gone & left[:, None]).mean(0),
        "diverged": (gone & ~left[:, None]).mean(0),
    }
