"""What a job has learned, as its newest checkpoint has it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import jax

from jaxvff.core.errors import UserError
from jaxvff.core.types import HostEnv
from jaxvff.runs import checkpoint, shards
from jaxvff.runs.plan import Job
from jaxvff.training import sharding
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program, device_program

CHECKPOINTS = "checkpoint"  # the folder, in that of a job


@contextmanager
def open_program(job: Job, tell: Callable[[str], None] = print) -> Iterator[Program]:
    """The program of a job; what plays its games on the host ends with the context."""
    if isinstance(job.env, HostEnv):
        from jaxvff.training.host import host_program

        with host_program(job.config, job.env, job.n_lanes, tell) as program:
            yield program
    elif (recorded := job.values[0].recorded) is not None:
        from jaxvff.training.offline import offline_program

        yield offline_program(job.config, job.env, job.n_lanes, recorded.segments)
    else:
        yield device_program(job.config, job.env, job.n_lanes)


def restored(folder: Path, job: Job, program: Program, lane: Lane) -> tuple[int, Carry] | None:
    """The iteration and the carry of a job's newest checkpoint, on the program's devices.

    Args:
      folder: of the job's files.
      job: of the checkpoint.
      program: of the job.
      lane: all lanes of the job.

    Returns:
      None where there is no checkpoint yet.

    Raises:
      UserError: it is damaged or of another run, or the job is shorter.
    """
    like = jax.eval_shape(program.init, lane)
    found = checkpoint.restore_newest(folder / CHECKPOINTS, like, job.fingerprint())
    if found is None:
        return None
    iteration, carry = found
    check_length(job, iteration)
    return iteration, sharding.spread(carry, program.mesh)


class Trained(NamedTuple):
    """A job as its newest checkpoint has it."""

    carry: Carry
    lane: Lane
    iteration: int  # iterations done

    def step(self, job: Job) -> int:
        """Env steps per seed."""
        return self.iteration * job.config.steps_per_iteration


def newest(folder: Path, job: Job, program: Program) -> Trained | None:
    """The newest checkpoint of a job, as `restored` finds it; None where there is none yet.

    Args:
      folder: of the job's files.
      job: from an old run.
      program: of the job.
    """
    lane = sharding.spread(job.lanes(), program.mesh)
    found = restored(folder, job, program, lane)
    if found is None:
        return None
    iteration, carry = found
    return Trained(carry, lane, iteration)


def none_yet(folder: Path) -> UserError:
    """What a user is told of a run folder without a checkpoint."""
    if (folder / shards.PLAN_FILE).exists():
        return UserError(
            f"{folder} has no checkpoint of the whole run: its workers have those of their shards; "
            f"when all shards are done, jaxvff merge {folder} checkpoint=true"
        )
    return UserError(f"{folder} has no checkpoint yet; wait for one or train again")


def check_length(job: Job, iteration: int) -> None:
    """Refuse to go on with a run that is longer than it is to be; `iteration` is where it is."""
    if iteration > job.config.n_iterations:
        raise UserError(
            f"total_steps={job.config.total_steps} is less than the "
            f"{iteration * job.config.steps_per_iteration} steps that the run has done; raise it"
        )
