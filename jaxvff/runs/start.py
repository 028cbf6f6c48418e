"""Parameters that the lanes of a run begin with, in place of fresh ones; and their file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from jaxvff.core.errors import UserError
from jaxvff.core.files import whole


class Start(NamedTuple):
    """Parameters of S seeds of another run, or (S = 1, no seeds) of a policy."""

    seeds: tuple[int, ...]  # their numbers; empty: what there is is for all seeds
    leaves: dict[str, np.ndarray]  # "utility/params/Dense_0/kernel": [S, ...]

    def row(self, seed: int) -> int:
        """Which of the S a seed begins with: that of its own number, or one in turn."""
        if not self.seeds:
            return 0
        return self.seeds.index(seed) if seed in self.seeds else seed % len(self.seeds)

    def digest(self) -> bytes:
        """Changes with any parameter."""
        digest = hashlib.sha256(repr(self.seeds).encode())
        for name, array in sorted(self.leaves.items()):
            digest.update(f"{name}{array.shape}".encode() + array.tobytes())
        return digest.digest()

    def save(self, path: Path) -> None:
        """Write a .safetensors file, whole or not at all."""
        with whole(path) as partial:
            partial.write_bytes(save(self.leaves, {"seeds": json.dumps(self.seeds)}))


def read(path: Path) -> Start:
    """What `save` wrote.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with safe_open(path, "numpy") as file:
            seeds = json.loads((file.metadata() or {}).get("seeds", "[]"))
            return Start(tuple(seeds), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}; restore it from a copy") from error
