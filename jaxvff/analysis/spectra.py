"""Second derivatives of the loss at zero-loss points, exactly, and what they say of stability."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp, eig

from jaxvff.analysis import model as core
from jaxvff.analysis.model import Model, Policy
from jaxvff.types import Array

TOLERANCE = 1e-10  # of an eigenvalue, as a share of the largest one: below, it counts as zero
RANK_TOLERANCE = 1e-9  # of a singular value of the Jacobian, as a share of the largest one
UNDERFLOW = 1e-290  # a joint action this unlikely is lost to float64, and its direction with it
DENSE = 600  # entries of x up to which matrices are formed
LANCZOS = 40  # matrix-vector products; the rank of the Hessian is U ** A at most

Loss = Any  # (payoff, policy, x, chosen) -> [] ; core.loss, but for tests of the claims


class Matrices(NamedTuple):
    """Second derivatives at one point, in its coordinates that move; D stands for their number."""

    hessian: Array  # [D, D] of the full loss (eq. 14), by automatic differentiation
    semi: Array  # [D, D] Jacobian of the semi-gradient; not symmetric away from zero loss
    jacobian: Array  # [M, D] of Q_tot
    mu: Array  # [M] joint probabilities


class Spectrum(NamedTuple):
    """What K points show under one policy. Eigenvalues are per unit of x squared."""

    lowest: np.ndarray  # [K] smallest eigenvalue of the Hessian
    highest: np.ndarray  # [K] largest one, λ_max
    normal: list[np.ndarray]  # K x [rank] eigenvalues on the normal space of the zero-loss set
    tangent_dim: np.ndarray  # [K] dimension of the zero-loss set there
    verdict: np.ndarray  # [K] "unstable", "flat", "stable"; "underflow": left out
    formula_error: np.ndarray  # [K] of 2 Σ μ ∇Q ∇Qᵀ against the Hessian, relative
    semi_error: np.ndarray  # [K] of the semi-gradient's Jacobian against the Hessian, relative
    growth: np.ndarray  # [K] largest real part of an eigenvalue of -semi: > 0 grows


def matrices(
    model: Model, payoff: Array, policy: Policy, x: Array, chosen: Array, loss: Loss
) -> Matrices:
    """All second derivatives at one point."""

    def semi(z: Array) -> Array:
        return core.field(model, payoff, policy, z, chosen, full=0.0)

    n = model.free
    return Matrices(
        jax.hessian(lambda z: loss(payoff, policy, z, chosen))(x)[:n, :n],
        jax.jacfwd(semi)(x)[:n, :n],
        jax.jacrev(model.q_tot)(x)[:, :n],
        core.joint_probs(model, policy, model.utilities(x), chosen),
    )


@functools.lru_cache(maxsize=4)
def compiled(model: Model, loss: Loss | None = None) -> Any:
    """`matrices` for points `x[K, D]`, `chosen[K, A]`; one program for all policies."""
    loss = loss or functools.partial(core.loss, model)
    one = functools.partial(matrices, model, loss=loss)
    return jax.jit(jax.vmap(one, in_axes=(None, None, 0, 0)))


def of(stacked: Matrices) -> Spectrum:
    """The spectrum of every point; dense linear algebra on the host (see docs/design.md, Traps)."""
    rows: Any = zip(*map(np.asarray, stacked), strict=True)
    columns: Any = zip(*map(_one, rows), strict=True)
    by_name = dict(zip(Spectrum._fields, columns, strict=True))
    normal = list(by_name.pop("normal"))  # ranks differ
    return Spectrum(normal=normal, **{name: np.array(c) for name, c in by_name.items()})


def _one(at: tuple[np.ndarray, ...]) -> tuple[Any, ...]:
    """The columns of Spectrum for one point, from its Matrices."""
    hessian, semi, jacobian, mu = at
    exact = 2 * jacobian.T @ (mu[:, None] * jacobian)
    scale = np.abs(hessian).max()
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    basis = normal_basis(jacobian)
    normal = np.linalg.eigvalsh(basis.T @ hessian @ basis)
    growth = np.linalg.eigvals(-semi).real.max()
    return (
        values[0], values[-1], normal, jacobian.shape[1] - basis.shape[1],
        verdict(normal, values, mu), np.abs(exact - hessian).max() / scale,
        np.abs(semi - hessian).max() / scale, growth,
    )  # fmt: skip


def verdict(normal: np.ndarray, values: np.ndarray, mu: np.ndarray) -> str:
    """One word for a point.

    unstable: an eigenvalue below -TOLERANCE · λ_max, anywhere. stable: all eigenvalues on the
    normal space above TOLERANCE · λ_max (the tangent space is made of zero-loss points). flat:
    neither; the loss does not see some direction that leaves the set. underflow: a probability is
    lost to float64, so that the matrix is not the one that was asked for.
    """
    zero = TOLERANCE * np.abs(values).max()
    if not np.isfinite(values).all() or mu.min() < UNDERFLOW:
        return "underflow"
    if values.min() < -zero:
        return "unstable"
    return "stable" if normal.min(initial=np.inf) > zero else "flat"


def normal_basis(jacobian: np.ndarray) -> np.ndarray:
    """An orthonormal basis `[D, rank]` of the row space of `[M, D]`: where Q_tot changes."""
    _, singular, rows = np.linalg.svd(jacobian, full_matrices=False)
    return rows[singular > RANK_TOLERANCE * singular[0]].T


def extremes(
    model: Model, payoff: Array, policy: Policy, x: Array, chosen: Array, n: int = LANCZOS
) -> tuple[Array, Array]:
    """The smallest and the largest eigenvalue of the Hessian without forming it, by Lanczos.

    The start vector mixes all coordinates. With full reorthogonalisation, n above the rank plus
    one finds both exactly; the rank of the Hessian at a zero-loss point is at most U ** A.
    """

    def product(v: Array) -> Array:
        def full(z: Array) -> Array:
            return core.field(model, payoff, policy, z, chosen, full=1.0)

        return jax.jvp(full, (x,), (v,))[1]

    start = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    solve = eig.eigh_partial(decomp.tridiag_sym(min(n, x.size)))
    values, _ = solve(product, start)
    return jnp.min(values), jnp.max(values)


def along(
    model: Model,
    payoff: np.ndarray,
    kind: str,
    levels: np.ndarray,
    x: np.ndarray,
    chosen: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Continuation: smallest normal and smallest overall eigenvalue `[levels, K]` along a policy.

    The zero-loss set does not depend on the policy, so the points stay where they are and only
    their spectra move.
    """
    run = compiled(model)
    rows = []
    for level in levels:
        found = of(run(jnp.asarray(payoff), Policy.of(kind, float(level)), x, chosen))
        rows.append(([v.min() for v in found.normal], found.lowest))
    low, lowest = zip(*rows, strict=True)
    return np.array(low), np.array(lowest)
