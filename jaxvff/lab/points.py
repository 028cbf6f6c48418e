"""Question "points": how many zero-loss points there are, and of which kinds."""

from __future__ import annotations

import numpy as np

from jaxvff.lab.hessians import Spectrum
from jaxvff.lab.study import Row, Study
from jaxvff.lab.tabular_model import TabularModel


def answer(study: Study) -> Row:
    """Counts of points by their greedy joint action, and the dimensions of the zero-loss set."""
    points, payoff = study.points, study.payoff
    out: Row = {
        "size": study.model.n_moving,
        "consistent": int(points.consistent.sum()),
        "inconsistent": int((~points.consistent).sum()),
        "starts": points.starts,
        "missed": points.missed,
        "optima": int((payoff == payoff.max()).sum()),
        "by_greedy_action": {
            " ".join(map(str, g)): int((points.chosen == g).all(1).sum())
            for g in np.unique(points.chosen, axis=0)
        },
    }
    if study.spectra:
        spectrum = study.spectra[-1].spectrum
        dims, counts = np.unique(spectrum.tangent_dim, return_counts=True)
        out["dimension"] = dict(zip(map(str, dims), counts.tolist(), strict=True))
        out["rank_deficient"] = rank_deficient(study.model, spectrum)
    return out


def rank_deficient(model: TabularModel, spectrum: Spectrum) -> int:
    """Points at which the Jacobian of Q_tot has less than full rank: where (H2) fails."""
    full = min(model.n_moving, model.n_actions**model.n_agents)
    return int((spectrum.tangent_dim > model.n_moving - full).sum())
