"""Options of playing: how much is collected, and how agents explore; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import AllBut, option
from jaxvff.core.registry import OpenRegistry, Registry

# (key, q [A, U], avail [A, U], traced options, env steps) -> actions [A]
EXPLORERS: Registry = OpenRegistry(
    {
        "epsilon_greedy": "jaxvff.playing.explore:epsilon_greedy_explorer",
        "team_epsilon_greedy": "jaxvff.playing.explore:team_epsilon_greedy_explorer",
        "softmax": "jaxvff.playing.explore:softmax_explorer",
    },
    "jaxvff.explorers",
)
_EPSILON = {"explore": AllBut("softmax")}


@dataclass(frozen=True)
class CollectionOptions:
    """How much experience an iteration collects."""

    n_envs: int = option(
        1, "environments per seed; on the host also segments of an iteration", low=1
    )
    segment_length: int = option(
        2, "length of a segment; an episode of L steps takes L + 1", unit="slots", low=2
    )
    offline: str | None = option(
        None,
        "a file from jaxvff record: an iteration draws n_envs of its episodes at random and plays "
        "nothing; greedy evaluation plays as ever",
        file=True,
    )

    @property
    def steps_per_iteration(self) -> int:
        """Env steps of one collection (an upper bound where episodes are short)."""
        return self.n_envs * (self.segment_length - 1)


@dataclass(frozen=True)
class ExplorerOptions:
    """How actions are picked while experience is collected."""

    explore: str = option("epsilon_greedy", "behaviour policy", names=EXPLORERS)
    epsilon_start: float = option(1.0, "ε at step 0", low=0, high=1, traced=True, needs=_EPSILON)
    epsilon_end: float = option(
        0.05, "ε after epsilon_steps", low=0, high=1, traced=True, needs=_EPSILON
    )
    epsilon_steps: int = option(
        5_000,
        "linear from start to end",
        unit="env steps",
        low=1,
        traced=True,
        needs=_EPSILON,
    )
    temperature: float = option(
        1.0,
        "of the softmax",
        unit="units of the utilities",
        low=1e-6,
        high=1e6,
        traced=True,
        needs={"explore": ("softmax",)},
    )
