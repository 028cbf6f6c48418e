"""What a run needs in memory, before it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from jaxvff.core import sizes
from jaxvff.core.errors import UserError
from jaxvff.core.sizes import readable
from jaxvff.learning.learner import Size
from jaxvff.runs.plan import Job
from jaxvff.settings import build
from jaxvff.training import sharding


class Need(NamedTuple):
    """Bytes of what a job carries on; what a step needs on the way comes on top."""

    lanes: int
    lane: int  # bytes, all of `parts` included
    parts: list[Size]  # of a lane's learner, see Learner.sizes
    shared: Size | None = None  # recorded episodes, which all lanes of a device learn from

    @property
    def total(self) -> int:
        """Bytes of all lanes, and of what they share on all devices."""
        return self.lanes * self.lane + (self.shared.n_bytes if self.shared else 0)


def need(job: Job) -> Need:
    """Found from shapes alone: nothing is allocated or compiled."""
    learner = build.learner(job.config, job.env)
    state = jax.eval_shape(learner.init, jax.random.key(0), job.config.traced())
    parts = learner.sizes(state)
    shared = _recorded(job)
    return Need(job.n_lanes, sum(part.n_bytes for part in parts), parts, shared)


def _recorded(job: Job) -> Size | None:
    """The episodes of `offline=`, which are copied to every device."""
    recorded = job.values[0].recorded
    if recorded is None:
        return None
    devices = sharding.lane_mesh(job.n_lanes).devices.size
    size = sizes.nbytes(recorded.segments)
    on = f" on each of {devices} devices" if devices > 1 else ""
    note = f"{recorded.n_episodes:,} episodes, {readable(size)}{on}"
    return Size("offline", devices * size, note, "episodes")


def largest(jobs: Sequence[Job]) -> Need:
    """What the largest job needs: jobs run one after the other."""
    return max((need(job) for job in jobs), key=lambda n: n.total)


def check(jobs: Sequence[Job]) -> None:
    """Refuse what cannot fit.

    Raises:
      UserError: the lanes need more than the devices have left.
    """
    most = largest(jobs)
    free = free_bytes(list(sharding.lane_mesh(most.lanes).devices))
    if free is None or most.total <= free:
        return
    part, shared = most.parts[0], most.shared
    seeds = f"{most.lanes} seed" + "s" * (most.lanes > 1)
    data = f"; {shared.name}: {shared.note}" if shared else ""
    fewer = ", or record fewer episodes" if shared else ""
    raise UserError(
        f"{seeds} need at least {readable(most.total)} ({part.name} "
        f"{readable(most.lanes * part.n_bytes)}: {part.note}{data}), and {readable(free)} are "
        f"free; lower {part.key}, seeds or hidden_dim{fewer}"
    )


def describe(most: Need) -> str:
    """The estimate in a line."""
    part, shared = most.parts[0], most.shared
    data = f"; {shared.name}: {shared.note}" if shared else ""
    return (
        f"memory: {readable(most.total)} or more, {readable(most.lane)} a seed; {part.name}: "
        f"{part.note}{data}"
    )


def free_bytes(devices: Sequence[jax.Device]) -> int | None:
    """What is left on the devices together; None where nobody says."""
    stats = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in s for s in stats):
        return sum(s["bytes_limit"] - s.get("bytes_in_use", 0) for s in stats)
    return _free_ram() if devices[0].platform == "cpu" else None


def _free_ram() -> int | None:
    """What Linux says it can hand out without swapping; other systems count in other ways."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None
