"""A battle of SMAX as a GIF: where units stand, how much health they have, whom they shoot at.

JaxMARL's own visualiser steps the battle anew, one unit at a time, which takes minutes, and shows
neither health nor an outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jaxvff.envs import gif
from jaxvff.envs.smax_observer import Battle

if TYPE_CHECKING:
    from jaxmarl.environments.smax.smax_env import SMAX
    from jaxmarl.environments.smax.smax_env import State as SmaxState
    from matplotlib.collections import LineCollection

STEPS_PER_S = 4  # twice the speed of the game
FRAMES_PER_STEP, MOST_FRAMES = 3, 300  # a long battle has fewer frames a step, at least one
SIZE_IN = (4.8, 5.4)
MARGIN, LEAST_VIEW = 1.5, 10.0  # map units
COLORS = ("#2166ac", "#c0392b")  # allies, enemies
# Widths in points of the line from a unit to its target: it hit it in this step, or only aims.
SHOT, AIM = 2.2, 0.6


class Moment(NamedTuple):
    """What one frame shows of n units, allies first."""

    time: float  # env steps since the start
    position: np.ndarray  # [n, 2] map units
    health: np.ndarray  # [n] share of the full health
    alive: np.ndarray  # [n] bool
    lines: np.ndarray  # [k, 2, 2] from a unit to its target, map units
    widths: np.ndarray  # [k] of the lines, points
    shooter: np.ndarray  # [k] int, the unit that a line starts at


def render(smax: SMAX, battles: Battle, path: Path, caption: str) -> None:
    """Write an episode of L steps as `L * frames_per_step(L) + 1` frames, and hold the last one.

    Args:
      smax: JaxMARL's environment, for the units' types.
      battles: leaves `[L + 1, ...]`.
      path: the GIF.
      caption: how it ended, shown in the last frame.
    """
    n_steps = len(battles.last) - 1
    stage, per_step = Stage(smax, battles.smax), frames_per_step(n_steps)

    def draw(now: Moment) -> None:
        stage.show(now, caption if now.time == n_steps else "")

    frames = moments(smax, battles, per_step)
    gif.write(stage.figure, path, frames, draw, fps=STEPS_PER_S * per_step)


def frames_per_step(n_steps: int) -> int:
    """Frames from one env step to the next, in an episode of so many."""
    return max(1, min(FRAMES_PER_STEP, MOST_FRAMES // n_steps))


def moments(smax: SMAX, battles: Battle, per_step: int) -> Iterator[Moment]:
    """The start, then `per_step` moments of every step, the last of them the state after it.

    Args:
      smax: JaxMARL's environment.
      battles: leaves `[L + 1, ...]`, NumPy arrays.
      per_step: positions and health in between are interpolated.
    """
    state = battles.smax
    position, alive = state.unit_positions, state.unit_alive
    health = state.unit_health / np.asarray(smax.unit_type_health)[state.unit_types]
    none = np.zeros(0, int)  # in the start no unit attacks
    yield Moment(0.0, position[0], health[0], alive[0], np.zeros((0, 2, 2)), none, none)
    for t in range(1, len(alive)):
        shooter, target = aims(smax, alive[t - 1], battles.last[t])
        cooled = state.unit_weapon_cooldowns[t - 1] - state.unit_weapon_cooldowns[t]
        # A weapon that was not fired has cooled down for the whole step.
        fired = cooled[shooter] < (smax.world_steps_per_env_step - 0.5) * smax.time_per_step
        for part in np.arange(1, per_step + 1) / per_step:
            at = (1 - part) * position[t - 1] + part * position[t]
            yield Moment(
                time=t - 1 + part,
                position=at,
                health=(1 - part) * health[t - 1] + part * health[t],
                alive=alive[t - 1] if part < 1 else alive[t],
                lines=np.stack([at[shooter], at[target]], axis=1),
                widths=np.where(fired, SHOT, AIM),
                shooter=shooter,
            )


def aims(smax: SMAX, alive: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The living units that attack living ones, `[k]` int, and their targets, `[k]` int.

    Args:
      smax: JaxMARL's environment.
      alive: `[n]` bool.
      action: `[n]` int.
    """
    unit, n_allies = np.arange(len(action)), smax.num_allies
    nth = action - smax.num_movement_actions  # among the targets; below 0: no attack
    # Team 1 counts its targets backwards.
    target = np.where(unit < n_allies, nth + n_allies, n_allies - 1 - nth)
    shooter = unit[(nth >= 0) & alive & alive[np.where(nth >= 0, target, 0)]]
    return shooter, target[shooter]


class Stage:
    """A figure with an artist for everything that moves."""

    def __init__(self, smax: SMAX, state: SmaxState) -> None:
        """Place the units.

        Args:
          smax: JaxMARL's environment, for the units' types.
          state: of the whole episode, leaves `[L + 1, ...]`.
        """
        from matplotlib.colors import to_rgb
        from matplotlib.figure import Figure

        types, self.n_allies = state.unit_types[0], smax.num_allies
        self.radius = np.asarray(smax.unit_type_radiuses)[types]
        is_enemy = np.arange(len(types)) >= self.n_allies
        self.color = np.array([to_rgb(COLORS[int(team)]) for team in is_enemy])  # [n, 3]
        self.figure = Figure(SIZE_IN)
        self.axes = self.figure.add_axes((0.02, 0.06, 0.96, 0.96 * SIZE_IN[0] / SIZE_IN[1]))
        low, side = window(np.reshape(state.unit_positions, (-1, 2)))
        self.axes.set(xlim=(low[0], low[0] + side), ylim=(low[1], low[1] + side))
        self.axes.set(xticks=[], yticks=[], facecolor="#f4f1ea")
        self._add_bodies(np.asarray(state.unit_positions[0]))
        points_per_unit = 72 * 0.96 * SIZE_IN[0] / side
        self._add_letters([smax.unit_type_shorthands[k] for k in types], points_per_unit)
        self._add_texts(smax, set(types))

    def _add_bodies(self, position: np.ndarray) -> None:
        """Bodies at `position[n, 2]`, lines to their targets, and bars for their health."""
        from matplotlib.collections import EllipseCollection, LineCollection

        diameter = 2 * self.radius
        self.lines = LineCollection([], zorder=1)
        self.bodies = EllipseCollection(
            diameter,
            diameter,
            np.zeros_like(diameter),
            units="x",
            zorder=2,
            offsets=position,
            offset_transform=self.axes.transData,
        )
        self.full_bars = LineCollection([], colors="#00000059", lw=3, zorder=3)
        self.health_bars = LineCollection([], colors="#27a04b", lw=3, zorder=4)
        for moving in (self.lines, self.bodies, self.full_bars, self.health_bars):
            self.axes.add_collection(moving)

    def _add_letters(self, letters: list[str], points_per_unit: float) -> None:
        """A letter for the type of each unit, as large as its body."""
        style: dict[str, Any] = {
            "color": "w",
            "zorder": 5,
            "ha": "center",
            "va": "center_baseline",
            "weight": "bold",
            "clip_on": True,
        }
        self.letters = [
            self.axes.text(0, 0, letter, fontsize=1.4 * radius * points_per_unit, **style)
            for letter, radius in zip(letters, self.radius, strict=True)
        ]

    def _add_texts(self, smax: SMAX, types: set[int]) -> None:
        """The legend of the types below, and above it the time, the survivors and a caption."""
        names = (f"{smax.unit_type_shorthands[k]} {smax.unit_type_names[k]}" for k in types)
        self.figure.text(0.02, 0.02, "   ".join(sorted(names)), fontsize=8, color="#555555")
        head: dict[str, Any] = {"fontsize": 11, "weight": "bold"}
        self.time = self.figure.text(0.5, 0.965, "", ha="center", **head)
        self.allies = self.figure.text(0.02, 0.965, "", color=COLORS[0], **head)
        self.enemies = self.figure.text(0.98, 0.965, "", color=COLORS[1], ha="right", **head)
        self.caption = self.figure.text(0.5, 0.922, "", fontsize=10, ha="center")

    def show(self, now: Moment, caption: str) -> None:
        """Move everything to where it is now; the dead stay as shadows."""
        alpha = np.where(now.alive, 1.0, 0.12)
        self.bodies.set_offsets(now.position)
        self.bodies.set_facecolor(list(map(tuple, np.column_stack([self.color, alpha]))))
        self.lines.set_segments(list(now.lines))
        self.lines.set_color(self.color[now.shooter])
        self.lines.set_linewidth(list(now.widths))
        self._show_bars(self.health_bars, now, now.health)
        self._show_bars(self.full_bars, now, now.alive.astype(float))
        for letter, position, alive in zip(self.letters, now.position, now.alive, strict=True):
            letter.set_position(position)
            letter.set_visible(bool(alive))
        self.time.set_text(f"step {int(now.time)}")
        for text, name, alive in (
            (self.allies, "allies", now.alive[: self.n_allies]),
            (self.enemies, "enemies", now.alive[self.n_allies :]),
        ):
            text.set_text(f"{name} {alive.sum()} of {len(alive)}")
        self.caption.set_text(caption)

    def _show_bars(self, bars: LineCollection, now: Moment, share: np.ndarray) -> None:
        """Draw bars above the living, `share[n]` of the width of their bodies."""
        start = now.position + np.column_stack([-self.radius, self.radius + 0.3])
        end = start + np.outer(2 * self.radius * share, [1, 0])
        bars.set_segments(list(np.stack([start, end], axis=1)[now.alive]))


def window(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """The lower left corner `[2]` and the side of a square that holds `positions[k, 2]`."""
    low, high = positions.min(axis=0) - MARGIN, positions.max(axis=0) + MARGIN
    side = max(float(np.max(high - low)), LEAST_VIEW)
    return (low + high - side) / 2, side
