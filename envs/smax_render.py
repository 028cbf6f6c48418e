"""A battle of SMAX as a GIF: who stands where, how hurt, and whom they shoot at.

JaxMARL's own visualiser steps the battle anew, one unit at a time, which takes minutes, and shows
neither health nor an outcome.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvff.envs import gif

STEPS_PER_S = 4  # twice the speed of the game
FRAMES_PER_STEP, MOST_FRAMES = 3, 300  # a long battle has fewer frames a step, at least one
SIZE_IN = (4.8, 5.4)
MARGIN, LEAST_VIEW = 1.5, 10.0  # map units
COLORS = ("#2166ac", "#c0392b")  # allies, enemies
SHOT, AIM = 2.2, 0.6  # line widths in points: hit the target in this step, or only has it as target


class Moment(NamedTuple):
    """What one frame shows of n units, allies first."""

    time: float  # env steps since the start
    position: np.ndarray  # [n, 2] map units
    health: np.ndarray  # [n] share of the full health
    alive: np.ndarray  # [n] bool
    lines: np.ndarray  # [k, 2, 2] from shooter to target
    widths: np.ndarray  # [k] of the lines
    shooter: np.ndarray  # [k] int


def render(smax: Any, battles: Any, path: Path, caption: str) -> None:
    """Write an episode of L steps as `L * frames_per_step(L) + 1` frames, and hold the last one.

    Args:
      smax: JaxMARL's SMAX, for the units' types.
      battles: smax.Battle with leaves `[L + 1, ...]`.
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


def moments(smax: Any, battles: Any, per_step: int) -> Iterator[Moment]:
    """The start, then `per_step` moments of every step, the last of them the state after it.

    Args:
      smax: JaxMARL's SMAX.
      battles: smax.Battle with leaves `[L + 1, ...]`, as NumPy arrays.
      per_step: positions and health in between are interpolated.
    """
    state = battles.smax
    position, alive = state.unit_positions, state.unit_alive
    health = state.unit_health / np.asarray(smax.unit_type_health)[state.unit_types]
    nobody = np.zeros(0, int)
    yield Moment(0.0, position[0], health[0], alive[0], np.zeros((0, 2, 2)), nobody, nobody)
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


def aims(smax: Any, alive: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shooters `[k]` and their targets `[k]`, those who are `alive[n]` and do `action[n]`."""
    unit, n_allies = np.arange(len(action)), smax.num_allies
    place = action - smax.num_movement_actions
    # Team 1 counts its targets backwards.
    target = np.where(unit < n_allies, place + n_allies, n_allies - 1 - place)
    shooter = unit[(place >= 0) & alive & alive[np.where(place >= 0, target, 0)]]
    return shooter, target[shooter]


class Stage:
    """A figure with an artist for everything that moves."""

    def __init__(self, smax: Any, state: Any) -> None:
        """Place the units; `state` is that of the whole episode, `[L + 1, ...]`."""
        from matplotlib.collections import EllipseCollection, LineCollection
        from matplotlib.colors import to_rgb
        from matplotlib.figure import Figure

        types, n_allies = state.unit_types[0], smax.num_allies
        self.n_allies, self.radius = n_allies, np.asarray(smax.unit_type_radiuses)[types]
        self.color = np.array([to_rgb(COLORS[i >= n_allies]) for i in range(len(types))])
        self.figure = Figure(SIZE_IN)
        self.axes = self.figure.add_axes((0.02, 0.06, 0.96, 0.96 * SIZE_IN[0] / SIZE_IN[1]))
        low, side = window(state.unit_positions.reshape(-1, 2))
        self.axes.set(xlim=(low[0], low[0] + side), ylim=(low[1], low[1] + side))
        self.axes.set(xticks=[], yticks=[], facecolor="#f4f1ea")
        self.lines = LineCollection([], zorder=1)
        size = 2 * self.radius
        self.bodies = EllipseCollection(
            size, size, np.zeros_like(size), units="x", zorder=2,
            offsets=state.unit_positions[0], offset_transform=self.axes.transData,
        )  # fmt: skip
        self.full = LineCollection([], colors="#00000059", lw=3, zorder=3)
        self.left = LineCollection([], colors="#27a04b", lw=3, zorder=4)
        for moving in (self.lines, self.bodies, self.full, self.left):
            self.axes.add_collection(moving)
        points_per_unit = 72 * 0.96 * SIZE_IN[0] / side
        letters = [smax.unit_type_shorthands[k] for k in types]
        self.letters = [
            self.axes.text(0, 0, letter, color="w", fontsize=1.4 * r * points_per_unit, zorder=5,
                           ha="center", va="center_baseline", weight="bold", clip_on=True)
            for letter, r in zip(letters, self.radius, strict=True)
        ]  # fmt: skip
        names = (f"{smax.unit_type_shorthands[k]} {smax.unit_type_names[k]}" for k in set(types))
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
        start = now.position + np.column_stack([-self.radius, self.radius + 0.3])
        ends = [start + np.outer(2 * self.radius * k, [1, 0]) for k in (now.health, now.alive)]
        for bars, end in zip((self.left, self.full), ends, strict=True):
            bars.set_segments(list(np.stack([start, end], axis=1)[now.alive]))
        for letter, place, alive in zip(self.letters, now.position, now.alive, strict=True):
            letter.set_position(place)
            letter.set_visible(bool(alive))
        self.time.set_text(f"step {int(now.time)}")
        for text, name, mine in (
            (self.allies, "allies", now.alive[: self.n_allies]),
            (self.enemies, "enemies", now.alive[self.n_allies :]),
        ):
            text.set_text(f"{name} {mine.sum()} of {len(mine)}")
        self.caption.set_text(caption)


def window(positions: np.ndarray) -> tuple[np.ndarray, float]:
    """The lower left corner `[2]` and the side of a square that holds `positions[k, 2]`."""
    low, high = positions.min(axis=0) - MARGIN, positions.max(axis=0) + MARGIN
    side = max(float(np.max(high - low)), LEAST_VIEW)
    return (low + high - side) / 2, side
