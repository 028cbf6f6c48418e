"""Placement of lanes over devices. A CPU counts as one device per core."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxvff.core.machine import cores, largest_divisor
from jaxvff.core.types import Tree


def use_all_cores() -> None:
    """Let JAX see every core as a device; without effect once JAX has started.

    The operations of one lane are too small for XLA to spread over cores, lanes are not: on two
    cores this doubles the throughput (docs/decisions.md).
    """
    with contextlib.suppress(RuntimeError):  # what JAX raises when its devices are already made
        jax.config.update("jax_num_cpu_devices", cores())


def lane_mesh(n_lanes: int, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """A mesh with one axis, "seed", over as many devices as divide the lanes evenly.

    Args:
      n_lanes: lanes of a program.
      devices: those that may be used; None: all of this process.
    """
    devices = jax.local_devices() if devices is None else devices
    return Mesh(np.array(devices[: largest_divisor(n_lanes, len(devices))]), ("seed",))


def over_lanes(
    f: Callable[..., Tree], mesh: Mesh, n_lanes: int, per_device: int
) -> Callable[..., Tree]:
    """`f(lane, *shared)` for one lane -> the same for all lanes, over devices and in turns.

    Each device vmaps at most `per_device` lanes at once and takes the next ones when those are
    done, so that what they work on stays in its cache. `shared` arguments are not batched.

    Args:
      f: a function of one lane's pytree and of arguments that all lanes share.
      mesh: from lane_mesh.
      n_lanes: leading axis K of every leaf of the lanes.
      per_device: the most lanes in one vmap.

    Returns:
      A function for jit; every output leaf gets the leading axis K.
    """
    here = n_lanes // mesh.size
    block = largest_divisor(here, per_device)
    if 4 * block < per_device:  # a prime number of lanes, say: all at once beats one by one
        block = here

    def on_one_device(lanes: Tree, *shared: Tree) -> Tree:
        if block == here:
            return jax.vmap(lambda lane: f(lane, *shared))(lanes)
        return jax.lax.map(lambda lane: f(lane, *shared), lanes, batch_size=block)

    def call(lanes: Tree, *shared: Tree) -> Tree:
        split, same = PartitionSpec("seed"), PartitionSpec()
        specs = (split, *[same] * len(shared))
        # check_vma off: it follows collectives, of which there are none here.
        mapped = jax.shard_map(
            on_one_device, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False
        )
        return mapped(lanes, *shared)

    return call


def spread(tree: Tree, mesh: Mesh) -> Tree:
    """Spread a tree, whose leaves have a leading axis of lanes, over the devices of a mesh."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec("seed")))
