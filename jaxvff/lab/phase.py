"""Question "phase": phase portraits, which are losses and gradients in a plane of two utilities."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import Array
from jaxvff.lab import objective
from jaxvff.lab.objective import Policy, greedy_actions
from jaxvff.lab.study import Row, Study
from jaxvff.lab.zero_loss import KINDS

N_GRID = 33  # grid points a side


def answer(study: Study) -> list[Row]:
    """Portraits at the fixed mixers of one point of each kind."""
    firsts = {name: study.points.of_kind(kind)[:1] for kind, name in KINDS.items()}
    return [
        {"kind": name, **_portrait(study, int(index))}
        for name, first in firsts.items()
        for index in first
    ]


def _portrait(study: Study, index: int) -> Row:
    """The plane of the first two agents through one point, all other utilities held.

    A coordinate is how far the utility of another action is above that of the greedy one. The other
    action is the best joint action's; where the greedy one is that already, it is the next action.

    Args:
      study: with the points.
      index: of the point.
    """
    model, payoff = study.model, study.payoff
    x, chosen = study.points.x[index], study.points.chosen[index]
    best = np.argwhere(payoff == payoff.max())[0]
    q = model.utilities(x)
    n_actions = model.n_actions
    other = [int(b if b != a else (a + 1) % n_actions) for a, b in zip(chosen, best, strict=True)]
    base = [float(q[i, chosen[i]]) for i in (0, 1)]
    gaps = [float(q[i, other[i]] - q[i, chosen[i]]) for i in (0, 1)]
    half = 1.5 * max(abs(v) for v in gaps)
    axis = np.linspace(-half, half, N_GRID)

    policy, y = Policy.of("softmax", 1.0), jnp.asarray(payoff)
    moved = jnp.array([i * n_actions + other[i] for i in (0, 1)])  # entries of x

    def at(u: Array, v: Array) -> tuple[Array, Array]:
        z = jnp.asarray(x).at[moved].set(jnp.array([base[0] + u, base[1] + v]))
        greedy = greedy_actions(model, z)
        down = -objective.gradient(model, y, policy, z, greedy, policy_term=1.0)
        return objective.expected_loss(model, y, policy, z, greedy), down[moved]

    loss, down = jax.jit(jax.vmap(jax.vmap(at, (0, None)), (None, 0)))(axis, axis)
    return {
        "axis": axis,
        "loss": np.asarray(loss),
        "down": np.asarray(down),
        "at": gaps,
        "greedy": chosen,
        "other": other,
        "names": [f"q{i + 1}({other[i]}) - q{i + 1}({chosen[i]})" for i in (0, 1)],
    }
