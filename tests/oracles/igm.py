"""What losses/igm.py says of one state, in slow loops over NumPy arrays."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

EQUAL = 1e-5  # a share of the largest |value|: see losses.igm.ROUNDING


def nmqmix(q: np.ndarray, w1: np.ndarray, b1: np.ndarray, w2: np.ndarray, b2: float) -> np.ndarray:
    """Q_tot `[U] * A` of eq. 3 without its absolute values, of utilities `[A, U]`."""
    n_agents, n_actions = q.shape
    table = np.zeros([n_actions] * n_agents)
    for joint in itertools.product(range(n_actions), repeat=n_agents):
        hidden = b1.astype(float).copy()
        for i, action in enumerate(joint):
            hidden += q[i, action] * w1[i]
        hidden = np.array([x if x > 0 else np.exp(x) - 1 for x in hidden])
        table[joint] = hidden @ w2 + b2
    return table


def order(table: np.ndarray, q: np.ndarray, avail: np.ndarray) -> dict[str, Any]:
    """The fields of igm.Order for joint values `[U] * A`, by looking at everything."""
    n_agents, n_actions = q.shape
    may = [[u for u in range(n_actions) if avail[i, u]] for i in range(n_agents)]
    greedy = tuple(max(may[i], key=lambda u: q[i, u]) for i in range(n_agents))
    worth = [table[joint] for joint in itertools.product(*may)]
    largest, smallest = max(worth), min(worth)
    equal = EQUAL * max(abs(largest), abs(smallest))
    regret = largest - table[greedy]
    own_best, pairs, wrong = [], [], []
    for i in range(n_agents):
        after = [table[(*greedy[:i], u, *greedy[i + 1 :])] for u in range(n_actions)]
        own_best.append(max(after[u] for u in may[i]) - table[greedy] <= equal)
        count = bad = 0
        for u, v in itertools.permutations(may[i], 2):
            if q[i, u] > q[i, v] and abs(after[u] - after[v]) > equal:
                count += 1
                bad += after[u] < after[v]
        pairs.append(count)
        wrong.append(bad)
    return {
        "is_best": regret <= equal,
        "settled": all(own_best),
        "regret": 0.0 if regret <= equal else regret,
        "spread": largest - smallest,
        "own_best": own_best,
        "pairs": pairs,
        "wrong": wrong,
    }
