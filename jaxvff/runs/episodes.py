"""Recorded episodes: an .npz file with a schema, written by `record`, learned from by `offline=`.

Every array has a leading [N], an episode each. An episode of L transitions takes L + 1 slots, and
padding follows: see core.types.Segment, whose fields these are. `schema` is JSON as a text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain, whole
from jaxvff.core.types import Env, EnvSpec, HostEnv, Segment
from jaxvff.policies import names
from jaxvff.runs import episode_checks
from jaxvff.runs.episode_checks import SHAPES

FORMAT = "jaxvff episodes 1"  # another number where an older reader would learn wrongly
# What NumPy, zlib and json raise of a damaged file.
MISTAKES = (
    OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, RecursionError,
    NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
MEANINGS = {  # of the arrays, for people
    "obs": "what each agent sees; padding: zeros",
    "state": "the whole game, for mixers",
    "avail": "bool, actions that may be taken",
    "action": "int; in the last slot of an episode the one that would have been taken",
    "reward": "of the transition to the next slot, env units",
    "terminated": "bool, that transition ended in a terminal state",
    "is_first": "bool, the first slot of an episode, and padding",
    "mask": "bool, the transition to the next slot is a real one",
    "return": "sum of the rewards",
    "length": "int, transitions",
}


class Recorded(NamedTuple):
    """Episodes to learn from."""

    segments: Segment  # NumPy arrays [N, T, ...]
    digest: bytes  # of all of them

    @property
    def n_episodes(self) -> int:
        """N."""
        return len(self.segments.reward)


def save(
    path: Path, segments: Segment, ends: Mapping[str, np.ndarray], about: Mapping[str, Any]
) -> None:
    """Write a file, whole or not at all.

    Args:
      path: a new one; nothing is written over.
      segments: an episode each, `[N, T, ...]`.
      ends: "return", "length" and the results of each episode, `[N]`.
      about: where they are from, as JSON values.

    Raises:
      UserError: the file exists, or cannot be written.
    """
    arrays: dict[str, Any] = {name: np.asarray(getattr(segments, name)) for name in SHAPES}
    arrays |= {name: np.asarray(x) for name, x in ends.items()}
    a, o, u = arrays["obs"].shape[2], arrays["obs"].shape[3], arrays["avail"].shape[3]
    sizes = dict(zip("NTAOU", (*arrays["obs"].shape[:2], a, o, u), strict=True))
    fields = {
        name: {
            "shape": [*SHAPES.get(name, "N")],
            "dtype": str(x.dtype),
            "what": MEANINGS.get(name, "a result of the episode"),
        }
        for name, x in arrays.items()
    }
    sizes["S"] = arrays["state"].shape[2]
    schema = {"format": FORMAT, "sizes": sizes, "fields": fields, **about}
    try:
        if path.exists():
            raise UserError(f"to={path} exists; name a new file")
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, schema=json.dumps(plain(schema)), **arrays)
    except OSError as error:
        raise UserError(f"to={path} cannot be written: {error.strerror}") from error


def read(path: Path, env: Env | HostEnv, n_slots: int) -> Recorded:
    """The episodes of a file, in segments of `n_slots`.

    Args:
      path: of a file that `save` wrote, or another one with the same fields.
      env: that is learned for.
      n_slots: `segment_length`.

    Raises:
      UserError: it cannot be read, is of another environment, or holds no whole episodes that fit
        (runs/episode_checks.py).
    """
    try:
        about = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    recorded, told = _read(path, about.st_mtime_ns, about.st_size, env.spec, n_slots)
    if other := names.difference(told, env):
        raise UserError(
            f"offline={path} is of another environment: {other}; take episodes of this one"
        )
    return recorded


@functools.lru_cache(maxsize=2)  # a sweep asks for one file many times
def _read(
    path: Path, modified: int, size: int, spec: EnvSpec, n_slots: int
) -> tuple[Recorded, dict[str, Any]]:
    """The episodes and the schema; `modified` and `size` tell one version from another."""
    try:
        with np.load(path, allow_pickle=False) as file:
            told = json.loads(str(file["schema"]))
            if told["format"] != FORMAT:
                raise ValueError(f"it has the format {told['format']!r}, and not {FORMAT!r}")
            arrays: dict[str, np.ndarray] = {name: file[name] for name in SHAPES}
    except MISTAKES as error:
        raise _unreadable(path, error) from error
    episode_checks.check(path, arrays, spec, n_slots)
    digest = hashlib.sha256()
    for name, x in arrays.items():
        digest.update(f"{name}{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return Recorded(_padded(arrays, n_slots), digest.digest()), told


def _unreadable(path: Path, error: Exception) -> UserError:
    return UserError(
        f"offline={path} cannot be read: {error}; make such a file with jaxvff record "
        "run=<run folder> to=<file>.npz episodes=1000"
    )


def _padded(arrays: Mapping[str, np.ndarray], n_slots: int) -> Segment:
    """The same in `n_slots` slots: padding is added, or cut off."""

    def fit(name: str, x: np.ndarray) -> np.ndarray:
        n, t = x.shape[:2]
        # float64 would become float32 on the device, and rewards of integers are added to values.
        kind = np.float32 if name == "reward" or x.dtype == np.float64 else x.dtype
        out = np.full((n, n_slots, *x.shape[2:]), name in ("avail", "is_first"), kind)
        out[:, : min(t, n_slots)] = x[:, :n_slots]
        return out

    fields: dict[str, Any] = {name: fit(name, arrays[name]) for name in SHAPES}
    return Segment(**fields)
