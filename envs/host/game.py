"""What a game is to its worker: one team, one episode after the other, NumPy arrays."""

from __future__ import annotations

import importlib
import importlib.util
import os
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

LARGEST = float(np.finfo(np.float32).max)


class Spec(NamedTuple):
    """The sizes of a game: what jaxvff.core.types.EnvSpec holds, and the names of its results."""

    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int  # steps; an episode that goes on is truncated there
    results: tuple[str, ...]  # the keys of Outcome.results


class View(NamedTuple):
    """What a game shows."""

    obs: np.ndarray  # [A, O] float32
    state: np.ndarray  # [S] float32
    avail: np.ndarray  # [A, U] bool, True = the action may be taken; at least one per agent


class Outcome(NamedTuple):
    """What a step brought."""

    reward: float  # of the team
    terminated: bool  # the episode reached a terminal state
    truncated: bool  # the episode was cut short
    # How the episode went; read where it ends.
    results: dict[str, float] = {}  # noqa: RUF012  (a default that nobody writes to)


class Game:
    """A game: `spec` after construction, then episodes.

    `reset() -> View` begins an episode. `step(action) -> (View, Outcome)` goes on, and shows the
    final observation with the last outcome. `close()` ends what the game started.
    """

    spec: Spec

    def reset(self) -> View:
        """Begin an episode."""
        raise NotImplementedError

    def step(self, action: np.ndarray) -> tuple[View, Outcome]:
        """One step of all agents; `action[A]` int."""
        raise NotImplementedError

    def reseed(self, seed: int) -> None:
        """From the next reset on, play what a game made with this seed plays.

        A game that cannot, plays on as it is. A run on it still resumes, but not bit for bit.
        """

    def close(self) -> None:
        """End whatever runs beside this process."""


class Missing(Exception):
    """The game is not installed; the text says how to install it."""


class Refused(ValueError):
    """The game cannot be played as it is; the text says why, and what to do about it."""


class Crashed(Exception):
    """The game broke: this episode is lost, and so is the process that plays it."""


def described(error: BaseException) -> str:
    """An error in a line, with the file and line where it happened; a refusal as it is."""
    text = " ".join(str(error).split())
    if isinstance(error, Refused):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):  # its text says where, and the frame is the importer's
        where = ""
    return f"{type(error).__name__}: {text}{where}"


def make(game: str, options: Mapping[str, Any], seed: int) -> Game:
    """A game, made by the `make(seed, **options)` of its module.

    Args:
      game: the name of a module here, or the path of a file like one: `path/to/file.py`.
      options: as the module has them.
      seed: what all that is random in the game follows from.

    Raises:
      Missing: something it needs is not installed.
      Refused: it cannot be played, or not with these options.
    """
    if game.endswith(".py"):
        module = _from_file(Path(game))
    else:
        module = importlib.import_module(f".{game}", __package__)
    factory: Callable[..., Game] = module.make
    return factory(seed, **options)


def _from_file(path: Path) -> ModuleType:
    """A file as a module, wherever it is."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.exists():
        raise Missing(f"{path} does not exist")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(spec: Spec, view: View, outcome: Outcome) -> str:
    """What is wrong with a step, as `field: what`; empty: nothing.

    Args:
      spec: the sizes that the learner was compiled for.
      view: what the game shows.
      outcome: what the step brought.
    """
    shapes = {
        "obs": (spec.n_agents, spec.obs_size),
        "state": (spec.state_size,),
        "avail": (spec.n_agents, spec.n_actions),
    }
    for field, shape in shapes.items():
        got = np.shape(getattr(view, field))
        if got != shape:
            return f"{field} has shape {list(got)}, expected {list(shape)}"
    for field in ("obs", "state"):
        bad = ~np.isfinite(getattr(view, field))
        if bad.any():
            where = [int(i) for i in np.argwhere(bad)[0]]
            return f"{field}{where} is {getattr(view, field)[tuple(where)]}"
    stuck = np.flatnonzero(~np.any(view.avail, axis=1))
    if stuck.size:
        return f"avail: agent {stuck[0]} has no available action"
    # Shared memory holds it in 32 bits. Written so that NaN is caught as well.
    if not abs(outcome.reward) <= LARGEST:
        return f"reward is {outcome.reward}"
    return ""
