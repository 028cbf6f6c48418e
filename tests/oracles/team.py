"""What a team's learner should get of an environment: slow loops over a Story (games/scripted.py).

It reads what happened and not how an API tells it, and flattens with gymnasium's own functions.
The rules are those of docs/host.md, "An environment of your own".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces


class Seen(NamedTuple):
    """What the learner sees in a slot."""

    obs: list[list[float]]
    state: list[float]
    avail: list[list[bool]]


class Brought(NamedTuple):
    """What a step brought."""

    reward: float
    terminated: bool
    truncated: bool


def sizes(plan: Any) -> tuple[int, int, int, int]:
    """Agents, actions, numbers in an observation, numbers in the state."""
    widths = [spaces.flatdim(space) for space in plan.obs_spaces]
    n, width = len(widths), max(1, *widths, 1)
    state = {"vector": 5, "image": 4}.get(plan.state, n * width)
    return n, max(int(space.n) for space in plan.action_spaces), width, state


def their_actions(story: Any, action: list[int]) -> dict[int, int]:
    """What the environment is to be told: the agents that are there, from `start` on."""
    told = {}
    for i in story.listed:
        told[i] = list(range(story.plan.action_spaces[i].start, 1000))[action[i]]
    return told


def brought(story: Any) -> Brought:
    """The reward and the end of the last step."""
    earning = story.agents
    if story.plan.api == "pettingzoo" and not story.plan.ghost_rewards:
        earning = story.acting
    reward = 0.0
    for i in earning:
        reward += story.earned[i]
    if not story.over:
        return Brought(reward, False, False)
    for i in story.acting:
        if story.how[i] == "truncated":
            return Brought(reward, False, True)
    return Brought(reward, True, False)


def seen(story: Any) -> Seen:
    """What the learner sees now."""
    n, n_actions, width, _ = sizes(story.plan)
    obs, avail = [], []
    for i in range(n):
        row, may = [0.0] * width, [False] * n_actions
        if is_seen(story, i):
            flat = spaces.flatten(story.plan.obs_spaces[i], story.seen[i])
            for k, x in enumerate(np.asarray(flat, np.float32)):
                row[k] = float(x)
            for u, ok in enumerate(story.masks[i]):
                may[u] = bool(ok)
        if True not in may:
            may[0] = True
        obs.append(row)
        avail.append(may)
    state = [x for row in obs for x in row]
    if story.plan.state == "vector":
        state = [float(np.float32(x)) for x in story.whole]
    if story.plan.state == "image":
        state = [float(np.uint8(x * 50 + 100)) for x in story.whole[:4]]
    return Seen(obs, state, avail)


def is_seen(story: Any, i: int) -> bool:
    """Whether an agent is there, or shows its final observation."""
    if story.plan.api == "gymnasium":
        return True
    if not story.over:
        return i in story.listed
    if i not in story.acting:
        return False
    if "truncated" in [story.how[j] for j in story.acting]:
        return story.how[i] == "truncated"
    return not story.plan.no_last_words
