"""The paper's theorems held against exact figures at the points found; no verdict is written here.

Each claim is a row: what the paper says, what the figures say, and on how many of the cases that
could be decided it holds. Derivations: docs/theory.md.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.analysis import model as core
from jaxvff.analysis import spectra
from jaxvff.analysis.model import Model, Policy
from jaxvff.analysis.points import Points
from jaxvff.analysis.spectra import Loss, Spectrum

AGREES = 0.1  # relative: two figures that differ by less count as "≈"


class Claim(NamedTuple):
    """One row of the table."""

    name: str
    paper: str  # what it says
    exact: str  # the figures
    holds: int  # cases in which the paper's statement is true
    cases: int  # cases that could be decided
    left_out: int  # cases that could not: underflow
    section: str  # of docs/theory.md


class Evidence(NamedTuple):
    """Figures of all points at one temperature of the softmax policy."""

    temperature: float
    spectrum: Spectrum
    hessian: np.ndarray  # [K, D, D]
    pi: np.ndarray  # [K, A, U] the policy


def gather(
    model: Model, payoff: np.ndarray, found: Points, temperatures: list[float], loss: Loss | None
) -> list[Evidence]:
    """Spectra and Hessians at all points. `loss` replaces eq. 14 in tests."""
    run = spectra.compiled(model, loss)
    out = []
    for tau in temperatures:
        policy = Policy.of("softmax", tau)
        stacked = run(jnp.asarray(payoff), policy, found.x, found.chosen)
        pi = jax.nn.softmax(model.utilities(jnp.asarray(found.x)) / tau, axis=-1)
        out.append(Evidence(tau, spectra.of(stacked), np.asarray(stacked.hessian), np.asarray(pi)))
    return out


def evaluate(
    model: Model, payoff: np.ndarray, found: Points, evidence: list[Evidence], seed: int
) -> list[Claim]:
    """The claims on Theorems 1 to 3 and Lemma 1."""
    if not len(found.x):
        return [lemma_1(model, payoff, seed)]
    rows = [theorem_1(model, found, evidence[-1].spectrum), lemma_1(model, payoff, seed)]
    if (payoff == payoff.max()).sum() > 1:  # Definition 1 wants one optimum: u* would be ambiguous
        return rows
    best = np.argwhere(payoff == payoff.max())[0]
    rows += [theorem_2(found, evidence), equation_19(model, found, evidence, best)]
    rows += [theorem_3(found, evidence), equation_21(model, payoff, found, evidence, best)]
    return [*rows, equation_23(payoff, found)]


def theorem_1(model: Model, found: Points, at: Spectrum) -> Claim:
    """Infinitely many zero-loss points, inconsistent ones among them."""
    wrong = int((~found.consistent).sum())
    free = int((at.tangent_dim > 0).sum())
    return Claim(
        "Theorem 1", "infinitely many zero-loss points, some not IGM-consistent",
        f"{len(found.x)} points found, {wrong} inconsistent; the set has dimension "
        f"{at.tangent_dim.min()} or more around each, in {model.free} coordinates",
        free * (wrong > 0), len(found.x), 0, "theorem-1",
    )  # fmt: skip


def lemma_1(model: Model, payoff: np.ndarray, seed: int, n: int = 200) -> Claim:
    """The softmax loss's gradient tends to the greedy loss's, where greedy actions are unique.

    Checked at random x, at temperatures down to a 40th of the smallest greedy margin, where
    exp(-margin / τ) is below 1e-17.
    """
    keys = jax.random.split(jax.random.key(seed), n)

    def one(key: Any) -> Any:
        x = model.init(key)
        chosen = core.greedy(model, x)
        tau = jnp.min(core.margin(model.utilities(x), chosen)) / 40
        f = functools.partial(core.field, model, jnp.asarray(payoff), x=x, chosen=chosen, full=1.0)
        soft, hard = f(policy=Policy(0.0, 1.0, 0.0, tau)), f(policy=Policy(0.0, 0.0, 1.0, 1.0))
        return jnp.linalg.norm(soft - hard), jnp.linalg.norm(hard)

    gap, size = map(np.asarray, jax.jit(jax.vmap(one))(keys))
    good = gap <= 1e-6 * size
    return Claim(
        "Lemma 1", "lim ∇L_τ lies in the Clarke gradient of the greedy loss",
        f"largest relative distance {np.max(gap / size):.1e} at τ = margin / 40, {n} random points",
        int(good.sum()), n, 0, "lemma-1",
    )  # fmt: skip


def theorem_2(found: Points, evidence: list[Evidence]) -> Claim:
    """Positive definite on the normal space at consistent points; the others beside them."""
    right, right_n, out = _verdicts(found.consistent, evidence, "stable")
    wrong, wrong_n, _ = _verdicts(~found.consistent, evidence, "stable")
    everywhere = np.ones(len(found.x), bool)
    flat, unstable = (_verdicts(everywhere, evidence, word)[0] for word in ("flat", "unstable"))
    return Claim(
        "Theorem 2", "IGM-consistent: H positive definite on the normal space",
        f"{right} of {right_n} consistent, and {wrong} of {wrong_n} inconsistent; of the others "
        f"{flat} are flat to 1e-10 of λ_max, {unstable} unstable",
        right, right_n, out, "theorem-2",
    )  # fmt: skip


def theorem_3(found: Points, evidence: list[Evidence]) -> Claim:
    """A negative eigenvalue at inconsistent points."""
    n, cases, out = _verdicts(~found.consistent, evidence, "unstable")
    lows = [(e.spectrum.lowest / e.spectrum.highest)[~found.consistent] for e in evidence]
    lowest = np.min(np.concatenate(lows)) if cases else np.nan
    return Claim(
        "Theorem 3", "IGM-inconsistent: H has a negative eigenvalue",
        f"lowest eigenvalue {lowest:.1e} of λ_max (1e-10 counts as zero)",
        n, cases, out, "theorem-3",
    )  # fmt: skip


def equation_19(model: Model, found: Points, evidence: list[Evidence], best: np.ndarray) -> Claim:
    """The quadratic form at consistent points along e_{u'} - e_{u*}: formula and exact value."""
    pairs = []
    for e in evidence:
        for k in np.flatnonzero(found.consistent & decided(e)):
            for i, u in enumerate(best):
                for other in set(range(model.n_actions)) - {int(u)}:
                    paper = _formula_19(e.pi[k], i, other, int(u)) / e.temperature
                    exact = _form(model, e.hessian[k], i, other, int(u))
                    pairs.append((paper, exact))
    return _compare("eq. 19", "vᵀHv = (1/τ) Σ μ (...)² > 0", pairs, "theorem-2")


def equation_21(
    model: Model, payoff: np.ndarray, found: Points, evidence: list[Evidence], best: np.ndarray
) -> Claim:
    """The quadratic form at inconsistent points along e_{u*} - e_g, the lowest over agents."""
    pairs = []
    for e in evidence:
        for k in np.flatnonzero(~found.consistent & decided(e)):
            g = found.chosen[k]
            exact = min(
                _form(model, e.hessian[k], i, int(u), int(a))
                for i, (u, a) in enumerate(zip(best, g, strict=True))
                if u != a
            )
            pairs.append((-2 / e.temperature * (payoff.max() - payoff[tuple(g)]), exact))
    return _compare("eq. 21", "vᵀHv ≈ -(2/τ) (y(u*) - y(g)) < 0", pairs, "theorem-3")


def equation_23(payoff: np.ndarray, found: Points) -> Claim:
    """Whether one agent's change of action improves the payoff, as the proof of Theorem 3 wants."""
    wrong = found.chosen[~found.consistent]
    better = [improvable(payoff, g) for g in wrong]
    stuck = sorted({tuple(map(int, g)) for g, ok in zip(wrong, better, strict=True) if not ok})
    return Claim(
        "eq. 23", "at g ≠ u* one agent can always improve: y(g') > y(g)",
        f"no agent can alone at g = {', '.join(map(str, stuck))}" if stuck else "found at each g",
        sum(better), len(better), 0, "theorem-3",
    )  # fmt: skip


def improvable(payoff: np.ndarray, chosen: np.ndarray) -> bool:
    """Whether some agent alone can raise the payoff of the joint action `[A]`."""
    rows = (np.moveaxis(payoff, i, -1)[tuple(np.delete(chosen, i))] for i in range(payoff.ndim))
    return any(row.max() > payoff[tuple(chosen)] for row in rows)


def decided(e: Evidence) -> np.ndarray:
    """Points whose matrices can be trusted at this temperature, `[K]` bool."""
    return e.spectrum.verdict != "underflow"


def rank_deficient(model: Model, at: Spectrum) -> int:
    """Points at which the Jacobian of Q_tot has less than full rank: where (H2) fails."""
    full = min(model.free, model.n_actions**model.n_agents)
    return int((at.tangent_dim > model.free - full).sum())


def _verdicts(mine: np.ndarray, evidence: list[Evidence], word: str) -> tuple[int, int, int]:
    verdicts = np.array([e.spectrum.verdict[mine] for e in evidence])
    out = int((verdicts == "underflow").sum())
    return int((verdicts == word).sum()), verdicts.size - out, out


def _form(model: Model, hessian: np.ndarray, agent: int, up: int, down: int) -> float:
    """vᵀHv for v = e_{agent, up} - e_{agent, down}."""
    a, b = (agent * model.n_actions + action for action in (up, down))
    return float(hessian[a, a] + hessian[b, b] - hessian[a, b] - hessian[b, a])


def _formula_19(pi: np.ndarray, agent: int, other: int, best: int) -> float:
    """Eq. 19 without its 1/τ; only agent i's action matters, so the sum is over that one."""
    p = pi[agent]
    bracket = (np.arange(len(p)) == other) - p[other] - ((np.arange(len(p)) == best) - p[best])
    return float(p @ bracket**2)


def _compare(name: str, says: str, pairs: list[tuple[float, float]], section: str) -> Claim:
    if not pairs:
        return Claim(name, says, "no such point", 0, 0, 0, section)
    paper, exact = np.array(pairs).T
    close = np.abs(paper - exact) <= AGREES * np.abs(exact)
    figures = f"median {np.median(paper):.3g} by the formula, {np.median(exact):.3g} exactly; "
    return Claim(
        name, says, figures + f"exact from {exact.min():.2g} to {exact.max():.2g}",
        int(close.sum()), len(close), 0, section,
    )  # fmt: skip


def equation_24(outcomes: dict[str, tuple[int, int]]) -> Claim:
    """Whether inconsistent points are left for good.

    Args:
      outcomes: by dynamics, (lanes that ended fitted and greedy-optimal, lanes), all of which
        started beside an inconsistent point.
    """
    parts = (f"{name} {won} of {n}" for name, (won, n) in outcomes.items())
    won, n = (sum(x) for x in zip(*outcomes.values(), strict=True))
    return Claim(
        "eq. 24", "from inconsistent points the system is guaranteed to reach consistent ones",
        "reached: " + ", ".join(parts), won, n, 0, "equation-24",
    )  # fmt: skip
