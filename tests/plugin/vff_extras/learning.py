"""A bonus, an explorer and a sink."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxvff.core.types import Array, Segment, Traced, Tree
from jaxvff.learning.bonus import Bonus
from jaxvff.learning.options import BonusOptions
from jaxvff.runs.sinks import Destination


def half(options: BonusOptions) -> Bonus:
    """One half for every transition."""

    def init(key: Array, state_size: int) -> Tree:
        return ()

    def reward(state: Tree, batch: Segment) -> Array:
        return jnp.where(batch.mask, 0.5, 0.0)

    def update(state: Tree, batch: Segment, lr: Array) -> Tree:
        return state

    return Bonus(init, reward, update)


def uniform(key: Array, q: Array, avail: Array, traced: Traced, env_steps: Array) -> Array:
    """Any available action `[A]`, each as likely."""
    return jax.random.categorical(key, jnp.where(avail, 0.0, -jnp.inf), axis=-1)


class Lines:
    """A line of text per report."""

    def __init__(self, destination: Destination) -> None:
        self._path = destination.folder / "lines.txt"

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """The step and the number of seeds."""
        with self._path.open("a") as file:
            file.write(f"{step} {len(seeds)}\n")

    def close(self) -> None:
        """The file is closed after every line."""
