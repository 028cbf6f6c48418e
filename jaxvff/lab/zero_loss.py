"""Zero-loss points with a given greedy joint action, by Levenberg-Marquardt from many starts."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from jaxvff.core.types import Array
from jaxvff.lab.objective import greedy_actions, greedy_margins
from jaxvff.lab.tabular_model import TabularModel, joint_actions

RESIDUAL = 1e-20  # largest squared residual, summed over joint actions, of a zero-loss point
MARGIN = 1e-2  # least distance of a greedy action's utility from the next one, by construction
MAX_STEPS = 300  # of Levenberg-Marquardt
MAX_ROUNDS = 5  # a round has as many starts as points are asked for
HOPELESS = 64  # starts after which the search gives up if none of them reached a point
KINDS = {True: "consistent", False: "inconsistent"}  # by Points.consistent


class Points(NamedTuple):
    """Zero-loss points, and how many starts reached none."""

    x: np.ndarray  # [K, D]
    chosen: np.ndarray  # [K, A] the greedy joint action
    consistent: np.ndarray  # [K] bool: the greedy joint action earns the largest payoff (IGM)
    starts: dict[str, int]  # how many starts were tried: consistent, inconsistent
    missed: dict[str, int]  # how many of them did not reach RESIDUAL

    def of_kind(self, consistent: bool) -> np.ndarray:
        """Indices of the points that are IGM-consistent, or of those that are not."""
        return np.flatnonzero(self.consistent == consistent)


def find(model: TabularModel, payoff: np.ndarray, *, n_points: int, seed: int) -> Points:
    """Zero-loss points, half of them with an optimal greedy joint action, half without.

    The order of the utilities is built into the coordinates of the search: the chosen action's
    utility is the largest by MARGIN or more. A start therefore cannot drift to another greedy
    action, and only the residuals Q_tot - y are fitted. Starts that do not reach RESIDUAL are
    counted in `missed`. The search gives up after MAX_ROUNDS, or after HOPELESS starts without any
    point, as with a mixer that cannot represent the payoffs.

    Args:
      model: the factorised value, in float64.
      payoff: `[U] * A`, env units.
      n_points: how many points to find.
      seed: of the random starts, which follow the model's own initialisation.

    Returns:
      Up to `n_points` points, consistent ones and others in equal parts as far as there are both.
    """
    chosen = allot(payoff, n_points)
    consistent = is_optimal(payoff, chosen)
    quota = {kind: int(np.sum(consistent == kind)) for kind in KINDS}
    # One start at a time: batched QR can deadlock XLA's thread pool (docs/decisions.md).
    fit = jax.jit(lambda y, starts: jax.lax.map(lambda start: _fit(model, y, *start), starts))
    keys = jax.random.split(jax.random.key(seed), (MAX_ROUNDS, n_points))

    points: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {kind: [] for kind in KINDS}
    tried = dict.fromkeys(KINDS, 0)
    for k in range(MAX_ROUNDS):
        x, squares = jax.device_get(fit(jnp.asarray(payoff), (keys[k], jnp.asarray(chosen))))
        for kind in KINDS:
            of_kind = consistent == kind
            tried[kind] += int(of_kind.sum())
            reached = of_kind & (squares < RESIDUAL)  # False for NaN
            points[kind] += list(zip(x[reached], chosen[reached], strict=True))
        if all(len(points[kind]) >= quota[kind] for kind in KINDS):
            break
        if not any(points.values()) and (k + 1) * n_points >= HOPELESS:
            break

    kept = [(*point, kind) for kind in KINDS for point in points[kind][: quota[kind]]]
    return Points(
        x=np.array([x for x, _, _ in kept]).reshape(-1, model.size),
        chosen=np.array([actions for _, actions, _ in kept], int).reshape(-1, model.n_agents),
        consistent=np.array([kind for _, _, kind in kept], bool),
        starts={name: tried[kind] for kind, name in KINDS.items()},
        missed={name: tried[kind] - len(points[kind]) for kind, name in KINDS.items()},
    )


def allot(payoff: np.ndarray, n_starts: int) -> np.ndarray:
    """Greedy joint actions for the starts, optimal ones and others in turn.

    Args:
      payoff: `[U] * A`.
      n_starts: K.

    Returns:
      `[K, A]` int.
    """
    joint = joint_actions(payoff.ndim, payoff.shape[0])
    optimal = is_optimal(payoff, joint)
    kinds = [kind for kind in (joint[optimal], joint[~optimal]) if len(kind)]
    turns = (divmod(k, len(kinds)) for k in range(n_starts))  # (round, which kind)
    return np.array([kinds[kind][turn % len(kinds[kind])] for turn, kind in turns])


def is_optimal(payoff: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether joint actions `[K, A]` earn the largest payoff, `[K]` bool."""
    return payoff[tuple(chosen.T)] == payoff.max()


def _fit(model: TabularModel, payoff: Array, key: Array, chosen: Array) -> tuple[Array, Array]:
    """Fit the payoffs from one random start.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      key: of the start.
      chosen: the greedy joint action `[A]` of the point.

    Returns:
      A point `[D]`, and its summed squared residual `[]`; NaN if the greedy action was lost.
    """
    is_chosen = jnp.arange(model.n_actions) == chosen[:, None]
    solution: optimistix.Solution = optimistix.least_squares(
        lambda z, _: model.q_tot(_from_search(model, z, is_chosen)) - payoff.ravel(),
        optimistix.LevenbergMarquardt(rtol=1e-14, atol=1e-14),
        _to_search(model, model.init(key), is_chosen),
        max_steps=MAX_STEPS,
        throw=False,
    )
    x = _from_search(model, solution.value, is_chosen)
    squares = jnp.sum((model.q_tot(x) - payoff.ravel()) ** 2)
    is_greedy = jnp.all(greedy_actions(model, x) == chosen)
    is_unique = jnp.all(greedy_margins(model.utilities(x), chosen) > 0)
    return x, jnp.where(is_greedy & is_unique, squares, jnp.nan)


def _to_search(model: TabularModel, x: Array, is_chosen: Array) -> Array:
    """The coordinates of the search `[D]` of a start `x[D]`, whose utilities are reordered.

    Of an agent's utilities, the chosen one becomes the start's largest. The others keep their
    distances from it: the action that had the largest utility gets the chosen one's distance.

    Args:
      model: the factorised value.
      x: `[D]`.
      is_chosen: `[A, U]` bool, one action of each agent.
    """
    q = model.utilities(x)
    top = jnp.max(q, axis=-1)
    gap = top[:, None] - q
    gap_of_chosen = jnp.sum(gap * is_chosen, -1, keepdims=True)
    gap = jnp.where(is_chosen, 0.0, jnp.where(gap == 0, gap_of_chosen, gap))
    coordinates = jnp.where(is_chosen, top[:, None], _inverse_softplus(gap))
    return jnp.concatenate([coordinates.ravel(), x[q.size :]])


def _from_search(model: TabularModel, z: Array, is_chosen: Array) -> Array:
    """The point `[D]` at coordinates of the search `z[D]`; `is_chosen[A, U]` bool.

    q_i(chosen) = z_i(chosen);  q_i(u) = q_i(chosen) - MARGIN - softplus(z_i(u)) for the others
    """
    raw = model.utilities(z)
    best = jnp.sum(jnp.where(is_chosen, raw, 0.0), axis=-1, keepdims=True)
    ordered = jnp.where(is_chosen, raw, best - MARGIN - jax.nn.softplus(raw))
    return jnp.concatenate([ordered.ravel(), z[raw.size :]])


def _inverse_softplus(x: Array) -> Array:
    return jnp.log(jnp.expm1(jnp.maximum(x, 1e-3)))
