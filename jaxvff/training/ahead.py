"""Compiling the training program for a TPU on a machine that has none, and what that tells."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from jaxvff.core.errors import UserError, check_name

if TYPE_CHECKING:
    import jax

    from jaxvff.core.types import Env
    from jaxvff.runs.plan import Job


class Chip(NamedTuple):
    """What the maker publishes of a TPU chip (cloud.google.com/tpu/docs)."""

    memory: float  # bytes
    flops: float  # bfloat16, a second
    bandwidth: float  # of its memory, bytes a second


CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1.228e12),
    "v5e": Chip(16 * 2**30, 197e12, 0.819e12),
    "v5p": Chip(95 * 2**30, 459e12, 2.765e12),
    "v6e": Chip(32 * 2**30, 918e12, 1.64e12),
}
DEVICES_PER_CHIP = {"v4": 2}  # where JAX counts cores; 1 elsewhere
USABLE = 0.9  # of a chip's memory; the rest is the runtime's


class Topology(NamedTuple):
    """TPU chips that a program is compiled for; none of them is here."""

    name: str  # such as v5e:2x2
    chip: Chip  # of one device: where a chip is two, half of it
    devices: Sequence[jax.Device]


def topology(name: str) -> Topology:
    """The chips that a name such as `v5e:2x2` means.

    JAX must not have been imported: it is told to compute on the CPU.

    Raises:
      UserError: an unknown chip or layout, or libtpu is not installed.
    """
    kind = name.partition(":")[0]
    check_name(kind, list(CHIPS), "the chip of for=")
    try:
        import libtpu
    except ImportError as error:
        raise UserError(
            f"for=tpu-{name} needs the compiler of TPUs, libtpu (Linux, x86); from a checkout: "
            "uv sync --extra tpu, elsewhere: pip install libtpu"
        ) from error
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # nobody to ask: this is no TPU machine
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # asked for, but of no effect on the topology
        "TPU_LIBRARY_PATH": libtpu.get_library_path(),
    }
    import jax
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except jax.errors.JaxRuntimeError as error:
        raise UserError(
            f"for=tpu-{name} is no layout of chips ({str(error).splitlines()[0]}); write for "
            "instance for=tpu-v5e:2x2 or for=tpu-v5p:2x2x1"
        ) from error
    share = DEVICES_PER_CHIP.get(kind, 1)
    chip = Chip(*(x / share for x in CHIPS[kind]))
    return Topology(name, chip, found.devices)


class Compiled(NamedTuple):
    """What a training program needs of one device, by its compiler; nothing was run."""

    name: str  # of the job
    devices: int
    lanes: int  # on each device
    lower_s: float
    compile_s: float
    arguments: int  # bytes: what lanes carry on, and what differs between them
    temporaries: int  # bytes, of an iteration
    code: int  # bytes
    flops: float  # of an iteration
    bytes_accessed: float  # of an iteration
    steps: int  # env steps of an iteration, all lanes of the device together

    @property
    def lane(self) -> float:
        """Bytes of a lane."""
        return (self.arguments + self.temporaries) / self.lanes

    def lanes_that_fit(self, chip: Chip) -> int:
        """Lanes that a device has memory for."""
        return max(int((USABLE * chip.memory - self.code) / self.lane), 0)

    def iteration_s(self, chip: Chip) -> tuple[float, float]:
        """The least seconds of an iteration: by its arithmetic, and by its memory traffic."""
        return self.flops / chip.flops, self.bytes_accessed / chip.bandwidth

    def most_steps_per_s(self, chip: Chip) -> float:
        """Env steps a second of a device that neither bound forbids; a program is slower."""
        return self.steps / max(self.iteration_s(chip))


def compile_for(job: Job, where: Topology) -> Compiled:
    """Compile the training program of a job, whose games are on the device."""
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxvff.training.program import device_program

    env = cast("Env", job.env)
    program = device_program(job.config, env, job.n_lanes, where.devices)
    over_lanes = NamedSharding(program.mesh, PartitionSpec("seed"))

    def shapes(tree: object) -> object:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=over_lanes), tree
        )

    lane = job.lanes()
    carry = jax.eval_shape(program.init, lane)
    began = time.perf_counter()
    lowered = program.advance.lower(shapes(carry), shapes(lane), 0, 1)  # type: ignore[attr-defined]
    lowered_at = time.perf_counter()
    compiled = lowered.compile()
    ended = time.perf_counter()
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    lanes = job.n_lanes // program.mesh.size
    return Compiled(
        name=job.name,
        devices=program.mesh.size,
        lanes=lanes,
        lower_s=lowered_at - began,
        compile_s=ended - lowered_at,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        steps=lanes * job.config.steps_per_iteration,
    )
