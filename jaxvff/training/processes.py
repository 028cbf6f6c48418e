"""Several JAX processes that know of one another, as the hosts of a TPU pod: who is which.

Lanes need no collectives. So the processes meet once, when they start, and part again before they
train: one that dies later takes nobody with it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from jaxvff.core.errors import UserError

KEYS = ("processes", "process", "coordinator")
# Where a key is left out; JAX reads the first one itself.
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "process": "JAX_PROCESS_ID",
}
DETECTED = "auto"  # processes=auto: JAX asks the pod, Slurm, Kubernetes or Open MPI
PATIENCE_S = 300  # for the last process to start


@dataclass(frozen=True)
class Place:
    """A process among all: 0 of 1 where it is alone."""

    index: int = 0
    count: int = 1

    def first(self, n: int) -> int:
        """Where its slice of n begins."""
        return self.index * n // self.count


@dataclass(frozen=True)
class Meeting:
    """How the processes find one another; None: JAX detects it."""

    coordinator: str | None  # <host>:<port> of process 0
    count: int | None
    index: int | None

    def join(self) -> Place:
        """Meet the others, start the devices of all, and part. JAX's devices must not be made yet.

        Raises:
          UserError: nothing says who the others are, or they do not fit together.
        """
        import jax

        who = "this process" if self.index is None else f"process {self.index} of {self.count}"
        where = f" at {self.coordinator}" if self.coordinator else ""
        # Said now: where the others do not come, JAX's runtime ends the process with a stack trace.
        print(f"{who} waits for the others{where}, at most {PATIENCE_S} s", flush=True)
        try:
            jax.distributed.initialize(
                self.coordinator, self.count, self.index, initialization_timeout=PATIENCE_S
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(
                f"the JAX processes cannot meet: {str(error).splitlines()[0]}; where nothing says "
                "who they are, write processes=<n> process=<i> coordinator=<host of process 0>:"
                "<port> for each, with the same n and coordinator"
            ) from error
        place = Place(jax.process_index(), jax.process_count())  # starts the devices of all
        jax.distributed.shutdown()  # when all have come so far
        return place


def meeting(own: Mapping[str, str]) -> Meeting | None:
    """How the processes meet, by the keys that were typed; None: this one is alone.

    Args:
      own: the values of KEYS that were typed.

    Raises:
      UserError: they cannot be.
    """
    if "processes" not in own:
        if given := [key for key in KEYS if key in own]:
            raise UserError(f"{given[0]}= needs processes=; write processes=<n> or processes=auto")
        return None
    found = {k: own.get(k) or os.environ.get(v) for k, v in VARIABLES.items()}
    if found["processes"] == DETECTED:
        found["processes"] = os.environ.get(VARIABLES["processes"])
    count = _number("processes", found["processes"], 1)
    index = _number("process", found["process"], 0)
    coordinator = found["coordinator"]
    if count is not None and index is not None and index >= count:
        raise UserError(f"process={index} must be less than processes={count}; they count from 0")
    if count is not None and (index is None or coordinator is None):
        missing = "process" if index is None else "coordinator"
        raise UserError(
            f"processes={count} needs {missing}= (or the variable {VARIABLES[missing]}); "
            "processes=auto has JAX ask the pod or the cluster"
        )
    if coordinator is not None and not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"coordinator={coordinator} must be <host>:<port> of process 0")
    return Meeting(coordinator, count, index)


def _number(key: str, text: str | None, least: int) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or int(text) < least:
        raise UserError(f"{key}={text} must be a whole number of {least} or more")
    return int(text)
