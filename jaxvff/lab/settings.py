"""What the stability lab is asked: one dataclass of options, read from `key=value`.

Light to import, so that a misspelt key is answered before JAX and the solvers are imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import (
    AllBut,
    check,
    check_keys,
    from_text,
    idle,
    option,
    options_of,
    shown,
)
from jaxvff.core.registry import Registry
from jaxvff.envs import payoffs
from jaxvff.envs.payoffs import GAMES
from jaxvff.learning.options import OPTIMIZERS
from jaxvff.settings import overrides

# Methods whose Q_tot is a function of the taken utilities and of a few weights. QPLEX
# differentiates only a part of itself, and QTRAN's joint value does not see the utilities.
MIXERS = ("nmqmix", "qmix", "vdn")
# () -> a solver of diffrax
SOLVERS: Registry = Registry(
    {
        "kvaerno5": "jaxvff.lab.flows:kvaerno5",
        "kvaerno3": "jaxvff.lab.flows:kvaerno3",
        "tsit5": "jaxvff.lab.flows:tsit5",
    }
)
MAX_JOINT_ACTIONS = 256  # each one is a row of every Jacobian
_RANDOM = {"game": ("random",), "payoff": (None,), "file": (None,)}
_MIXES = {"mixer": AllBut("vdn")}
_OF_FLOWS = ("starts", "time", "solver")


@dataclass(frozen=True)
class StabilityOptions:
    """Everything that decides an answer of the stability lab."""

    # The game
    game: str = option(
        "a",
        "a published game, or random: payoffs from U(-10, 10)",
        names=(*GAMES, "random"),
        needs={"payoff": (None,), "file": (None,)},
    )
    payoff: Any = option(
        None,
        "the payoff tensor itself: nested lists, an axis per agent",
        needs={"file": (None,)},
    )
    file: str | None = option(None, "path of a .npy, .yaml or .json file with the payoff tensor")
    n_agents: int = option(2, "agents", low=2, high=8, needs=_RANDOM)
    n_actions: int = option(3, "actions per agent", low=2, high=16, needs=_RANDOM)
    game_seed: int = option(0, "draws the game", low=0, needs=_RANDOM)
    # The factorised value
    mixer: str = option("nmqmix", "method whose mixer is studied", names=MIXERS)
    embed_dim: int = option(8, "units of the mixing layer", low=1, high=256, needs=_MIXES)
    init_scale: float = option(
        1.0, "standard deviation of the utilities of random starts", low=0, above=True, high=1e6
    )
    fixed_mixer: bool = option(
        False, "the utilities move and the mixer does not, as in the paper", needs=_MIXES
    )
    # What is measured
    points: int = option(
        200, "zero-loss points to find, half of them IGM-consistent", low=2, high=10_000
    )
    temperatures: list[float] = option(
        [0.1, 0.3, 1.0, 3.0], "of the softmax policy, each above 0", unit="units of the utilities"
    )
    epsilon: float = option(0.1, "exploration rate of the ε-greedy policy", low=0, high=1)
    starts: int = option(
        24,
        "flows from random starts, and as many from beside points of each kind",
        low=1,
        high=10_000,
    )
    time: float = option(
        200.0,
        "length of the flows",
        unit="learning rate times updates",
        low=0,
        above=True,
        high=1e9,
    )
    solver: str = option("kvaerno5", "solver of the flows", names=SOLVERS)
    noise: float = option(
        0.01, "standard deviation of a start's distance from its zero-loss point", low=0, high=1e6
    )
    optimizer: str = option(
        "adam", "optimizer of sampled training, beside plain SGD", names=OPTIMIZERS
    )
    lr: float = option(
        1e-3,
        "learning rate of that optimizer; SGD's follows from lr · λ_max",
        low=0,
        above=True,
        high=1e6,
    )
    updates: int = option(
        5000, "length of sampled training", unit="updates", low=1, high=1_000_000_000
    )
    lanes: int = option(
        256,
        "runs of sampled training of each escape curve and of each negation test",
        low=2,
        high=1_000_000,
    )
    seed: int = option(0, "of all random numbers", low=0, high=2**31 - 1)
    run_dir: str | None = option(None, "folder of the results; null: runs/<date>_stability_<game>")

    def __post_init__(self) -> None:
        check(self)
        if not self.temperatures or not all(map(_is_temperature, self.temperatures)):
            raise UserError(
                f"temperatures={shown(self.temperatures)} must be positive numbers in "
                "[1e-06, 1e+06], such as [0.1,1]"
            )
        if self.name == "random" and self.n_actions**self.n_agents > MAX_JOINT_ACTIONS:
            raise UserError(
                f"n_actions={self.n_actions} to the power n_agents={self.n_agents} joint actions "
                f"are too many for the lab; at most {MAX_JOINT_ACTIONS}"
            )

    def table(self) -> np.ndarray:
        """The payoffs `[U] * A`, float64, in env units.

        Raises:
          UserError: no such game, too many joint actions, or a payoff that is the same for all.
        """
        payoff = np.asarray(self._payoff(), np.float64)
        if payoff.size > MAX_JOINT_ACTIONS:
            raise UserError(
                f"{payoff.size} joint actions are too many for the lab; at most {MAX_JOINT_ACTIONS}"
            )
        if np.ptp(payoff) == 0:
            raise UserError(f"every payoff is {payoff.flat[0]:g}: any policy is optimal")
        return payoff

    def _payoff(self) -> np.ndarray:
        """The payoffs `[U] * A`, float32, as the environment of the same name has them."""
        if self.file is not None:
            return payoffs.read(Path(self.file), "file")
        if self.payoff is not None:
            return payoffs.check_payoff(self.payoff, "payoff")
        if self.game == "random":
            return payoffs.random_payoff(self.n_agents, self.n_actions, self.game_seed)
        return payoffs.check_payoff(GAMES[self.game], self.game)

    @property
    def name(self) -> str:
        """The name of the game."""
        return "payoff" if self.payoff is not None or self.file is not None else self.game


def load(texts: list[str], only_claims: bool = False) -> StabilityOptions:
    """The options that `key=value` texts ask for.

    Args:
      texts: what was typed.
      only_claims: whether the lab answers only what the theorems need.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range; one that nothing reads.
    """
    given = overrides.parse(texts, typed=True)
    known = {each.name: each for each in options_of(StabilityOptions)}
    check_keys([o.key for o in given], known, "", "the stability lab")
    if swept := [o for o in given if o.swept]:
        raise UserError(f"{swept[0].text} cannot be swept in the lab; {swept[0].key}= takes one")
    read: dict[str, Any] = {o.key: from_text(known[o.key], o.value, o.value_text) for o in given}
    asked = StabilityOptions(**read)
    unread = dict(idle(StabilityOptions, vars(asked)))
    if only_claims:
        unread |= dict.fromkeys(_OF_FLOWS, "in `stability claims`, which follows no flows; drop it")
    overrides.check_read(given, [unread])
    return asked


def _is_temperature(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 1e-6 <= float(value) <= 1e6  # type: ignore[arg-type]
