"""Zero-loss points with a chosen greedy joint action, by Levenberg-Marquardt from many starts."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optimistix

from jaxvff.analysis.model import Model, greedy, joint_actions, margin
from jaxvff.types import Array

RESIDUAL = 1e-20  # largest squared residual, summed over joint actions, of a zero-loss point
MARGIN = 1e-2  # least distance of a greedy action's utility from the next one, by construction
MAX_STEPS = 300  # of Levenberg-Marquardt
MOST_ROUNDS = 5  # of as many starts as points are wanted
HOPELESS = 64  # starts without a single point
NAMES = {True: "consistent", False: "inconsistent"}


class Points(NamedTuple):
    """Zero-loss points, and what was left out on the way."""

    x: np.ndarray  # [K, D]
    chosen: np.ndarray  # [K, A] the greedy joint action
    consistent: np.ndarray  # [K] bool: the greedy joint action earns the largest payoff (IGM)
    starts: dict[str, int]  # how many were tried: consistent, inconsistent
    missed: dict[str, int]  # how many of them did not reach RESIDUAL


def find(model: Model, payoff: np.ndarray, wanted: int, seed: int) -> Points:
    """Zero-loss points, half of them with an optimal greedy joint action, half without.

    The order of the utilities is built into the coordinates of the search (the chosen action's
    utility is the largest by MARGIN or more), so a start cannot drift to another greedy action;
    only the residuals Q_tot - y are fitted. Starts that cannot be brought to RESIDUAL are counted
    in `missed`. The search gives up after MOST_ROUNDS, or after HOPELESS starts without any point,
    as with a mixer that cannot represent the payoffs.

    Args:
      model: the factorised value, in float64.
      payoff: `[U] * A`.
      wanted: how many points.
      seed: of the random starts, which follow the model's own initialisation.

    Returns:
      Up to `wanted` points, consistent ones and others in equal parts as far as there are both.
    """
    chosen = allot(payoff, wanted)
    consistent = is_optimal(payoff, chosen)
    # One start at a time: batched QR can deadlock XLA's thread pool (docs/design.md).
    fit = jax.jit(lambda y, lanes: jax.lax.map(lambda lane: _fit(model, y, *lane), lanes))
    keys = jax.random.split(jax.random.key(seed), (MOST_ROUNDS, wanted))
    found: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
    tried, rounds = {True: 0, False: 0}, 0
    quota = {kind: int(np.sum(consistent == kind)) for kind in (True, False)}
    while rounds < MOST_ROUNDS and any(len(found[kind]) < quota[kind] for kind in quota):
        x, squares = jax.device_get(fit(jnp.asarray(payoff), (keys[rounds], jnp.asarray(chosen))))
        rounds += 1
        for kind in quota:
            mine = consistent == kind
            tried[kind] += int(mine.sum())
            good = mine & (squares < RESIDUAL)  # False for NaN
            found[kind] += list(zip(x[good], chosen[good], strict=True))
        if not any(found.values()) and rounds * wanted >= HOPELESS:
            break
    missed = {kind: tried[kind] - len(found[kind]) for kind in quota}
    kept = [p for kind in quota for p in found[kind][: quota[kind]]]
    kinds = [kind for kind in quota for _ in found[kind][: quota[kind]]]
    return Points(
        np.array([x for x, _ in kept]).reshape(-1, model.size),
        np.array([g for _, g in kept], int).reshape(-1, model.n_agents),
        np.array(kinds, bool),
        *({NAMES[kind]: n for kind, n in count.items()} for count in (tried, missed)),
    )


def allot(payoff: np.ndarray, n_starts: int) -> np.ndarray:
    """Greedy joint actions `[K, A]` for the starts: best ones and others in turn."""
    cells = joint_actions(payoff.ndim, payoff.shape[0])
    best = is_optimal(payoff, cells)
    groups = [group for group in (cells[best], cells[~best]) if len(group)]
    return np.array(
        [(g := groups[k % len(groups)])[k // len(groups) % len(g)] for k in range(n_starts)]
    )


def is_optimal(payoff: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Whether joint actions `[K, A]` earn the largest payoff, `[K]` bool."""
    return payoff[tuple(chosen.T)] == payoff.max()


def _fit(model: Model, payoff: Array, key: Array, chosen: Array) -> tuple[Array, Array]:
    """One start -> a point `[D]`, its summed squared residual; NaN if the order was lost."""
    x0 = model.init(key)
    q = model.utilities(x0)
    mine = jnp.arange(model.n_actions) == chosen[:, None]
    top = jnp.max(q, axis=-1)
    gap = top[:, None] - q  # 0 at the start's own best action: give it the chosen one's gap
    gap = jnp.where(mine, 0.0, jnp.where(gap == 0, jnp.sum(gap * mine, -1, keepdims=True), gap))
    z0 = jnp.concatenate([jnp.where(mine, top[:, None], _unsoftplus(gap)).ravel(), x0[q.size :]])

    def place(z: Array) -> Array:
        raw = z[: q.size].reshape(q.shape)
        best = jnp.sum(jnp.where(mine, raw, 0.0), axis=-1, keepdims=True)
        ordered = jnp.where(mine, raw, best - MARGIN - jax.nn.softplus(raw))
        return jnp.concatenate([ordered.ravel(), z[q.size :]])

    solver: Any = optimistix.LevenbergMarquardt(rtol=1e-14, atol=1e-14)
    solution: Any = optimistix.least_squares(
        lambda z, _: model.q_tot(place(z)) - payoff.ravel(),
        solver,
        z0,
        max_steps=MAX_STEPS,
        throw=False,
    )
    x = place(solution.value)
    squares = jnp.sum((model.q_tot(x) - payoff.ravel()) ** 2)
    kept = jnp.all(greedy(model, x) == chosen) & jnp.all(margin(model.utilities(x), chosen) > 0)
    return x, jnp.where(kept, squares, jnp.nan)


def _unsoftplus(x: Array) -> Array:
    return jnp.log(jnp.expm1(jnp.maximum(x, 1e-3)))
