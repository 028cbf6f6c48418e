"""The policy of one seed of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import shown
from jaxvff.core.types import Params
from jaxvff.losses.contract import Model
from jaxvff.methods.table import METHODS
from jaxvff.policies.layout import Layout
from jaxvff.policies.policy import Policy
from jaxvff.runs import folder as runs
from jaxvff.runs import learned
from jaxvff.runs.plan import Job, SweepValue


class Chosen(NamedTuple):
    """A lane of a run."""

    job: int  # its number in the run
    value: SweepValue
    seed: int
    lane: int  # in [0, K)


def of_run(folder: Path, jobs: Sequence[Job], seed: int | None, sweep: Mapping[str, Any]) -> Policy:
    """The agents of one seed as its newest checkpoint has them.

    Args:
      folder: of the run.
      jobs: of the run.
      seed: its number; None: the first.
      sweep: of a sweep, as many keys with their values as choose one.

    Raises:
      UserError: there is no such seed or no one such value, no checkpoint, or what agents do does
        not follow from what each of them sees.
    """
    chosen = choose(folder, jobs, seed, sweep)
    job = jobs[chosen.job]
    with learned.open_program(job) as program:
        model, name = program.learner.model, job.config.method["name"]
        _check_decentralised(name, model)
        trained = learned.newest(runs.job_folder(folder, jobs, chosen.job), job, program)
        if trained is None:
            raise learned.none_yet(folder)
        state = trained.carry.state
        acting = program.learner.acting(state.learner)
        params = jax.tree.map(lambda x: np.asarray(x)[chosen.lane], dict(acting))
    about = {
        "method": name,
        "env": chosen.value.config.env["kind"],
        "env_options": chosen.value.config.env,
        "seed": chosen.seed,
        "sweep": chosen.value.label,
        "env_steps": int(state.env_steps[chosen.lane]),
        "stopped_at": int(state.stopped_at[chosen.lane]),
        "actions": list(job.env.action_names),
        "observation": [list(part) for part in job.env.obs_parts],
    }
    layout = Layout.of(model.utility, METHODS[name].head, fixed_context(model, params))
    return Policy(model.utility, params["utility"], layout, about)


def choose(folder: Path, jobs: Sequence[Job], seed: int | None, sweep: Mapping[str, Any]) -> Chosen:
    """A lane of a run; see `of_run`."""
    values = [(j, i, value) for j, job in enumerate(jobs) for i, value in enumerate(job.values)]
    keys = {key: None for _, _, value in values for key in value.label}
    for key in sweep:
        if key not in keys:
            swept = f"sweeps {', '.join(keys)}" if keys else "is no sweep"
            raise UserError(f"{key}={shown(sweep[key])} chooses nothing: {folder} {swept}")
    fit = [each for each in values if all(each[2].label.get(key) == v for key, v in sweep.items())]
    if len(fit) != 1:
        among = fit or values
        labels = [", ".join(f"{k}={shown(v)}" for k, v in v.label.items()) for _, _, v in among[:8]]
        dots = " ..." if len(among) > 8 else ""
        raise UserError(
            f"{folder} has {len(fit)} sweep values with {dict(sweep)}; choose one of: "
            f"{'; '.join(labels)}{dots}"
        )
    ((j, i, value),) = fit
    number = value.seeds[0] if seed is None else seed
    if number not in value.seeds:
        raise UserError(
            f"seed={seed} is none of the run's; choose one of {value.seeds[0]} to {value.seeds[-1]}"
        )
    return Chosen(j, value, number, i * len(value.seeds) + value.seeds.index(number))


def _check_decentralised(method: str, model: Model) -> None:
    context: Any = model.context
    if context is not None and not context.greedy_is_fixed:
        raise UserError(
            f"method={method} draws what the team does in an episode from the first state of it, "
            "which no agent sees, so that it has no policy of agents alone; jaxvff evaluate (or "
            "run.evaluate()) plays it"
        )


def fixed_context(model: Model, params: Params) -> np.ndarray | None:
    """What greedy play always has for a context, `[C]`; None of a method that draws nothing."""
    if model.context is None:
        return None
    nothing = np.zeros(model.utility.spec.state_size, np.float32)
    key = jax.random.key(0)  # a greedy draw takes no chances
    return np.asarray(model.context.apply(params["context"], nothing, key, greedy=True))
