"""Question "claims": the paper's theorems held against exact figures at the points.

Each claim is a row: what the paper says, what the figures say, and in how many of the cases that
could be decided it holds. No verdict is written here. Derivations: docs/theory.md.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import Array
from jaxvff.lab import objective
from jaxvff.lab.hessians import AtTemperature, Spectrum
from jaxvff.lab.objective import Policy, greedy_actions, greedy_margins
from jaxvff.lab.study import Row, Study
from jaxvff.lab.tabular_model import TabularModel
from jaxvff.lab.zero_loss import Points

AGREES = 0.1  # relative: two figures that differ by less count as "≈"
N_RANDOM = 200  # random points of Lemma 1


class Claim(NamedTuple):
    """One row of the table."""

    name: str
    paper: str  # what it says
    exact: str  # the figures
    holds: int  # cases in which the paper's statement is true
    cases: int  # cases that could be decided
    left_out: int  # cases that could not: underflow
    section: str  # of docs/theory.md


def answer(study: Study, *, escapes: list[Row], basins: Row | None) -> list[Row]:
    """The table of claims.

    Args:
      study: with the points and their spectra.
      escapes: the answer of that question; it decides eq. 24.
      basins: the answer of that question, which has more cases of eq. 24; None: it was not asked.
    """
    claims = evaluate(
        study.model, study.payoff, study.points, study.spectra, seed=study.options.seed
    )
    if reached := _reached(escapes, basins or {}):
        claims.append(equation_24(reached))
    return [claim._asdict() for claim in claims]


def _reached(escapes: list[Row], basins: Row) -> dict[str, tuple[int, int]]:
    """Of what starts beside inconsistent points: (ended fitted and optimal, all), by dynamics."""
    reached = {}
    for row in escapes:
        if row["kind"] == "inconsistent":
            level = f" (lr·λ_max = {row['level']:g})" if row["level"] else ""
            reached[row["optimizer"] + level] = (row["both"]["successes"], row["lanes"])
    for row in basins.get("inconsistent", []):
        lanes = row["lanes"] - row["left out"]
        reached[f"flow ({row['dynamics']})"] = (row["fit, optimal"], lanes)
    return reached


def evaluate(
    model: TabularModel,
    payoff: np.ndarray,
    points: Points,
    spectra: list[AtTemperature],
    *,
    seed: int,
) -> list[Claim]:
    """The claims on Theorems 1 to 3 and Lemma 1.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      points: K zero-loss points.
      spectra: of the points, at each temperature.
      seed: of the random points of Lemma 1.
    """
    if not len(points.x):
        return [lemma_1(model, payoff, seed)]
    claims = [theorem_1(model, points, spectra[-1].spectrum), lemma_1(model, payoff, seed)]
    if (payoff == payoff.max()).sum() > 1:  # Definition 1 wants one optimum: u* is ambiguous
        return claims
    best = np.argwhere(payoff == payoff.max())[0]
    return [
        *claims,
        theorem_2(points, spectra),
        equation_19(model, points, spectra, best),
        theorem_3(points, spectra),
        equation_21(model, payoff, points, spectra, best),
        equation_23(payoff, points),
    ]


def theorem_1(model: TabularModel, points: Points, at: Spectrum) -> Claim:
    """Infinitely many zero-loss points, inconsistent ones among them."""
    n_inconsistent = int((~points.consistent).sum())
    n_continua = int((at.tangent_dim > 0).sum())
    return Claim(
        name="Theorem 1",
        paper="infinitely many zero-loss points, some not IGM-consistent",
        exact=f"{len(points.x)} points found, {n_inconsistent} inconsistent; the set has dimension "
        f"{at.tangent_dim.min()} or more around each, in {model.n_moving} coordinates",
        holds=n_continua * (n_inconsistent > 0),
        cases=len(points.x),
        left_out=0,
        section="theorem-1",
    )


def lemma_1(model: TabularModel, payoff: np.ndarray, seed: int, n: int = N_RANDOM) -> Claim:
    """The softmax loss's gradient tends to the greedy loss's, where greedy actions are unique.

    Checked at `n` random x, at temperatures down to a 40th of the smallest greedy margin, where
    exp(-margin / τ) is below 1e-17.
    """

    def distance(key: Array) -> tuple[Array, Array]:
        x = model.init(key)
        chosen = greedy_actions(model, x)
        temperature = jnp.min(greedy_margins(model.utilities(x), chosen)) / 40
        gradient = functools.partial(
            objective.gradient, model, jnp.asarray(payoff), x=x, chosen=chosen, policy_term=1.0
        )
        soft = gradient(policy=Policy(0.0, 1.0, 0.0, temperature))
        hard = gradient(policy=Policy(0.0, 0.0, 1.0, 1.0))
        return jnp.linalg.norm(soft - hard), jnp.linalg.norm(hard)

    keys = jax.random.split(jax.random.key(seed), n)
    gap, size = map(np.asarray, jax.jit(jax.vmap(distance))(keys))
    return Claim(
        name="Lemma 1",
        paper="lim ∇L_τ lies in the Clarke gradient of the greedy loss",
        exact=f"largest relative distance {np.max(gap / size):.1e} at τ = margin / 40, "
        f"{n} random points",
        holds=int((gap <= 1e-6 * size).sum()),
        cases=n,
        left_out=0,
        section="lemma-1",
    )


def theorem_2(points: Points, spectra: list[AtTemperature]) -> Claim:
    """Positive definite on the normal space at consistent points; the others beside them."""
    right, n_right, left_out = _verdicts(points.consistent, spectra, "stable")
    wrong, n_wrong, _ = _verdicts(~points.consistent, spectra, "stable")
    everywhere = np.ones(len(points.x), bool)
    flat, unstable = (_verdicts(everywhere, spectra, word)[0] for word in ("flat", "unstable"))
    return Claim(
        name="Theorem 2",
        paper="IGM-consistent: H positive definite on the normal space",
        exact=f"{right} of {n_right} consistent, and {wrong} of {n_wrong} inconsistent; of the "
        f"others {flat} are flat to 1e-10 of λ_max, {unstable} unstable",
        holds=right,
        cases=n_right,
        left_out=left_out,
        section="theorem-2",
    )


def theorem_3(points: Points, spectra: list[AtTemperature]) -> Claim:
    """A negative eigenvalue at inconsistent points."""
    inconsistent = ~points.consistent
    unstable, cases, left_out = _verdicts(inconsistent, spectra, "unstable")
    shares = [(at.spectrum.lowest / at.spectrum.highest)[inconsistent] for at in spectra]
    lowest = np.min(np.concatenate(shares)) if cases else np.nan
    return Claim(
        name="Theorem 3",
        paper="IGM-inconsistent: H has a negative eigenvalue",
        exact=f"lowest eigenvalue {lowest:.1e} of λ_max (1e-10 counts as zero)",
        holds=unstable,
        cases=cases,
        left_out=left_out,
        section="theorem-3",
    )


def equation_19(
    model: TabularModel, points: Points, spectra: list[AtTemperature], best: np.ndarray
) -> Claim:
    """The quadratic form at consistent points along e_{u'} - e_{u*}: formula and exact value.

    Args:
      model: the factorised value.
      points: K zero-loss points.
      spectra: of the points, at each temperature.
      best: u*, `[A]`.
    """
    pairs = [
        (
            _formula_19(at.pi[k], i, other, int(u)) / at.temperature,
            _quadratic_form(model, at.hessian[k], agent=i, up=other, down=int(u)),
        )
        for at in spectra
        for k in np.flatnonzero(points.consistent & at.spectrum.decided())
        for i, u in enumerate(best)
        for other in set(range(model.n_actions)) - {int(u)}
    ]
    return _compare("eq. 19", "vᵀHv = (1/τ) Σ μ (...)² > 0", pairs, "theorem-2")


def equation_21(
    model: TabularModel,
    payoff: np.ndarray,
    points: Points,
    spectra: list[AtTemperature],
    best: np.ndarray,
) -> Claim:
    """The quadratic form at inconsistent points along e_{u*} - e_g, the lowest over agents.

    Args:
      model: the factorised value.
      payoff: y, `[U] * A`.
      points: K zero-loss points, with their greedy joint actions g.
      spectra: of the points, at each temperature.
      best: u*, `[A]`.
    """
    pairs = []
    for at in spectra:
        for k in np.flatnonzero(~points.consistent & at.spectrum.decided()):
            greedy = points.chosen[k]
            exact = min(
                _quadratic_form(model, at.hessian[k], agent=i, up=int(u), down=int(g))
                for i, (u, g) in enumerate(zip(best, greedy, strict=True))
                if u != g
            )
            formula = -2 / at.temperature * (payoff.max() - payoff[tuple(greedy)])
            pairs.append((formula, exact))
    return _compare("eq. 21", "vᵀHv ≈ -(2/τ) (y(u*) - y(g)) < 0", pairs, "theorem-3")


def equation_23(payoff: np.ndarray, points: Points) -> Claim:
    """Whether one agent's change of action improves the payoff, as the proof of Theorem 3 wants."""
    greedy = points.chosen[~points.consistent]
    better = [improvable(payoff, g) for g in greedy]
    stuck = sorted({tuple(map(int, g)) for g, ok in zip(greedy, better, strict=True) if not ok})
    at_equilibria = f"no agent can alone at g = {', '.join(map(str, stuck))}"
    return Claim(
        name="eq. 23",
        paper="at g ≠ u* one agent can always improve: y(g') > y(g)",
        exact=at_equilibria if stuck else "found at each g",
        holds=sum(better),
        cases=len(better),
        left_out=0,
        section="theorem-3",
    )


def improvable(payoff: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether some agent alone can raise the payoff of the joint action `[A]`."""
    rows = (np.moveaxis(payoff, i, -1)[tuple(np.delete(chosen, i))] for i in range(payoff.ndim))
    return any(row.max() > payoff[tuple(chosen)] for row in rows)


def equation_24(reached: dict[str, tuple[int, int]]) -> Claim:
    """Whether inconsistent points are left for good.

    Args:
      reached: by dynamics, (lanes that ended fitted and greedy-optimal, lanes), all of which
        started beside an inconsistent point.
    """
    parts = (f"{name} {n} of {cases}" for name, (n, cases) in reached.items())
    holds, cases = (sum(x) for x in zip(*reached.values(), strict=True))
    return Claim(
        name="eq. 24",
        paper="from inconsistent points the system is guaranteed to reach consistent ones",
        exact="reached: " + ", ".join(parts),
        holds=holds,
        cases=cases,
        left_out=0,
        section="equation-24",
    )


def _verdicts(mask: np.ndarray, spectra: list[AtTemperature], word: str) -> tuple[int, int, int]:
    """Count verdicts over all temperatures.

    Args:
      mask: which points count, `[K]` bool.
      spectra: of the points, at each temperature.
      word: the verdict.

    Returns:
      `(points with this verdict, points that could be decided, points that could not)`.
    """
    verdicts = np.array([at.spectrum.verdict[mask] for at in spectra])
    left_out = int((verdicts == "underflow").sum())
    return int((verdicts == word).sum()), verdicts.size - left_out, left_out


def _quadratic_form(
    model: TabularModel, hessian: np.ndarray, *, agent: int, up: int, down: int
) -> float:
    """vᵀHv for v = e_{agent, up} - e_{agent, down}; H `[D, D]`."""
    a, b = (agent * model.n_actions + action for action in (up, down))
    return float(hessian[a, a] + hessian[b, b] - hessian[a, b] - hessian[b, a])


def _formula_19(pi: np.ndarray, agent: int, other: int, best: int) -> float:
    """Eq. 19 without its 1/τ; only agent i's action matters, so the sum is over that one.

      Σ_u π(u) [1(u = other) - π(other) - (1(u = best) - π(best))]²

    Args:
      pi: probabilities of each agent's actions, `[A, U]`.
      agent: i.
      other: u'.
      best: u*.
    """
    p = pi[agent]
    bracket = (np.arange(len(p)) == other) - p[other] - ((np.arange(len(p)) == best) - p[best])
    return float(p @ bracket**2)


def _compare(name: str, paper: str, pairs: list[tuple[float, float]], section: str) -> Claim:
    """The claim that two figures agree, of (by the paper's formula, exact) pairs."""
    if not pairs:
        return Claim(name, paper, "no such point", 0, 0, 0, section)
    formula, exact = np.array(pairs).T
    close = np.abs(formula - exact) <= AGREES * np.abs(exact)
    return Claim(
        name=name,
        paper=paper,
        exact=f"median {np.median(formula):.3g} by the formula, {np.median(exact):.3g} exactly; "
        f"exact from {exact.min():.2g} to {exact.max():.2g}",
        holds=int(close.sum()),
        cases=len(close),
        left_out=0,
        section=section,
    )
