"""GIFs of greedy episodes, from the newest checkpoint of a run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import jax

from jaxvff import show, train
from jaxvff.plan import Group, Value
from jaxvff.types import UserError

KEYS = ("render", "seed", "episodes")
ENDS = {"win_rate": "won", "loss_rate": "lost"}  # others by their own name: timeout_rate, timeout


class Wish(NamedTuple):
    """What to draw of every sweep value."""

    seed: int | None  # None: the first
    episodes: int


def wish(options: dict[str, str]) -> Wish | None:
    """What the command line asks for; None: nothing is drawn.

    Raises:
      UserError: a value that makes no sense.
    """
    asked = options.get("render", "false").lower()
    if asked not in ("true", "false"):
        raise UserError(f"render={options['render']} must be true or false")
    if asked == "false":
        if extra := [key for key in KEYS[1:] if key in options]:
            raise UserError(
                f"{extra[0]}={options[extra[0]]} chooses what is drawn; add render=true"
            )
        return None
    for key in KEYS[1:]:
        if not options.get(key, "1").isdecimal():
            raise UserError(f"{key}={options[key]} must be a whole number, such as 1")
    if int(options.get("episodes", 1)) < 1:
        raise UserError(f"episodes={options['episodes']} must be 1 or more")
    seed = int(options["seed"]) if "seed" in options else None
    return Wish(seed, int(options.get("episodes", 1)))


def check(groups: list[Group], wanted: Wish) -> None:
    """Refuse what cannot be drawn, before anything compiles.

    Raises:
      UserError: an environment cannot be drawn, or no sweep value has the seed.
    """
    values = [value for group in groups for value in group.values]
    if dull := [value.config.env for value in values if value.env.render is None]:
        raise UserError(
            f"{dull[0]['kind']}/{show.task(dull[0])} cannot be drawn: its environment has no "
            "renderer; evaluate without render=true"
        )
    if not any(lanes(group, wanted.seed) for group in groups):
        first, n = values[0].config.seed, values[0].config.seeds
        raise UserError(
            f"seed={wanted.seed} is none of the run's; choose one of {first} to {first + n - 1}"
        )


def lanes(group: Group, seed: int | None) -> list[tuple[Value, int, int]]:
    """`(value, seed, lane)` for each sweep value that has the seed."""
    found = []
    for i, value in enumerate(group.values):
        first, n = value.config.seed, value.config.seeds
        mine = first if seed is None else seed
        if first <= mine < first + n:
            found.append((value, mine, i * n + mine - first))
    return found


def gifs(
    folder: Path,
    group: Group,
    program: train.Program,
    carry: train.Carry,
    lane: train.Lane,
    step: int,
    wanted: Wish,
) -> Iterator[str]:
    """Write `<folder>/greedy_*.gif`, and say of each where it is and how the episode ended.

    Args:
      folder: of the group.
      group: from `plan`.
      program: of the group.
      carry: from a checkpoint.
      lane: all lanes of the group.
      step: env steps per seed, for the name.
      wanted: from `wish`.
    """
    chosen = lanes(group, wanted.seed)
    if not chosen:
        return
    places = [place for _, _, place in chosen]
    played = program.record(carry, lane, places, wanted.episodes)
    for i, (value, seed, _) in enumerate(chosen):
        for j in range(wanted.episodes):
            play = jax.tree.map(lambda x, at=(i, j): x[at], played)
            episode = jax.tree.map(lambda x, n=int(play.length): x[: n + 1], play.states)
            name = ["greedy", str(step), f"{i:02d}_{_label(value)}" if value.label else ""]
            name += [f"seed{seed}", f"episode{j}" if wanted.episodes > 1 else ""]
            path = folder / f"{'_'.join(filter(None, name))}.gif"
            caption = how_it_ended(play)
            _write(value, episode, path, caption)
            yield f"{path}: {caption}"


def how_it_ended(play: train.Recording) -> str:
    """won, return 1.53, 23 steps."""
    rates = {k: v for k, v in play.results.items() if k.endswith("_rate")}
    ends = [ENDS.get(k, k.removesuffix("_rate")) for k, v in rates.items() if v == 1]
    return ", ".join([*ends, f"return {play.return_:.2f}", f"{int(play.length)} steps"])


def _label(value: Value) -> str:
    """The sweep's label as part of a file name."""
    label = ",".join(f"{k}={v}" for k, v in value.label.items())
    return re.sub(r"[^\w.,=+-]+", "-", label)[:60]


def _write(value: Value, episode: object, path: Path, caption: str) -> None:
    """Whole or not at all."""
    assert value.env.render is not None
    partial = path.with_suffix(".partial.gif")
    value.env.render(episode, partial, caption)
    partial.replace(path)
