"""`init_from=`: a run that begins with the parameters of another run, or of a policy.

They are copied into the folder of the run (`inputs/`), which from then on needs no other. From a
run of the same method all parameters are taken, from another method or a policy those of the
utility networks. The optimiser and the unit of values (`return_scale`) begin anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.errors import UserError
from jaxvff.core.types import Tree
from jaxvff.learning.learner import Learner, init_params
from jaxvff.losses.contract import Model
from jaxvff.methods.table import METHODS
from jaxvff.policies import files as policies
from jaxvff.policies.layout import Layout
from jaxvff.policies.names import difference
from jaxvff.runs import learned, run_file, start, trust
from jaxvff.runs.files import INPUTS, copy_name
from jaxvff.runs.plan import Job, plan
from jaxvff.runs.start import Start
from jaxvff.settings import build, sweep
from jaxvff.settings.config import Config
from jaxvff.training import sharding
from jaxvff.training.lanes import Carry
from jaxvff.training.program import Program


def started(jobs: Sequence[Job], kept: Path | None = None) -> list[Job]:
    """The same jobs, with what `init_from` asks for.

    Args:
      jobs: from `plan`.
      kept: where an existing run keeps copies of what it reads.

    Raises:
      UserError: there is nothing to begin with, or a parameter of it is of another shape. Nothing
        has compiled.
    """
    out = []
    for job in jobs:
        if job.config.init_from is not None:
            begin, source = _found(job.config, kept)
            learner = build.learner(job.config, job.env)
            _check_source(job, learner, source)
            _check(job.config, learner, begin)
            job = Job([value._replace(start=begin) for value in job.values])
        out.append(job)
    return out


def keep(folder: Path, jobs: Sequence[Job]) -> None:
    """Copy what jobs begin with into a folder, which is made where there is anything."""
    for job in jobs:
        begin = job.values[0].start
        if begin is not None:
            folder.mkdir(exist_ok=True)
            begin.save(_copy(folder, job.config))


def begun(job: Job, program: Program, carry: Carry) -> Carry:
    """A fresh carry whose lanes have the parameters that they are to begin with.

    Args:
      job: of the carry.
      program: of the job.
      carry: from `program.init`.
    """
    begin, learner = job.values[0].start, program.learner
    if begin is None:
        return carry
    rows = [begin.row(seed) for value in job.values for seed in value.seeds]  # [K]
    taken = policies.nested({name: array[rows] for name, array in begin.leaves.items()})
    # Whole sets: `started` has seen to it that no parameter of a set is missing.
    params = {**learner.acting(carry.state.learner), **jax.tree.map(jnp.asarray, taken)}
    assert learner.with_params is not None  # `started` has refused the others
    state = jax.jit(jax.vmap(learner.with_params))(carry.state.learner, params)
    state = sharding.spread(state, program.mesh)
    return carry._replace(state=carry.state._replace(learner=state))


class _Source(NamedTuple):
    """What parameters were learned for."""

    layout: Layout
    names: Mapping[str, Any]  # "observation" and "actions", see policies/names.py


def _found(asked: Config, kept: Path | None) -> tuple[Start, _Source | None]:
    """What a config asks for: the copy, where there is one, which was checked when it was made."""
    if kept is not None and (copy := _copy(kept, asked)).exists():
        return start.read(copy), None
    source = Path(str(asked.init_from))
    if (source / policies.JSON_FILE).exists():
        policy = policies.load_policy(source)
        leaves = policies.flat({"utility": policy.params})
        begin = Start((), {name: array[None] for name, array in leaves.items()})
        return begin, _Source(policy.layout, policy.about)
    if (source / run_file.NAME).exists():
        return _of_run(source, asked)
    raise UserError(
        f"init_from={source} is neither a run folder ({run_file.NAME}) nor a policy "
        f"({policies.JSON_FILE}); name one, or leave init_from out"
    )


def _of_run(source: Path, asked: Config) -> tuple[Start, _Source]:
    """The parameters of all seeds of a run, from its newest checkpoint."""
    parts = run_file.read(source)[1]
    configs = sweep.configs(parts)
    if len(configs) != 1:
        raise UserError(
            f"init_from={source} is a sweep of several values; take the policy of one: jaxvff "
            f"export run={source} to=<folder> <key>=<value>, then init_from=<folder>"
        )
    own = {value for _, value in trust.names_code(asked)}
    for name, value in trust.names_code(configs[0]):  # before `plan`, which makes environments
        if value not in own:  # what the user typed for this run is trusted
            raise UserError(
                f"init_from={source} names code that would be run here, {name}={value!r}; take its "
                f"policy: jaxvff export run={source} to=<folder> trust=true, init_from=<folder>"
            )
    kept = source / INPUTS
    (job,) = started(plan(parts[0], kept), kept)
    with learned.open_program(job) as program:
        trained = learned.newest(source, job, program)
        if trained is None:
            raise UserError(f"init_from: {learned.none_yet(source)}")
        params = program.learner.acting(trained.carry.state.learner)
    name = job.config.method["name"]
    if name != asked.method["name"]:
        params = {"utility": params["utility"]}
    layout = Layout.of(program.learner.model.utility, METHODS[name].head, None)
    names = {"observation": job.env.obs_parts, "actions": job.env.action_names}
    return Start(tuple(job.values[0].seeds), policies.flat(params)), _Source(layout, names)


def _check_source(job: Job, learner: Learner, source: _Source | None) -> None:
    """Refuse parameters that were learned for other inputs: shapes may be equal by chance.

    Raises:
      UserError: the first thing in which networks, observations or actions differ.
    """
    if source is None:
        return
    key = f"init_from={job.config.init_from}"
    layout = Layout.of(learner.model.utility, METHODS[job.config.method["name"]].head, None)
    if other := source.layout.difference(layout):
        raise UserError(
            f"{key}: {other}; the utility networks have to be alike: set what differs as it is "
            "there, or begin without init_from"
        )
    if other := difference(source.names, job.env):
        raise UserError(
            f"{key}: {other}, so that what was learned there means something else here; take a "
            "run of an environment with the same observations and actions"
        )


def _check(asked: Config, learner: Learner, begin: Start) -> None:
    """Refuse parameters of other shapes, and learners that take none.

    Raises:
      UserError: the first parameter that differs.
    """
    key = f"init_from={asked.init_from}"
    if learner.with_params is None:
        raise UserError(
            f"{key} needs a learner that takes parameters, and learner={asked.learner} has no "
            "with_params; leave init_from out, or give it one (learning/learner.py)"
        )
    sets = {name.partition("/")[0] for name in begin.leaves}
    wanted = {
        name: list(x.shape)
        for name, x in policies.flat(_shapes(learner.model)).items()
        if name.partition("/")[0] in sets
    }
    for name in {**wanted, **begin.leaves}:
        there = list(begin.leaves[name].shape[1:]) if name in begin.leaves else None
        if there != wanted.get(name):
            raise UserError(
                f"{key}: {name} is {_size(there)} there and {_size(wanted.get(name))} here; both "
                "need the same utility, hidden_dim, norm, shared, agent_id and last_action, and "
                "observations, actions and agents of the same number"
            )


def _shapes(model: Model) -> Tree:
    return jax.eval_shape(lambda key: init_params(model, key), jax.random.key(0))


def _size(shape: list[int] | None) -> str:
    return "missing" if shape is None else "x".join(map(str, shape)) or "a number"


def _copy(folder: Path, asked: Config) -> Path:
    """Where the copy is; neither sources of one name meet, nor what two methods take of one."""
    what = f"{asked.init_from}\n{asked.method['name']}"
    return folder / copy_name(what, str(asked.init_from), ".safetensors")
