"""Recorded episodes: an .npz file with a schema, written by `record`, learned from by `offline=`.

Every array has a leading [N], an episode each. An episode of L transitions takes L + 1 slots, and
padding follows: see core.types.Segment, whose fields these are. `schema` is JSON as a text.
"""

from __future__ import annotations

import functools
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain, whole
from jaxvff.core.types import EnvSpec, Segment

FORMAT = "jaxvff episodes 1"  # another number where an older reader would learn wrongly
SHAPES = {  # of the fields, T slots; and what they are, for people
    "obs": ("T", "A", "O"),
    "state": ("T", "S"),
    "avail": ("T", "A", "U"),
    "action": ("T", "A"),
    "reward": ("T",),
    "terminated": ("T",),
    "is_first": ("T",),
    "mask": ("T",),
}
MEANINGS = {
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
            "shape": ["N", *SHAPES.get(name, ())],
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


def read(path: Path, spec: EnvSpec, n_slots: int) -> Recorded:
    """The episodes of a file, in segments of `n_slots`.

    Args:
      path: of a file that `save` wrote, or another one with the same fields.
      spec: of the environment that is learned for.
      n_slots: `segment_length`.

    Raises:
      UserError: it cannot be read, is of other sizes, or its episodes are too long.
    """
    try:
        about = path.stat()
        segments, digest = _read(path, about.st_mtime_ns, about.st_size)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"offline={path} cannot be read: {error}; make such a file with jaxvff record "
            "run=<run folder> to=<file>.npz episodes=1000"
        ) from error
    _check(path, segments, spec, n_slots)
    return Recorded(_padded(segments, n_slots), digest)


@functools.lru_cache(maxsize=2)  # a sweep asks for one file many times
def _read(path: Path, modified: int, size: int) -> tuple[Segment, bytes]:
    """The fields of a file, and a digest; `modified` and `size` tell one version from another."""
    with np.load(path, allow_pickle=False) as file:
        schema = json.loads(str(file["schema"]))
        if schema["format"] != FORMAT:
            raise ValueError(f"it has the format {schema['format']!r}, and not {FORMAT!r}")
        arrays: dict[str, Any] = {name: file[name] for name in SHAPES}
    digest = hashlib.sha256()
    for name, x in arrays.items():
        digest.update(f"{name}{x.dtype}{x.shape}".encode() + np.ascontiguousarray(x).tobytes())
    return Segment(**arrays), digest.digest()


def _check(path: Path, segments: Segment, spec: EnvSpec, n_slots: int) -> None:
    n, t = segments.reward.shape
    a, u, o, s = spec.n_agents, spec.n_actions, spec.obs_size, spec.state_size
    sizes = {"T": t, "A": a, "U": u, "O": o, "S": s}
    for name, letters in SHAPES.items():
        found, wanted = getattr(segments, name).shape, (n, *(sizes[letter] for letter in letters))
        if found != wanted:
            raise UserError(
                f"offline={path}: {name} has the shape {list(found)}, and the environment needs "
                f"{list(wanted)}; take episodes of this environment"
            )
    if n == 0:
        raise UserError(f"offline={path} has no episode; record some")
    if not (segments.action >= 0).all() or not (segments.action < spec.n_actions).all():
        raise UserError(f"offline={path}: action has numbers that are none of {spec.n_actions}")
    longest = 1 + int(segments.mask.sum(axis=1).max())
    if longest > n_slots:
        raise UserError(
            f"segment_length={n_slots} cannot hold the longest episode of offline={path}; set "
            f"segment_length={longest} or more"
        )


def _padded(segments: Segment, n_slots: int) -> Segment:
    """The same in `n_slots` slots: padding is added, or cut off."""

    def fit(x: np.ndarray, fill: object) -> np.ndarray:
        n, t = x.shape[:2]
        out = np.full((n, n_slots, *x.shape[2:]), fill, x.dtype)
        out[:, : min(t, n_slots)] = x[:, :n_slots]
        return out

    fills = {"avail": True, "is_first": True}
    fields: dict[str, Any] = {
        name: fit(np.asarray(getattr(segments, name)), fills.get(name, 0)) for name in SHAPES
    }
    return Segment(**fields)
