"""Options of learners and of what they are made of; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import MAX_WIDTH, AllBut, option
from jaxvff.core.registry import OpenRegistry, Registry

# (Parts, Config) -> Learner
LEARNERS: Registry = OpenRegistry(
    {
        "replay": "jaxvff.learning.replay_learner:make",
        "parallel": "jaxvff.learning.parallel_learner:make",
    },
    "jaxvff.learners",
)
_REPLAY, _PARALLEL = {"learner": AllBut("parallel")}, {"learner": ("parallel",)}
# ReplayOptions -> Replay
REPLAYS: Registry = Registry(
    {
        "uniform": "jaxvff.learning.replay:uniform",
        "prioritised": "jaxvff.learning.replay:prioritised",
    }
)
# BonusOptions -> Bonus
BONUSES: Registry = OpenRegistry(
    {"none": "jaxvff.learning.bonus:none", "rnd": "jaxvff.learning.bonus:rnd"}, "jaxvff.bonuses"
)
# () -> an optax transform without its learning rate
OPTIMIZERS: Registry = OpenRegistry(
    {
        "adam": "jaxvff.learning.optimizers:adam",
        "rmsprop": "jaxvff.learning.optimizers:rmsprop",
        "radam": "jaxvff.learning.optimizers:radam",
        "sgd": "jaxvff.learning.optimizers:sgd",
    },
    "jaxvff.optimizers",
)


@dataclass(frozen=True)
class OptimizerOptions:
    """Gradient steps."""

    optimizer: str = option("adam", "gradient transform of optax", names=OPTIMIZERS)
    lr: float = option(1e-3, "learning rate", low=0, traced=True)
    lr_final: float = option(
        1.0, "share of lr that is left after lr_steps; linear", low=0, high=1, traced=True
    )
    lr_steps: int = option(
        1_000_000,
        "length of that schedule",
        unit="env steps",
        low=1,
        traced=True,
        needs={"lr_final": AllBut(1.0)},
    )
    grad_clip: float = option(10.0, "largest global norm of the gradient", low=0, above=True)


@dataclass(frozen=True)
class ReplayOptions:
    """The memory that segments are sampled from."""

    replay: str = option(
        "uniform",
        "how segments are drawn; prioritised: with probability ~ |TD error|^a, weighted by "
        "(N P)^-b",
        names=REPLAYS,
        needs=_REPLAY,
    )
    buffer_size: int = option(5000, "replay of each seed", unit="segments", low=1, needs=_REPLAY)
    batch_size: int = option(
        128, "sampled per update, with replacement", unit="segments", low=1, needs=_REPLAY
    )
    priority_exponent: float = option(0.6, "a", low=0, high=1, needs={"replay": ("prioritised",)})
    importance_exponent: float = option(0.4, "b", low=0, high=1, needs={"replay": ("prioritised",)})


@dataclass(frozen=True)
class LearnerOptions:
    """How parameters are learned from segments."""

    learner: str = option(
        "replay",
        "replay: off-policy, from samples of a replay, with a target network; parallel: on-policy, "
        "from what an iteration has collected, with neither",
        names=LEARNERS,
    )
    epochs: int = option(
        4, "passes over the segments of an iteration", low=1, high=10_000, needs=_PARALLEL
    )
    minibatches: int = option(
        1, "gradient steps of an epoch; they divide n_envs", low=1, needs=_PARALLEL
    )
    burn_in: int = option(
        0,
        "of an episode that goes on from an earlier segment, nothing is learned from its first "
        "slots in this one: they bring the memory of a GRU up to the present parameters",
        unit="slots",
        low=0,
        needs=_PARALLEL,
    )
    learn_start: int = option(
        128, "in replay before the first update", unit="segments", low=1, needs=_REPLAY
    )
    updates: int = option(
        1, "gradient steps after each collection", low=1, high=1_000_000, needs=_REPLAY
    )
    target_interval: int = option(200, "between target syncs", unit="updates", low=1, needs=_REPLAY)
    resets: int = option(
        0,
        "how many times the networks and their optimiser begin anew, while replay stays: what was "
        "learned first from little does not stand in the way",
        low=0,
        needs=_REPLAY,
    )
    reset_interval: int = option(
        2000, "between resets", unit="updates", low=1, needs={"resets": AllBut(0)}
    )
    target_tau: float = option(
        1.0,
        "share that a sync takes over; 1 copies; soft sync: target_interval=1 target_tau=0.005; of "
        "learner=parallel a sync is the end of an iteration",
        low=0,
        high=1,
        above=True,
        traced=True,
    )

    @property
    def goes_on(self) -> bool:
        """Whether games on the device go on from one segment into the next."""
        return self.learner == "parallel"


@dataclass(frozen=True)
class ReturnOptions:
    """The unit that values are learned in."""

    return_scale: float = option(
        3.0,
        "rewards are divided, where they are learned from, so that returns are about so large; "
        "then nothing depends on the unit of the rewards; 0: learned from as they are",
        low=0,
    )


@dataclass(frozen=True)
class BonusOptions:
    """An exploration bonus."""

    bonus: str = option(
        "none", "exploration bonus, added to the rewards that are learned from", names=BONUSES
    )
    bonus_beta: float = option(
        0.1,
        "its factor; the bonus is in standard deviations of the prediction error",
        low=0,
        traced=True,
        needs={"bonus": AllBut("none")},
    )
    rnd_dim: int = option(
        64, "width of RND's networks", low=1, high=MAX_WIDTH, needs={"bonus": ("rnd",)}
    )
    rnd_lr: float = option(
        1e-4,
        "learning rate of RND's predictor",
        low=0,
        traced=True,
        needs={"bonus": ("rnd",)},
    )


@dataclass(frozen=True)
class LearningOptions(LearnerOptions, OptimizerOptions, ReplayOptions, ReturnOptions, BonusOptions):
    """Everything that a learner may ask for."""
