"""Slow loops for the targets of a segment, written from Sutton & Barto (2018), §7.1 and §12.1."""

from __future__ import annotations

import numpy as np


def episode_ends(mask: np.ndarray, t: int) -> int:
    """The last transition of the episode that has transition t."""
    while t + 1 < len(mask) and mask[t + 1]:
        t += 1
    return t


def recursion(reward, value, terminated, spans, gamma: float, lambda_: float) -> np.ndarray:
    """λ-returns of every episode `(first, last)`, backwards from where each one really ended.

    After a terminated transition nothing is worth anything; one that was cut short, by a limit or by
    the end of the segment, goes on in the value of its final observation.
    """
    out = np.zeros(len(reward))
    for first, last in spans:
        rest = 0.0 if last > first and terminated[last - 1] else value[last]
        for t in range(last - 1, first - 1, -1):
            worth = rest if t == last - 1 else (1 - lambda_) * value[t + 1] + lambda_ * out[t + 1]
            out[t] = reward[t] + gamma * worth
    return out


def n_step(reward, discount, value, mask, n: int) -> np.ndarray:
    """Sum of up to n discounted rewards, then the value of where that led."""
    out = np.zeros(len(reward))
    for t in np.flatnonzero(mask):
        stop = min(t + n - 1, episode_ends(mask, t))
        weight = 1.0
        for k in range(t, stop + 1):
            out[t] += weight * reward[k]
            weight *= discount[k]
        if weight:
            out[t] += weight * value[stop + 1]
    return out


def td_lambda(reward, discount, value, mask, lambda_: float) -> np.ndarray:
    """The λ-weighted mean of all n-step returns; the last one gets what weight is left."""
    out = np.zeros(len(reward))
    for t in np.flatnonzero(mask):
        longest = episode_ends(mask, t) - t + 1
        for n in range(1, longest + 1):
            weight = (1 - lambda_) * lambda_ ** (n - 1) if n < longest else lambda_ ** (n - 1)
            out[t] += weight * n_step(reward, discount, value, mask, n)[t]
    return out
