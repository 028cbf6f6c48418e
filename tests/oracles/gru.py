"""PyMARL's agent as a slow loop in NumPy, one agent and one slot at a time.

Written from Cho et al. (2014) as PyTorch and flax have it: the candidate's recurrent part has a
bias of its own, inside the reset gate.
"""

from __future__ import annotations

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def dense(layer: dict, x: np.ndarray) -> np.ndarray:
    """`x[I]` -> `[O]`; the memory's own kernel has no bias."""
    out = x.astype(np.float64) @ np.asarray(layer["kernel"], np.float64)
    return out + np.asarray(layer["bias"], np.float64) if "bias" in layer else out


def step(params: dict, hidden: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`hidden[H]`, `x[I]` -> the next hidden state and `q[U]`."""
    x = np.maximum(dense(params["Dense_0"], x), 0)
    given = np.split(dense(params["gates"], x), 3)
    recalled = np.split(dense({"kernel": params["memory_kernel"]}, hidden), 3)
    reset, update = (sigmoid(given[i] + recalled[i]) for i in range(2))
    candidate = np.tanh(given[2] + reset * (recalled[2] + np.asarray(params["memory_bias"])))
    hidden = (1 - update) * candidate + update * hidden
    return hidden, dense(params["Dense_1"], hidden)


def unroll(params, obs, action, spans, n_actions: int, hidden_dim: int) -> np.ndarray:
    """`q[T, A, U]` of every episode `(first, last)` in `spans`; NaN in slots of none.

    Inputs are the observation, the agent's previous action in its own episode, and its id.
    """
    n_slots, n_agents = action.shape
    q = np.full((n_slots, n_agents, n_actions), np.nan)
    for first, last in spans:
        for agent in range(n_agents):
            hidden = np.zeros(hidden_dim)
            previous = np.zeros(n_actions)
            for t in range(first, last + 1):
                x = np.concatenate([obs[t, agent], previous, np.eye(n_agents)[agent]])
                hidden, q[t, agent] = step(params, hidden, x)
                previous = np.eye(n_actions)[action[t, agent]]
    return q
