"""What the questions share: the game, the model, its zero-loss points and their spectra."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import numpy as np

from jaxvff.core.types import Array
from jaxvff.lab import hessians, tabular_model, zero_loss
from jaxvff.lab.hessians import AtTemperature
from jaxvff.lab.objective import moving_part
from jaxvff.lab.settings import StabilityOptions
from jaxvff.lab.tabular_model import TabularModel
from jaxvff.lab.zero_loss import Points

Row: TypeAlias = dict[str, Any]  # by name: JSON values, or arrays that are written as lists


class Study(NamedTuple):
    """What every question is asked about."""

    options: StabilityOptions
    payoff: np.ndarray  # [U] * A, env units
    model: TabularModel
    points: Points
    spectra: list[AtTemperature]  # one for each of options.temperatures; empty without points


def prepare(options: StabilityOptions) -> Study:
    """Find the zero-loss points of the game that is asked for, and their spectra."""
    payoff = options.table()
    model = tabular_model.asked_for(options, payoff)
    points = zero_loss.find(model, payoff, n_points=options.points, seed=options.seed)
    spectra: list[AtTemperature] = []
    if len(points.x):
        spectra = hessians.at_temperatures(model, payoff, points, options.temperatures)
    return Study(options, payoff, model, points, spectra)


def starts_beside(study: Study, indices: np.ndarray) -> Array:
    """Zero-loss points with noise on what moves.

    Args:
      study: with the points.
      indices: which points, `[n]` int.

    Returns:
      `[n, D]`.
    """
    model, options = study.model, study.options
    key = jax.random.key(options.seed + 4)
    noise = jax.random.normal(key, (len(indices), model.size))
    return study.points.x[indices] + options.noise * moving_part(model, noise)
