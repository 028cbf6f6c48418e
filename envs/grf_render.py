"""Episodes of Google Research Football as GIFs, seen from above, drawn from the world state.

gfootball's own renderer needs a screen, and sees one corner of the pitch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvff.envs import gif

FPS = 10  # steps a second: the speed of play
HALF_LENGTH, HALF_WIDTH, HALF_GOAL = 1.0, 0.42, 0.044  # of the pitch and its goals
BOX = (0.3, 0.24)  # length and half width of the penalty area
ABSENT = -1.0  # both coordinates of a player that a scenario lacks, in simple115


class Scene(NamedTuple):
    """Where everybody is."""

    left: np.ndarray  # [n, 2]
    right: np.ndarray  # [m, 2]
    ball: np.ndarray  # [3]


def scene(representation: str, n_agents: int, state: np.ndarray) -> Scene:
    """What a world state `[S]` of envs/host/grf.py says."""
    if representation == "simple115v2":
        left, right = (_present(state[at : at + 22].reshape(11, 2)) for at in (0, 44))
        return Scene(left, right, state[88:91])
    right_at = 4 * n_agents  # after the positions and directions of ours
    n_right = (len(state) - right_at - 6) // 4
    right = state[right_at : right_at + 2 * n_right]
    return Scene(state[: 2 * n_agents].reshape(-1, 2), right.reshape(-1, 2), state[-6:-3])


def _present(players: np.ndarray) -> np.ndarray:
    return players[np.any(players != ABSENT, axis=1)]


def render(
    representation: str, n_agents: int, states: np.ndarray, path: Path, caption: str
) -> None:
    """Draw an episode; see types.HostEnv.render."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.92)

    def draw(t: int) -> None:
        now = scene(representation, n_agents, states[t])
        axes.clear()
        _pitch(axes)
        axes.scatter(
            now.left[:, 0], now.left[:, 1], s=110, c="#ffd23f", edgecolors="black", zorder=3
        )
        axes.scatter(
            now.right[:, 0], now.right[:, 1], s=110, c="#3a86ff", edgecolors="black", zorder=3
        )
        # The higher the ball, the larger it is.
        axes.scatter(now.ball[0], now.ball[1], s=30 + 60 * max(now.ball[2], 0), c="white",
                     edgecolors="black", zorder=4)  # fmt: skip
        last = t == len(states) - 1
        axes.set_title(caption if last else f"step {t}", fontsize=10)

    gif.write(figure, path, range(len(states)), draw, fps=FPS)
    plt.close(figure)


def _pitch(axes: object) -> None:
    from matplotlib.axes import Axes
    from matplotlib.patches import Circle, Rectangle

    assert isinstance(axes, Axes)
    axes.set_facecolor("#3b7d3b")
    axes.set(xlim=(-1.1, 1.1), ylim=(0.5, -0.5), aspect="equal", xticks=[], yticks=[])
    line: dict[str, Any] = {"fill": False, "edgecolor": "white", "lw": 1.2}
    axes.add_patch(Rectangle((-1, -HALF_WIDTH), 2 * HALF_LENGTH, 2 * HALF_WIDTH, **line))
    axes.add_patch(Circle((0, 0), 0.13, **line))
    axes.plot([0, 0], [-HALF_WIDTH, HALF_WIDTH], color="white", lw=1.2)
    for side in (-1, 1):
        x = side if side < 0 else side - BOX[0]
        axes.add_patch(Rectangle((x, -BOX[1]), BOX[0], 2 * BOX[1], **line))
        axes.plot([side] * 2, [-HALF_GOAL, HALF_GOAL], color="black", lw=4, zorder=2)
