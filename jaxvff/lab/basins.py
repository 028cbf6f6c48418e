"""Question "basins": where flows end, from random starts and from beside zero-loss points."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.scores import fits
from jaxvff.core.types import Array
from jaxvff.lab import barriers, tabular_model
from jaxvff.lab.flows import Dynamics, Flow, flow
from jaxvff.lab.objective import Policy
from jaxvff.lab.settings import StabilityOptions
from jaxvff.lab.study import Row, Study, starts_beside
from jaxvff.lab.zero_loss import KINDS, is_optimal

MAX_SWITCHES = 12  # changes of the greedy joint action through which a flow is followed
# How a flow ends: whether every payoff is fitted, whether the greedy joint action
# is optimal; left out: it failed.
ENDS = ("fit, optimal", "fit, not optimal", "no fit, optimal", "no fit, not optimal", "left out")


class RandomFlows(NamedTuple):
    """Flows from random starts, and the program that follows more of them."""

    follow: Callable[[Array], Flow]  # starts [starts, D] -> flows [dynamics * starts]
    flows: Flow  # [dynamics * starts]


def random_flows(options: StabilityOptions) -> RandomFlows:
    """Compile the flows, and follow those from random starts under every dynamics.

    It needs no zero-loss points, so it runs while these are searched for.
    """
    payoff = options.table()
    model = tabular_model.asked_for(options, payoff)
    every = list(_dynamics(options).values())
    follow_one = functools.partial(
        flow,
        model,
        jnp.asarray(payoff),
        time=options.time,
        max_switches=MAX_SWITCHES,
        solver=options.solver,
    )
    # One at a time: a batch would take as many steps as its slowest flow.
    program = jax.jit(
        lambda dynamics, x: jax.lax.map(lambda lane: follow_one(*lane), (dynamics, x))
    )

    def follow(x0: Array) -> Flow:
        stacked = jax.tree.map(
            lambda *leaves: jnp.repeat(jnp.asarray(leaves, float), options.starts), *every
        )
        device = jax.local_devices()[-1]  # the other questions are on the first
        lanes = jax.device_put((stacked, jnp.tile(x0, (len(every), 1))), device)
        return jax.device_get(program(*lanes))

    keys = jax.random.split(jax.random.key(options.seed + 3), options.starts)
    return RandomFlows(follow, follow(jax.vmap(model.init)(keys)))


def answer(study: Study, random: RandomFlows) -> Row:
    """Counts of ends by start and dynamics, and the switches of the uniform flows."""
    n_starts = study.options.starts
    ends = {"random": _count_ends(study, random.flows)}
    for kind, name in KINDS.items():
        points = study.points.of_kind(kind)
        if len(points):
            spread = points[np.linspace(0, len(points) - 1, n_starts).astype(int)]
            ends[name] = _count_ends(study, random.follow(starts_beside(study, spread)))
    crossings = _crossings(study, random.flows)
    return {"starts": n_starts, "time": study.options.time, **ends, "crossings": crossings}


def _dynamics(options: StabilityOptions) -> dict[str, Dynamics]:
    """The policies and gradients that flows follow, by name."""
    softmax = Policy.of("softmax", 1.0)
    epsilon_greedy = Policy.of("epsilon_greedy", options.epsilon)
    return {
        "uniform": Dynamics(Policy.of("uniform"), policy_term=0.0),
        "softmax 1": Dynamics(softmax, policy_term=0.0),
        f"ε-greedy {options.epsilon:g}": Dynamics(epsilon_greedy, policy_term=0.0),
        # The other two policies have no gradient: with its term they would be the same.
        "softmax 1, full": Dynamics(softmax, policy_term=1.0),
    }


def _count_ends(study: Study, flows: Flow) -> list[Row]:
    """Counts of ends, a row for each dynamics.

    What failed is counted as left out and is no success.

    Args:
      study: the game and the model.
      flows: `[dynamics * starts]`.
    """
    y, n_starts = study.payoff.ravel(), study.options.starts
    error = np.abs(np.asarray(jax.vmap(study.model.q_tot)(flows.x)) - y).max(-1)
    fit = fits(error, y)
    optimal = is_optimal(study.payoff, np.asarray(flows.chosen))
    ok = np.asarray(flows.ok)
    # In the order of ENDS
    ends = (ok & fit & optimal, ok & fit & ~optimal, ok & ~fit & optimal, ok & ~fit & ~optimal, ~ok)
    rows = []
    for k, name in enumerate(_dynamics(study.options)):
        lanes = slice(k * n_starts, (k + 1) * n_starts)
        n_switches = np.asarray(flows.n_switches)[lanes][ok[lanes]]
        counts = {end: int(of[lanes].sum()) for end, of in zip(ENDS, ends, strict=True)}
        rows.append(
            {
                "dynamics": name,
                "lanes": n_starts,
                **counts,
                "at rest": int((ok & flows.at_rest)[lanes].sum()),
                "switched": int((n_switches > 0).sum()),
                "switches": int(n_switches.sum()),
            }
        )
    return rows


def _crossings(study: Study, flows: Flow) -> Row:
    """Changes of greedy actions of the uniform flows, each beside its barrier."""
    s = flows.switches
    table = barriers.bounds(study.payoff)
    pairs = [
        (s.loss[k, j], table[s.agent[k, j], s.before[k, j], s.after[k, j]])
        for k in range(study.options.starts)  # the first dynamics is uniform
        for j in range(s.time.shape[1])
        if np.isfinite(s.time[k, j])
    ]
    below = sum(loss < bound * (1 - 1e-6) for loss, bound in pairs)
    return {"uniform_switches": len(pairs), "below_the_barrier": int(below), "pairs": pairs}
