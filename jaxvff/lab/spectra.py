"""Question "spectra": eigenvalues of the Hessian at zero-loss points, by policy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import Array
from jaxvff.lab import hessians, tabular_model
from jaxvff.lab.hessians import VERDICTS, AtTemperature
from jaxvff.lab.objective import Policy
from jaxvff.lab.study import Row, Study
from jaxvff.lab.zero_loss import KINDS

N_LIFTED = 16  # points whose spectra are also computed with hypernetworks
LEVELS = {"softmax": np.geomspace(0.05, 10, 24), "epsilon_greedy": np.linspace(0.02, 1, 24)}


def answer(study: Study) -> Row:
    """Verdicts and extreme eigenvalues by temperature, along policies, and with hypernetworks."""
    if not study.spectra:
        return {"table": [], "along": {}, "lifted": []}
    rows = []
    for at in study.spectra:
        for kind, name in KINDS.items():
            of_kind = study.points.consistent == kind
            if of_kind.any():
                rows.append({"temperature": at.temperature, "kind": name, **_row(at, of_kind)})
    return {
        "table": rows,
        "along": {policy: _along(study, policy, levels) for policy, levels in LEVELS.items()},
        "consistent": study.points.consistent,
        "lifted": _lifted(study),
    }


def _row(at: AtTemperature, of_kind: np.ndarray) -> Row:
    """Verdicts and extreme eigenvalues of the points of one kind, a mask `[K]`."""
    s = at.spectrum
    counts = {word: int((s.verdict[of_kind] == word).sum()) for word in VERDICTS}
    row: Row = {"points": int(of_kind.sum()), **counts}
    good = of_kind & s.decided()
    if not good.any():
        return row
    lowest_normal = [s.normal[k].min() for k in np.flatnonzero(good)]
    return row | {
        "lowest": s.lowest[good].min(),
        "highest": s.highest[good].max(),
        "lowest_normal": min(lowest_normal),
        "median_lowest_normal": np.median(lowest_normal),
        "formula_error": s.formula_error[good].max(),
        "semi_error": s.semi_error[good].max(),
        "fastest_growth": s.growth[good].max(),
    }


def _along(study: Study, policy: str, levels: np.ndarray) -> Row:
    """Continuation: the smallest normal and the smallest eigenvalue `[levels, K]` along a policy.

    The zero-loss set does not depend on the policy. The points therefore stay where they are, and
    only their spectra move.
    """
    run, points = hessians.compiled(study.model), study.points
    lowest_normal, lowest = [], []
    for level in levels:
        at_points = run(
            jnp.asarray(study.payoff), Policy.of(policy, float(level)), points.x, points.chosen
        )
        spectrum = hessians.spectrum(at_points)
        lowest_normal.append([values.min() for values in spectrum.normal])
        lowest.append(spectrum.lowest)
    return {"level": levels, "lowest_normal": np.array(lowest_normal), "lowest": np.array(lowest)}


def _lifted(study: Study) -> list[Row]:
    """The same points with the mixer's hypernetworks, extreme eigenvalues by Lanczos."""
    options, model, points = study.options, study.model, study.points
    if options.mixer == "vdn" or options.fixed_mixer:
        return []
    network = tabular_model.make(
        model.n_agents,
        model.n_actions,
        options.mixer,
        embed_dim=options.embed_dim,
        hypernetworks=True,
    )
    y = jnp.asarray(study.payoff)

    def at_point(policy: Policy, x: Array, chosen: Array, key: Array) -> tuple[Array, ...]:
        lifted = tabular_model.lift(model, network, x, key)
        low, high = hessians.extreme_eigenvalues(network, y, policy, lifted, chosen)
        return low, high, jnp.abs(network.q_tot(lifted) - y.ravel())

    some = np.concatenate([points.of_kind(kind)[: N_LIFTED // 2] for kind in KINDS])
    keys = jax.random.split(jax.random.key(options.seed), len(some))
    args = (points.x[some], points.chosen[some], keys)
    run = jax.jit(lambda policy: jax.lax.map(lambda each: at_point(policy, *each), args))
    out = []
    for temperature in options.temperatures:
        low, high, error = map(np.asarray, run(Policy.of("softmax", temperature)))
        out.append(
            {
                "temperature": temperature,
                "size": network.size,
                "points": len(some),
                "lowest": low.min(),
                "highest": high.max(),
                "max_error": error.max(),
                "negative": int((low < -hessians.TOLERANCE * high).sum()),
            }
        )
    return out
