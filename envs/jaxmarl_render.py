"""Episodes of JaxMARL's environments as GIFs, as far as JaxMARL has something to draw them with."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxvff.core.types import EnvState
from jaxvff.envs import gif

FPS = 8  # env steps a second

# (JaxMARL's environment, states of one episode with leaves [L + 1, ...], the .gif to write, how
# the episode ended). The states are triples: JaxMARL's state, observations,
# env steps.
Renderer = Callable[[Any, tuple[EnvState, ...], Path, str], None]


def renderer(name: str) -> Renderer | None:
    """What draws the environment `name`; None: JaxMARL has nothing to draw it with."""
    if name.startswith("MPE_"):
        return mpe
    return overcooked if name == "overcooked" else None


def mpe(game: Any, states: tuple[EnvState, ...], path: Path, caption: str) -> None:
    """JaxMARL's MPEVisualizer: agents and landmarks on the plane, and what agents say."""
    from jaxmarl.environments.mpe.mpe_visualizer import MPEVisualizer
    from matplotlib import pyplot as plt

    sequence = _one_by_one(states[0])
    with contextlib.redirect_stdout(io.StringIO()):  # it prints whether agents speak
        shown = MPEVisualizer(game, sequence)

    def draw(t: int) -> None:
        shown.update(t)
        shown.ax.set_title(caption if t == len(sequence) - 1 else "")

    gif.write(shown.fig, path, range(len(sequence)), draw, fps=FPS)
    plt.close(shown.fig)


def overcooked(game: Any, states: tuple[EnvState, ...], path: Path, caption: str) -> None:
    """The kitchen, tile by tile, as JaxMARL's OvercookedVisualizer draws it.

    Not through its `animate`, which wants imageio.
    """
    from jaxmarl.viz.overcooked_visualizer import OvercookedVisualizer
    from matplotlib.figure import Figure

    border = game.agent_view_size - 2
    sequence = _one_by_one(states[0])

    def tiles(state: EnvState) -> np.ndarray:
        return OvercookedVisualizer._render_grid(
            state.maze_map[border:-border, border:-border],
            highlight_mask=None,
            agent_dir_idx=state.agent_dir_idx,
            agent_inv=state.agent_inv,
        )

    first = tiles(sequence[0])
    figure = Figure((4, 4 * len(first) / len(first[0]) + 0.4))
    axes = figure.add_axes((0, 0, 1, 1 - 0.4 / figure.get_figheight()))
    axes.axis("off")
    image = axes.imshow(first)

    def draw(t: int) -> None:
        image.set_data(tiles(sequence[t]))
        axes.set_title(caption if t == len(sequence) - 1 else f"step {t}", fontsize=10)

    gif.write(figure, path, range(len(sequence)), draw, fps=FPS)


def _one_by_one(states: EnvState) -> list[EnvState]:
    """The L + 1 states of an episode, from a tree with leaves `[L + 1, ...]`."""
    n = len(jax.tree.leaves(states)[0])
    return [jax.tree.map(lambda x, t=t: x[t], states) for t in range(n)]
