"""What the lab is asked: one dataclass, from key=value."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from jaxvff.analysis.flows import SOLVERS
from jaxvff.analysis.model import MIXERS, Model, make
from jaxvff.config import check_field, one_of, within
from jaxvff.envs import ENVS
from jaxvff.learner import OPTIMIZERS
from jaxvff.options import bind_env, closest
from jaxvff.types import UserError

MOST_CELLS = 256  # joint actions; every one is a row of every Jacobian


@dataclass(frozen=True)
class Lab:
    """Everything that decides an answer of the stability lab."""

    # The game: a name, or a payoff tensor, or a file with one (as env=matrix/...).
    game: str = "a"
    payoff: Any = None
    file: str | None = None
    n_agents: int = within(2, 2)  # of game=random
    n_actions: int = within(3, 2)  # of game=random
    game_seed: int = within(0, 0)  # of game=random
    # The factorised value
    mixer: str = one_of("nmqmix", MIXERS)
    embed_dim: int = within(8, 1)  # units of the mixing layer
    init_scale: float = within(1.0, 0, open_=True)  # of the utilities of random starts
    fixed_mixer: bool = False  # only the utilities move, as the paper's q
    # What is measured
    points: int = within(200, 2)  # zero-loss points, half of them IGM-consistent
    temperatures: list[float] = field(default_factory=lambda: [0.1, 0.3, 1.0, 3.0])  # of softmax
    epsilon: float = within(0.1, 0, 1)  # of ε-greedy
    starts: int = within(24, 1)  # of the flows, random ones and ones beside zero-loss points each
    time: float = within(200.0, 0, open_=True)  # of the flows: learning rate times updates
    solver: str = one_of("kvaerno5", SOLVERS)
    noise: float = within(0.01, 0)  # standard deviation of starts beside a zero-loss point
    optimizer: str = one_of("adam", OPTIMIZERS)  # of the stochastic algorithm, beside plain SGD
    lr: float = within(1e-3, 0, open_=True)  # of `optimizer`; SGD's is set by lr · λ_max
    updates: int = within(5000, 1)  # of the stochastic algorithm
    lanes: int = within(256, 2)  # of each escape curve and of each side of the negation test
    seed: int = within(0, 0, 2**31 - 1)
    run_dir: str | None = None  # folder of the results; null: runs/<date>_stability_<game>

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            check_field(f, getattr(self, f.name))
        if not self.temperatures or not all(t > 0 and math.isfinite(t) for t in self.temperatures):
            raise UserError(
                f"temperatures={list(self.temperatures)} must be positive numbers, such as [0.1,1]"
            )

    def table(self) -> np.ndarray:
        """The payoffs `[U] * A`, float64."""
        options: dict[str, Any] = {"kind": "matrix"}
        if self.payoff is not None or self.file is not None:
            options |= {"payoff": self.payoff} if self.file is None else {"file": self.file}
        else:
            options["game"] = self.game
        if options.get("game") == "random":
            names = ("n_agents", "n_actions", "game_seed")
            options |= {name: getattr(self, name) for name in names}
        payoff = np.asarray(bind_env(options, ENVS).params, np.float64)
        if payoff.size > MOST_CELLS:
            raise UserError(
                f"{payoff.size} joint actions are too many for the lab; at most {MOST_CELLS}"
            )
        if np.ptp(payoff) == 0:
            raise UserError(f"every payoff is {payoff.flat[0]:g}: any policy is optimal")
        return payoff

    def model(self) -> Model:
        """The factorised value."""
        payoff = self.table()
        return make(
            payoff.ndim, payoff.shape[0], self.mixer, embed_dim=self.embed_dim,
            init_scale=self.init_scale, fixed_mixer=self.fixed_mixer,
        )  # fmt: skip

    @property
    def name(self) -> str:
        """Of the game."""
        return "payoff" if self.payoff is not None or self.file is not None else self.game


def load(overrides: list[str]) -> Lab:
    """The settings from `key=value`.

    Raises:
      UserError: an unknown key, a wrong type or a value out of range.
    """
    known = [f.name for f in dataclasses.fields(Lab)]
    for text in overrides:
        if (key := text.split("=", 1)[0]) not in known:
            raise UserError(f"{key!r} is no key of the lab{closest(key, known)}")
    try:
        schema = OmegaConf.structured(Lab)
        OmegaConf.set_readonly(schema, False)
        merged = OmegaConf.merge(schema, OmegaConf.from_dotlist(overrides))
        values: dict[str, Any] = OmegaConf.to_container(merged)  # type: ignore[assignment]
    except (OmegaConfBaseException, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{str(error).splitlines()[0]}; write key=value") from error
    return Lab(**values)
