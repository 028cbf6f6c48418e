"""Options of a run as a whole, and of what is kept of it; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import option
from jaxvff.core.registry import OpenRegistry, Registry

# Destination -> Sink (runs/sinks.py), of other packages
OTHER_SINKS: Registry = OpenRegistry({}, "jaxvff.sinks")


@dataclass(frozen=True)
class RunOptions:
    """How much is trained and how often it is looked at."""

    seeds: int = option(
        32,
        "seeds trained side by side; a multiple of the number of cores (or GPUs) uses all of them",
        low=1,
    )
    seed: int = option(0, "the first of them; the others follow", low=0, high=2**32 - 1)
    total_steps: int = option(
        10_000,
        "length of the run; where a segment holds several episodes, a few per cent more than the "
        "env steps, which the results count exactly",
        unit="slots per seed",
        low=1,
    )
    eval_interval: int = option(
        500, "between reports, each with a greedy evaluation", unit="slots", low=1
    )
    eval_episodes: int = option(
        32,
        "greedy episodes per report and seed, each from its own start",
        unit="episodes",
        low=1,
        high=100_000,  # they are played side by side
    )
    checkpoint_interval: int = option(
        0,
        "between checkpoints; the end and Ctrl-C always make one, 0: nothing else does",
        unit="slots",
        low=0,
    )
    init_from: str | None = option(
        None,
        "a run folder, or a policy from jaxvff export: each seed begins with the parameters of the "
        "seed of its number there, else of one in turn; of another method or a policy, with those "
        "of the utility networks alone",
    )
    lanes_per_device: int | None = option(
        None,
        "lanes vmapped at once on a device; more run in turns; null: on a CPU as many (16 at most) "
        "as a core's cache has room for, elsewhere 64",
        low=1,
    )
    deterministic: bool = option(
        False,
        "on a GPU, only operations that add in a fixed order: the same seed gives the same bits, "
        "at some cost in speed; without effect on a CPU or a TPU, which always do",
    )


@dataclass(frozen=True)
class OutputOptions:
    """Where results and compiled programs are kept. They decide no number and no program."""

    run_dir: str | None = option(None, "a new folder for the results; null: runs/<date>_<method>")
    tensorboard: bool = option(
        False,
        "also event files in <run_dir>/tensorboard, a folder per sweep value and seed; "
        "needs the extra tensorboard",
    )
    wandb: str | None = option(
        None,
        "a project of Weights & Biases: also a run per seed there, in a group per run folder; "
        "needs the extra wandb; WANDB_MODE=offline is honoured",
    )
    sink: str | None = option(
        None,
        "another place for reports: the name of an installed one, or package.module:name",
        names=OTHER_SINKS,
    )
    compilation_cache: bool = option(
        True,
        "keep compiled programs in the user's cache folder, so that they start faster next time; "
        "JAXVFF_CACHE names another folder, JAXVFF_CACHE=off switches it off",
    )
