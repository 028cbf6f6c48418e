"""Films of greedy episodes, GIF or MP4, from the newest checkpoint of a run."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxvff.core.errors import UserError, extra
from jaxvff.core.files import whole
from jaxvff.core.types import EnvState
from jaxvff.reports import records
from jaxvff.runs.learned import Trained
from jaxvff.runs.plan import Job, SweepValue
from jaxvff.training.program import Program, Recording

ENDS = {"win_rate": "won", "loss_rate": "lost"}  # others by their own name: timeout_rate, timeout
LONGEST_LABEL = 60  # characters of a sweep value's label in the name of a file


class Wish(NamedTuple):
    """What to draw of every sweep value."""

    seed: int | None  # None: the first
    episodes: int
    suffix: str  # of the files: gif or mp4


class Drawn(NamedTuple):
    """A sweep value, the seed of it that is drawn, and the lane of that seed."""

    value: SweepValue
    seed: int
    lane: int  # in [0, K)


def wish(options: Mapping[str, str]) -> Wish | None:
    """What the command line asks for; None: nothing is drawn.

    Args:
      options: the texts of `render`, `seed` and `episodes`, of those that were given.

    Raises:
      UserError: a value that makes no sense.
    """
    render = options.get("render", "false").lower()
    if render not in ("true", "false", "gif", "mp4"):
        raise UserError(f"render={options['render']} must be true (a GIF), mp4 or false")
    choices = {key: options[key] for key in ("seed", "episodes") if key in options}
    if render == "false":
        for key, text in choices.items():
            raise UserError(f"{key}={text} chooses what is drawn; add render=true")
        return None
    for key, text in choices.items():
        if not text.isdecimal():
            raise UserError(f"{key}={text} must be a whole number, such as 1")
    numbers = {key: int(text) for key, text in choices.items()}
    suffix = "mp4" if render == "mp4" else "gif"
    if suffix == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError(
            "render=mp4 needs the package imageio-ffmpeg, which cannot be imported; "
            f"{extra('mp4')}, or write render=true for a GIF"
        )
    asked = Wish(numbers.get("seed"), numbers.get("episodes", 1), suffix)
    if asked.episodes < 1:
        raise UserError(f"episodes={choices['episodes']} must be 1 or more")
    return asked


def check(jobs: Sequence[Job], asked: Wish) -> None:
    """Refuse what cannot be drawn, before anything compiles.

    Raises:
      UserError: an environment cannot be drawn, or no sweep value has the seed.
    """
    values = [value for job in jobs for value in job.values]
    if without_renderer := [value.config.env for value in values if value.env.render is None]:
        env = without_renderer[0]
        raise UserError(
            f"{records.env_name(env)} cannot be drawn: its environment has no "
            "renderer; evaluate without render=true"
        )
    if not any(drawn(job, asked.seed) for job in jobs):
        seeds = values[0].seeds
        raise UserError(
            f"seed={asked.seed} is none of the run's; choose one of {seeds[0]} to {seeds[-1]}"
        )


def drawn(job: Job, seed: int | None) -> list[Drawn]:
    """What is drawn of each sweep value that has the seed; None: of each its first seed."""
    chosen = []
    for i, value in enumerate(job.values):
        number = value.seeds[0] if seed is None else seed
        if number in value.seeds:
            lane = i * len(value.seeds) + value.seeds.index(number)
            chosen.append(Drawn(value, number, lane))
    return chosen


def gifs(folder: Path, job: Job, program: Program, trained: Trained, asked: Wish) -> Iterator[str]:
    """Write `<folder>/greedy_*.gif` (or .mp4); say where each is, and how its episode ended.

    Args:
      folder: of the job's files.
      job: from an old run.
      program: of the job.
      trained: the job's newest checkpoint.
      asked: from `wish`.
    """
    chosen = drawn(job, asked.seed)
    if not chosen:
        return
    lanes = [each.lane for each in chosen]
    recording = program.record(trained.carry, trained.lane, lanes, asked.episodes)
    for i, (value, seed, _) in enumerate(chosen):
        for j in range(asked.episodes):
            episode = jax.tree.map(lambda x, at=(i, j): x[at], recording)
            length = int(episode.length)
            states = jax.tree.map(lambda x, n=length: x[: n + 1], episode.states)
            name = ["greedy", str(trained.step(job))]
            name += [f"{i:02d}_{_label(value)}"] if value.label else []
            name += [f"seed{seed}"]
            name += [f"episode{j}"] if asked.episodes > 1 else []
            path, caption = folder / f"{'_'.join(name)}.{asked.suffix}", how_it_ended(episode)
            _write(value, states, path, caption)
            yield f"{path}: {caption}"


def how_it_ended(episode: Recording) -> str:
    """`won, return 1.53, 23 steps`, of a recording of one episode."""
    rates = {k: v for k, v in episode.results.items() if k.endswith("_rate")}
    ends = [ENDS.get(k, k.removesuffix("_rate")) for k, v in rates.items() if v == 1]
    return ", ".join([*ends, f"return {episode.return_:.2f}", f"{int(episode.length)} steps"])


def _label(value: SweepValue) -> str:
    """The label of a sweep value as part of a file's name."""
    label = ",".join(f"{k}={v}" for k, v in value.label.items())
    return re.sub(r"[^\w.,=+-]+", "-", label)[:LONGEST_LABEL]


def _write(value: SweepValue, states: EnvState, path: Path, caption: str) -> None:
    """Draw the states `[L + 1, ...]` of an episode; the file is written whole or not at all."""
    assert value.env.render is not None  # `check` has refused the others
    with whole(path) as partial:
        value.env.render(states, partial, caption)
