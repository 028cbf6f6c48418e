"""Episodes of Google Research Football as GIFs, seen from above, drawn from the state.

gfootball's own renderer needs a screen, and sees one corner of the pitch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxvff.envs import gif
from jaxvff.envs.host.grf import ATTACK, PER_POSITION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FPS = 10  # env steps a second: the speed of play
# In gfootball's coordinates: the pitch and its goals.
HALF_LENGTH, HALF_WIDTH, HALF_GOAL = 1.0, 0.42, 0.044
BOX = (0.3, 0.24)  # length and half width of the penalty area
TEAM_COLORS = ("#ffd23f", "#3a86ff")  # left, right
ABSENT = -1.0  # both coordinates of a player that a scenario lacks, in simple115


class Scene(NamedTuple):
    """Where the players and the ball are, in gfootball's coordinates."""

    left: np.ndarray  # [n, 2]
    right: np.ndarray  # [m, 2]
    ball: np.ndarray  # [3], the last one its height


def scene(representation: str, n_agents: int, state: np.ndarray) -> Scene:
    """The scene that a state of envs/host/grf.py shows.

    Args:
      representation: a name in its REPRESENTATIONS.
      n_agents: of the left team.
      state: `[S]`.
    """
    if representation == "simple115v2":
        left, right = (_present(state[at : at + 22].reshape(11, 2)) for at in (0, 44))
        return Scene(left, right, state[88:91])
    scaled = representation == "scaled"
    from_ball = 11 * n_agents + 10 if scaled else 6  # numbers, from the ball's place to the end
    right_at = 4 * n_agents  # after the positions and speeds of the agents
    n_right = (len(state) - right_at - from_ball) // 4
    left, right = state[: 2 * n_agents], state[right_at : right_at + 2 * n_right]
    places = [x.reshape(-1, 2) for x in (left, right, state[-from_ball:][:2])]
    if scaled:
        places = [x / PER_POSITION + ATTACK for x in places]
    left, right, ball = places
    return Scene(left, right, np.append(ball, state[-from_ball:][2]))


def _present(players: np.ndarray) -> np.ndarray:
    """Those of `players[11, 2]` that the scenario has."""
    return players[np.any(players != ABSENT, axis=1)]


def render(
    representation: str, n_agents: int, states: np.ndarray, path: Path, caption: str
) -> None:
    """Write an episode as a GIF, a frame for each state.

    Args:
      representation: a name in REPRESENTATIONS of envs/host/grf.py.
      n_agents: of the left team.
      states: `[L + 1, S]`.
      path: the GIF.
      caption: how it ended, shown in the last frame.
    """
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 4))
    figure.subplots_adjust(0.01, 0.02, 0.99, 0.92)

    def draw(t: int) -> None:
        axes.clear()
        _draw_pitch(axes)
        _draw_scene(axes, scene(representation, n_agents, states[t]))
        axes.set_title(caption if t == len(states) - 1 else f"step {t}", fontsize=10)

    gif.write(figure, path, range(len(states)), draw, fps=FPS)
    plt.close(figure)


def _draw_scene(axes: Axes, now: Scene) -> None:
    for team, color in zip((now.left, now.right), TEAM_COLORS, strict=True):
        axes.scatter(team[:, 0], team[:, 1], s=110, c=color, edgecolors="black", zorder=3)
    size = 30 + 60 * max(now.ball[2], 0)  # the higher the ball, the larger it is
    axes.scatter(now.ball[0], now.ball[1], s=size, c="white", edgecolors="black", zorder=4)


def _draw_pitch(axes: Axes) -> None:
    from matplotlib.patches import Circle, Rectangle

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
