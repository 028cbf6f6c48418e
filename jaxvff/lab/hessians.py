"""Second derivatives of the loss at zero-loss points, exactly, and what they say of stability."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matfree import decomp, eig

from jaxvff.core.types import Array
from jaxvff.lab import objective
from jaxvff.lab.objective import Policy
from jaxvff.lab.tabular_model import TabularModel
from jaxvff.lab.zero_loss import Points

TOLERANCE = 1e-10  # of an eigenvalue, as a share of the largest one: below, it counts as zero
RANK_TOLERANCE = 1e-9  # of a singular value of the Jacobian, as a share of the largest one
UNDERFLOW = 1e-290  # a joint action this unlikely is lost to float64, and its direction with it
LANCZOS = 40  # matrix-vector products; the rank of the Hessian is U ** A at most
VERDICTS = ("unstable", "flat", "stable", "underflow")

# (payoff [U] * A, policy, x [D], greedy joint action [A]) -> []: expected_loss, but for tests
LossFunction = Callable[[Array, Policy, Array, Array], Array]


class SecondDerivatives(NamedTuple):
    """Second derivatives at one point, in its coordinates that move; D stands for their number."""

    hessian: Array  # [D, D] of the full loss (eq. 14), by automatic differentiation
    semi: Array  # [D, D] Jacobian of the semi-gradient; not symmetric away from zero loss
    jacobian: Array  # [M, D] of Q_tot
    mu: Array  # [M] joint probabilities


class Spectrum(NamedTuple):
    """Eigenvalues of K points under one policy, per unit of x squared."""

    lowest: np.ndarray  # [K] smallest eigenvalue of the Hessian
    highest: np.ndarray  # [K] largest one, λ_max
    normal: list[np.ndarray]  # K x [rank] eigenvalues on the normal space of the zero-loss set
    tangent_dim: np.ndarray  # [K] dimension of the zero-loss set there
    verdict: np.ndarray  # [K] one of VERDICTS
    formula_error: np.ndarray  # [K] of 2 Σ μ ∇Q ∇Qᵀ against the Hessian, relative
    semi_error: np.ndarray  # [K] of the semi-gradient's Jacobian against the Hessian, relative
    growth: np.ndarray  # [K] largest real part of an eigenvalue of -semi: > 0 grows

    def decided(self) -> np.ndarray:
        """Points whose matrices can be trusted, `[K]` bool."""
        return self.verdict != "underflow"


class AtTemperature(NamedTuple):
    """Figures of all K points at one temperature of the softmax policy."""

    temperature: float
    spectrum: Spectrum
    hessian: np.ndarray  # [K, D, D]
    pi: np.ndarray  # [K, A, U] probabilities of each agent's actions


def derivatives(
    model: TabularModel, payoff: Array, policy: Policy, x: Array, chosen: Array, loss: LossFunction
) -> SecondDerivatives:
    """All second derivatives at one point.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      policy: of the behaviour.
      x: `[D]`.
      chosen: the greedy joint action `[A]`.
      loss: whose Hessian is taken.
    """

    def semi_gradient(z: Array) -> Array:
        return objective.gradient(model, payoff, policy, z, chosen, policy_term=0.0)

    n = model.n_moving
    return SecondDerivatives(
        hessian=jax.hessian(lambda z: loss(payoff, policy, z, chosen))(x)[:n, :n],
        semi=jax.jacfwd(semi_gradient)(x)[:n, :n],
        jacobian=jax.jacrev(model.q_tot)(x)[:, :n],
        mu=objective.joint_probs(model, policy, model.utilities(x), chosen),
    )


@functools.lru_cache(maxsize=4)
def compiled(
    model: TabularModel, loss: LossFunction | None = None
) -> Callable[[Array, Policy, np.ndarray, np.ndarray], SecondDerivatives]:
    """`derivatives` of points `x[K, D]`, `chosen[K, A]`; one program for all policies."""
    loss = loss or functools.partial(objective.expected_loss, model)
    of_point = functools.partial(derivatives, model, loss=loss)
    return jax.jit(jax.vmap(of_point, in_axes=(None, None, 0, 0)))


def spectrum(at_points: SecondDerivatives) -> Spectrum:
    """The spectrum of every point, from derivatives with a leading axis [K].

    The linear algebra is dense and runs on the host (see docs/decisions.md, Traps).
    """
    matrices = map(np.asarray, at_points)
    points = [_spectrum_of(*each) for each in zip(*matrices, strict=True)]
    columns = dict(zip(Spectrum._fields, zip(*points, strict=True), strict=True))
    normal = list(columns.pop("normal"))  # a list, since ranks differ
    return Spectrum(normal=normal, **{name: np.array(c) for name, c in columns.items()})


def _spectrum_of(
    hessian: np.ndarray, semi: np.ndarray, jacobian: np.ndarray, mu: np.ndarray
) -> tuple[object, ...]:
    """The fields of Spectrum for one point, from those of its SecondDerivatives."""
    formula = 2 * jacobian.T @ (mu[:, None] * jacobian)
    scale = np.abs(hessian).max()
    values = np.linalg.eigvalsh((hessian + hessian.T) / 2)
    basis = normal_basis(jacobian)
    normal = np.linalg.eigvalsh(basis.T @ hessian @ basis)
    growth = np.linalg.eigvals(-semi).real.max()
    return (
        values[0],
        values[-1],
        normal,
        jacobian.shape[1] - basis.shape[1],
        verdict(normal, values, mu),
        np.abs(formula - hessian).max() / scale,
        np.abs(semi - hessian).max() / scale,
        growth,
    )


def verdict(normal: np.ndarray, values: np.ndarray, mu: np.ndarray) -> str:
    """One of VERDICTS for a point.

    - unstable: an eigenvalue is below -TOLERANCE · λ_max, anywhere.
    - stable: all eigenvalues on the normal space are above TOLERANCE · λ_max. (The tangent space is
      made of zero-loss points.)
    - flat: neither. The loss does not see some direction that leaves the zero-loss set.
    - underflow: a probability is lost to float64, so that the matrix is not the one asked for.

    Args:
      normal: eigenvalues on the normal space, `[rank]`.
      values: all eigenvalues, `[D]`.
      mu: joint probabilities `[M]`.
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


def at_temperatures(
    model: TabularModel,
    payoff: np.ndarray,
    points: Points,
    temperatures: Sequence[float],
    *,
    loss: LossFunction | None = None,
) -> list[AtTemperature]:
    """Spectra and Hessians of all points, at every temperature of the softmax policy.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      points: K zero-loss points.
      temperatures: in units of the utilities.
      loss: replaces the expected loss in tests.
    """
    run = compiled(model, loss)
    out = []
    for temperature in temperatures:
        policy = Policy.of("softmax", temperature)
        at_points = run(jnp.asarray(payoff), policy, points.x, points.chosen)
        pi = jax.nn.softmax(model.utilities(jnp.asarray(points.x)) / temperature, axis=-1)
        out.append(
            AtTemperature(
                temperature, spectrum(at_points), np.asarray(at_points.hessian), np.asarray(pi)
            )
        )
    return out


def extreme_eigenvalues(
    model: TabularModel, payoff: Array, policy: Policy, x: Array, chosen: Array, n: int = LANCZOS
) -> tuple[Array, Array]:
    """The smallest and the largest eigenvalue of the Hessian without forming it, by Lanczos.

    The start vector mixes all coordinates. With full reorthogonalisation, n above the rank plus
    one finds both exactly; the rank of the Hessian at a zero-loss point is at most U ** A.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      policy: of the behaviour.
      x: `[D]`.
      chosen: the greedy joint action `[A]`.
      n: matrix-vector products.

    Returns:
      `([], [])`, per unit of x squared.
    """

    def full_gradient(z: Array) -> Array:
        return objective.gradient(model, payoff, policy, z, chosen, policy_term=1.0)

    def hessian_times(v: Array) -> Array:
        return jax.jvp(full_gradient, (x,), (v,))[1]

    start = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
    solve = eig.eigh_partial(decomp.tridiag_sym(min(n, x.size)))
    values, _ = solve(hessian_times, start)
    return jnp.min(values), jnp.max(values)
