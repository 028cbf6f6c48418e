"""What a run needs in memory, before it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxvff import learner, replay, sharding
from jaxvff.plan import Group
from jaxvff.types import UserError


class Need(NamedTuple):
    """Bytes of what a group carries on; what a step needs on the way comes on top."""

    lanes: int
    lane: int  # bytes, all that follows included
    replay: int  # bytes
    segments: int
    slots: int  # of a segment
    slot: float  # bytes, as it is stored

    @property
    def total(self) -> int:
        """Bytes of all lanes."""
        return self.lanes * self.lane


def need(group: Group) -> Need:
    """Found from shapes alone: nothing is allocated or compiled."""
    one = group.config
    learn = learner.make(one, group.values[0].env)
    state = jax.eval_shape(learn.init, jax.random.key(0), one.hyper())
    slot = replay.nbytes(state.replay.experience) / one.buffer_size / one.segment_length
    return Need(
        lanes=group.n_lanes,
        lane=replay.nbytes(state),
        replay=replay.nbytes(state.replay),
        segments=one.buffer_size,
        slots=one.segment_length,
        slot=slot,
    )


def largest(groups: list[Group]) -> Need:
    """What the largest group needs: groups run one after the other."""
    return max((need(group) for group in groups), key=lambda n: n.total)


def check(groups: list[Group]) -> None:
    """Refuse what cannot fit.

    Raises:
      UserError: the lanes need more than the devices have left.
    """
    most = largest(groups)
    free = free_bytes(list(sharding.lane_mesh(most.lanes).devices))
    if free is None or most.total <= free:
        return
    raise UserError(
        f"{_lanes(most.lanes)} need at least {size(most.total)} (replay "
        f"{size(most.lanes * most.replay)}: buffer_size={most.segments} segments of {most.slots} "
        f"slots of {most.slot:.4g} bytes), and {size(free)} are free; lower buffer_size, seeds or "
        "hidden_dim"
    )


def describe(most: Need) -> str:
    """The estimate in a line."""
    return (
        f"memory: {size(most.total)} or more, {size(most.lane)} a seed; replay: "
        f"{most.segments:,} x {most.slots} slots of {most.slot:.4g} bytes"
    )


def free_bytes(devices: list[Any]) -> int | None:
    """What is left on the devices together; None where nobody says."""
    stats = [device.memory_stats() or {} for device in devices]
    if all("bytes_limit" in s for s in stats):
        return sum(s["bytes_limit"] - s.get("bytes_in_use", 0) for s in stats)
    return _free_ram() if devices[0].platform == "cpu" else None


def size(n_bytes: float) -> str:
    """1.3 MB."""
    power = 0
    while n_bytes >= 999.5 and power < 4:
        n_bytes, power = n_bytes / 1000, power + 1
    return f"{n_bytes:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _free_ram() -> int | None:
    """What Linux says it can hand out without swapping; other systems count in other ways."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(kilobytes[0]) if kilobytes else None


def _lanes(n: int) -> str:
    return f"{n} seed" + "s" * (n > 1)
