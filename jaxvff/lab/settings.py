"""What the stability lab is asked: one dataclass of options, read from `key=value`.

Light to import, so that a misspelt key is answered before JAX and the solvers are imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, check_keys, option, options_of
from jaxvff.core.registry import Registry
from jaxvff.learning.options import OPTIMIZERS

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


@dataclass(frozen=True)
class StabilityOptions:
    """Everything that decides an answer of the stability lab."""

    # The game
    game: str = option("a", "a published game, or random: payoffs from U(-10, 10)")
    payoff: Any = option(None, "the payoff tensor itself: nested lists, an axis per agent")
    file: str | None = option(None, "path of a .npy, .yaml or .json file with the payoff tensor")
    n_agents: int = option(2, "agents of game=random", low=2)
    n_actions: int = option(3, "actions per agent of game=random", low=2)
    game_seed: int = option(0, "draws game=random", low=0)
    # The factorised value
    mixer: str = option("nmqmix", "method whose mixer is studied", names=MIXERS)
    embed_dim: int = option(8, "units of the mixing layer", low=1)
    init_scale: float = option(
        1.0, "standard deviation of the utilities of random starts", low=0, above=True
    )
    fixed_mixer: bool = option(False, "the utilities move and the mixer does not, as in the paper")
    # What is measured
    points: int = option(200, "zero-loss points to find, half of them IGM-consistent", low=2)
    temperatures: list[float] = option(
        [0.1, 0.3, 1.0, 3.0], "of the softmax policy, each above 0", unit="units of the utilities"
    )
    epsilon: float = option(0.1, "exploration rate of the ε-greedy policy", low=0, high=1)
    starts: int = option(
        24, "flows from random starts, and as many from beside points of each kind", low=1
    )
    time: float = option(
        200.0, "length of the flows", unit="learning rate times updates", low=0, above=True
    )
    solver: str = option("kvaerno5", "solver of the flows", names=SOLVERS)
    noise: float = option(
        0.01, "standard deviation of a start's distance from its zero-loss point", low=0
    )
    optimizer: str = option(
        "adam", "optimizer of sampled training, beside plain SGD", names=OPTIMIZERS
    )
    lr: float = option(
        1e-3, "learning rate of that optimizer; SGD's follows from lr · λ_max", low=0, above=True
    )
    updates: int = option(5000, "length of sampled training", unit="updates", low=1)
    lanes: int = option(
        256, "runs of sampled training of each escape curve and of each negation test", low=2
    )
    seed: int = option(0, "of all random numbers", low=0, high=2**31 - 1)
    run_dir: str | None = option(None, "folder of the results; null: runs/<date>_stability_<game>")

    def __post_init__(self) -> None:
        check(self)
        if not self.temperatures or not all(t > 0 and math.isfinite(t) for t in self.temperatures):
            raise UserError(
                f"temperatures={list(self.temperatures)} must be positive numbers, such as [0.1,1]"
            )

    def table(self) -> np.ndarray:
        """The payoffs `[U] * A`, float64, in env units.

        Raises:
          UserError: no such game, too many joint actions, or a payoff that is the same for all.
        """
        from jaxvff.settings import build  # here, not above: it imports JAX

        payoff = np.asarray(build.environment(self._environment()).params, np.float64)
        if payoff.size > MAX_JOINT_ACTIONS:
            raise UserError(
                f"{payoff.size} joint actions are too many for the lab; at most {MAX_JOINT_ACTIONS}"
            )
        if np.ptp(payoff) == 0:
            raise UserError(f"every payoff is {payoff.flat[0]:g}: any policy is optimal")
        return payoff

    def _environment(self) -> dict[str, object]:
        """The options of the matrix environment that has the payoffs."""
        if self.file is not None:
            return {"kind": "matrix", "file": self.file}
        if self.payoff is not None:
            return {"kind": "matrix", "payoff": self.payoff}
        game: dict[str, object] = {"kind": "matrix", "game": self.game}
        if self.game == "random":
            names = ("n_agents", "n_actions", "game_seed")
            game |= {name: getattr(self, name) for name in names}
        return game

    @property
    def name(self) -> str:
        """The name of the game."""
        return "payoff" if self.payoff is not None or self.file is not None else self.game


def load(overrides: list[str]) -> StabilityOptions:
    """The options that `key=value` texts ask for.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range.
    """
    keys = [text.split("=", 1)[0] for text in overrides]
    known = (each.name for each in options_of(StabilityOptions))
    check_keys(keys, known, "", "the stability lab")
    return StabilityOptions(**_values(overrides))


def _values(overrides: list[str]) -> dict[str, Any]:
    """Every option by name, of the type that its field is annotated with."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        schema = OmegaConf.structured(StabilityOptions)
        OmegaConf.set_readonly(schema, False)
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(overrides))
        return OmegaConf.to_container(merged)  # type: ignore[return-value]
    except (OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{str(error).splitlines()[0]}; write key=value") from error
