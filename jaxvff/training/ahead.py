"""Compiling the training program for a TPU on a machine that has none, and what that tells."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from jaxvff.core.errors import UserError, check_name, extra

if TYPE_CHECKING:
    import jax
    from jax.extend.core import Jaxpr

    from jaxvff.core.types import Env
    from jaxvff.settings.config import Config
    from jaxvff.training.lanes import Lane


class Chip(NamedTuple):
    """What the maker publishes of a TPU chip (cloud.google.com/tpu/docs)."""

    memory: float  # bytes
    flops: float  # bfloat16, a second
    bandwidth: float  # of its memory, bytes a second
    clock: float  # Hz; what makes its matrix units have that peak


CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1.228e12, 1.05e9),
    "v5e": Chip(16 * 2**30, 197e12, 0.819e12, 1.5e9),
    "v5p": Chip(95 * 2**30, 459e12, 2.765e12, 1.75e9),
    "v6e": Chip(32 * 2**30, 918e12, 1.64e12, 1.75e9),
}
DEVICES_PER_CHIP = {"v4": 2}  # where JAX counts cores; 1 elsewhere
MOST_SLOW = 10
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
    check_name(kind, list(CHIPS), "the chip in for")
    try:
        import libtpu
    except ImportError as error:
        raise UserError(
            f"for=tpu-{name} needs the compiler of TPUs, libtpu (Linux, x86); {extra('tpu')}"
        ) from error
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",  # nobody to ask: this is no TPU machine
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # asked for, but of no effect on the topology
        "TPU_LIBRARY_PATH": libtpu.get_library_path(),
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # its lock is for chips, which nobody takes here
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
    whole = CHIPS[kind]
    chip = Chip(whole.memory / share, whole.flops / share, whole.bandwidth / share, whole.clock)
    return Topology(name, chip, found.devices)


class Work(NamedTuple):
    """What a device does in an iteration, by the compiled program."""

    traffic: float  # bytes between memory and cores
    cycles: float  # by XLA's estimate, which leaves out gathers and scatters
    operations: int  # one after the other
    picked: int  # rows that its gathers pick one by one
    slowest: tuple[tuple[str, float], ...]  # where in the program, share of the cycles


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
    flops: float  # of the matrix products of an iteration
    work: Work | None  # None: neither libtpu nor jaxlib gives the program's text
    steps: int  # env steps of an iteration, all lanes of the device together

    @property
    def lane(self) -> float:
        """Bytes of a lane."""
        return (self.arguments + self.temporaries) / self.lanes

    def lanes_that_fit(self, chip: Chip) -> int:
        """Lanes that a device has memory for."""
        return max(int((USABLE * chip.memory - self.code) / self.lane), 0)

    def least_s(self, chip: Chip) -> dict[str, float]:
        """The least seconds of an iteration, by what bounds it."""
        bounds = {"products": self.flops / chip.flops}
        if self.work is not None:
            bounds["traffic"] = self.work.traffic / chip.bandwidth
            bounds["estimate"] = self.work.cycles / chip.clock
        return bounds

    def most_steps_per_s(self, chip: Chip) -> float:
        """Env steps a second of a device that no bound forbids; a program is slower."""
        return self.steps / max(self.least_s(chip).values())


def compile_for(where: Topology, *, config: Config, env: Env, lane: Lane, name: str) -> Compiled:
    """Compile the training program of lanes.

    Args:
      where: the chips.
      config: that all lanes share but for traced options.
      env: on the device.
      lane: what differs between the lanes.
      name: of the program, for a table.
    """
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    from jaxvff.training.program import device_program

    n_lanes = len(lane.seed)
    program = device_program(config, env, n_lanes, where.devices)
    over_lanes = NamedSharding(program.mesh, PartitionSpec("seed"))

    def shapes(tree: object) -> object:
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=over_lanes), tree
        )

    carry = jax.eval_shape(program.init, lane)
    began = time.perf_counter()
    traced = program.advance.trace(shapes(carry), shapes(lane), 0, 1)  # type: ignore[attr-defined]
    lowered = traced.lower()
    lowered_at = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=dump)
        ended = time.perf_counter()
        text = _text(compiled, Path(folder))
    memory = compiled.memory_analysis()
    lanes = n_lanes // program.mesh.size
    return Compiled(
        name=name,
        devices=program.mesh.size,
        lanes=lanes,
        lower_s=lowered_at - began,
        compile_s=ended - lowered_at,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        flops=matmul_flops(traced.jaxpr.jaxpr),
        work=None if text is None else _work(text),
        steps=lanes * config.steps_per_iteration,
    )


def matmul_flops(jaxpr: Jaxpr) -> float:
    """Of the matrix products that a traced program does: a scan counts by its length.

    A loop whose number of turns is not known counts as one turn, a branch as the longest one.
    """
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            taken, made = (cast(Any, x[0]).aval.shape for x in (eqn.invars, eqn.outvars))
            total += 2.0 * math.prod(made) * math.prod(taken[i] for i in contracted)
            continue
        inner = [matmul_flops(other) for other in _inside(eqn.params)]
        if eqn.primitive.name == "cond":
            total += max(inner, default=0.0)
        else:
            total += eqn.params.get("length", 1) * sum(inner)
    return total


def _inside(params: Mapping[str, Any]) -> Iterator[Jaxpr]:
    """The programs that an operation runs."""
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            inner: Any = getattr(one, "jaxpr", one)
            if hasattr(inner, "eqns"):
                yield inner


def _text(compiled: jax.stages.Compiled, dumped: Path) -> str | None:
    """The program as compiled, cycles included; None: nobody can tell it.

    libtpu's own dump comes first. For v5p, `as_text` of jaxlib 0.10.2 refuses what libtpu 0.0.52
    has made: "async-update instruction should have 1 operands but sees 3", where a gather is given
    to the SparseCores.
    """
    import jax

    for path in dumped.glob("*.after_codegen.txt"):
        return path.read_text(encoding="utf-8")
    try:
        return compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None


def _work(text: str) -> Work:
    from jaxvff.training import hlo

    steps = hlo.read(text).iteration()
    cycles = sum(step.cycles for step in steps)
    by_source: Counter[str] = Counter()
    for step in steps:
        by_source[step.instruction.source or step.instruction.op] += step.cycles
    most = by_source.most_common(MOST_SLOW)
    return Work(
        traffic=sum(step.times * step.traffic for step in steps),
        cycles=cycles,
        operations=sum(step.times for step in steps),
        picked=sum(step.picked for step in steps),
        slowest=tuple((source, n / max(cycles, 1)) for source, n in most),
    )
