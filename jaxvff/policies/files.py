"""The folder of a policy.

<to>/policy.json            layout of the network, names, where it is from, versions
<to>/agents.safetensors     parameters that all agents share; or agent_<i>.safetensors, one's own
<to>/agents.jax_export      the same as a StableHLO program: jax.export.deserialize(...).call
<to>/act.py                 acts with NumPy alone

A file of one agent needs nothing of the others.
"""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax import export
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from jaxvff.core.errors import UserError
from jaxvff.core.files import whole, write_json
from jaxvff.core.types import Array, Memory, Params
from jaxvff.policies.layout import PORTABLE_HEADS, Layout
from jaxvff.policies.policy import Policy, Seen, choose

JSON_FILE, ACT_FILE = "policy.json", "act.py"
RUN_FILE = "run.yaml"  # by which a run folder is known, see runs/run_file.py
FORMAT = "jaxvff policy 1"  # another number where an older reader would act wrongly
PORTABLE_NETWORKS = ("mlp", "gru", "cnn")  # that act.py knows
PLATFORMS = ("cpu", "cuda", "tpu")  # of the StableHLO programs
# What the programs take and give; R rows, each an agent of a game, of those that share parameters.
SIGNATURE = (
    "(agent [R] int32, obs [R, O] float32, avail [R, U] bool, is_first [R] bool, last_action [R] "
    "int32, memory [R, H] float32) -> (action [R] int32, memory [R, H], utilities [R, U]); rows "
    "are agents of any games; memory and last_action are not read where is_first"
)


def save_policy(policy: Policy, folder: str | Path) -> list[Path]:
    """Write a policy into a new folder; policy.json last, so that a folder that has it is whole.

    Returns:
      The files.

    Raises:
      UserError: the folder has something in it or cannot be made, or the policy cannot act without
        its method's own code.
    """
    folder, layout = Path(folder), policy.layout
    _check_portable(layout)
    _new_folder(folder)
    files = []
    for name, params in _sets(policy):
        path = folder / f"{name}.safetensors"
        with whole(path) as partial:
            partial.write_bytes(save(flat(params)))
        program = folder / f"{name}.jax_export"
        with whole(program) as partial:
            partial.write_bytes(_program(policy, params))
        files += [path, program]
    with whole(folder / ACT_FILE) as partial:
        shutil.copyfile(Path(__file__).with_name(ACT_FILE), partial)
    told = {
        "format": FORMAT,
        "network": layout._asdict(),
        "inputs": layout.inputs(),
        "program": SIGNATURE,
        **policy.about,
        "versions": _versions(),
    }
    write_json(folder / JSON_FILE, told)
    return [*files, folder / ACT_FILE, folder / JSON_FILE]


def load_policy(folder: str | Path) -> Policy:
    """A policy that `save_policy` wrote; no code of the folder is run.

    Raises:
      UserError: it is no such folder, or one that is damaged or of another version.
    """
    folder = Path(folder)
    told, layout = _told(folder)
    network = layout.network()
    own = {"format", "network", "inputs", "program", "versions"}
    about = {name: value for name, value in told.items() if name not in own}
    names = ["agents"] if layout.shared else [f"agent_{i}" for i in range(layout.n_agents)]
    sets = [_read(folder / f"{name}.safetensors") for name in names]
    leaves = sets[0] if layout.shared else _stacked(folder, sets)
    wanted = flat(jax.eval_shape(network.init, jax.random.key(0)))
    _check_leaves(folder, leaves, wanted)
    return Policy(network, nested(leaves), layout, about)


def _told(folder: Path) -> tuple[dict[str, Any], Layout]:
    """What policy.json says, and its layout.

    Raises:
      UserError: there is none, or it is damaged or of another version.
    """
    path = folder / JSON_FILE
    if not path.exists():
        if (folder / RUN_FILE).exists():
            raise UserError(
                f"{folder} is a run folder and no policy; take one of its seeds: jaxvff export "
                f"run={folder} to=<folder>, or jaxvff.load({str(folder)!r}).policy()"
            )
        raise UserError(
            f"{folder} is no policy: it has no {JSON_FILE}; make one with jaxvff export "
            "run=<run folder> to=<folder>"
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        if told["format"] != FORMAT:
            raise _other_format(path, told)
        return dict(told), Layout.read(told["network"])
    except UserError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is damaged: {what}; export the run again") from error


def _other_format(path: Path, told: dict[str, Any]) -> UserError:
    """Of a later version, or of none that there ever was."""
    versions = told.get("versions")
    writer = versions.get("jaxvff") if isinstance(versions, dict) else None
    by = f", written by jaxvff {writer}," if writer else ""
    return UserError(
        f"{path} has the format {told['format']!r}{by} and this is jaxvff "
        f"{metadata.version('jaxvff')}, which reads {FORMAT!r}; update jaxvff, or export the run "
        "again with this version"
    )


def flat(params: Params) -> dict[str, Any]:
    """Parameters by their names, `params/Dense_0/kernel`; arrays become NumPy's."""
    leaves = traverse_util.flatten_dict(params, sep="/")
    return {
        name: x if isinstance(x, jax.ShapeDtypeStruct) else np.ascontiguousarray(x)
        for name, x in leaves.items()
    }


def nested(leaves: dict[str, Any]) -> Params:
    """Parameters as flax has them, of what `flat` returns."""
    return traverse_util.unflatten_dict(leaves, sep="/")


def _check_portable(layout: Layout) -> None:
    if layout.utility not in PORTABLE_NETWORKS or layout.head not in PORTABLE_HEADS:
        raise UserError(
            f"utility={layout.utility} with head={layout.head} cannot be exported: act.py knows "
            f"{', '.join(PORTABLE_NETWORKS)} with {', '.join(PORTABLE_HEADS)}; play it from its "
            "run folder (run.policy), or teach jaxvff/policies/act.py its layers"
        )


def _new_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"to={folder} exists and is not empty; name a new folder")
    except OSError as error:
        raise UserError(
            f"to={folder} cannot be made: {error.strerror}; name another folder"
        ) from error


def _sets(policy: Policy) -> Iterator[tuple[str, Params]]:
    """The sets of parameters, with the names of their files."""
    if policy.layout.shared:
        yield "agents", policy.params
        return
    for i in range(policy.layout.n_agents):
        yield f"agent_{i}", jax.tree.map(lambda x, i=i: x[i], policy.params)


def _program(policy: Policy, params: Params) -> bytes:
    """`choose` with its parameters in it, for any number of rows: a serialised jax.export."""
    layout = policy.layout

    def act(
        agent: Array, obs: Array, avail: Array, is_first: Array, last_action: Array, memory: Array
    ) -> tuple[Array, Array, Array]:
        seen, before = Seen(agent, obs, avail, is_first), Memory(memory, last_action)
        chosen = choose(policy.network, layout.context, params, seen, before)
        return chosen.memory.last_action, chosen.memory.carry, chosen.q

    (rows,) = export.symbolic_shape("R")
    sizes = {
        "agent": ((), jnp.int32),
        "obs": ((layout.obs_size,), jnp.float32),
        "avail": ((layout.n_actions,), jnp.bool_),
        "is_first": ((), jnp.bool_),
        "last_action": ((), jnp.int32),
        "memory": ((layout.hidden_dim,), jnp.float32),
    }
    shapes = [jax.ShapeDtypeStruct((rows, *shape), kind) for shape, kind in sizes.values()]
    return bytes(export.export(jax.jit(act), platforms=PLATFORMS)(*shapes).serialize())


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        leaves = load_file(path)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}; export the run again") from error
    for name, array in leaves.items():
        if array.dtype != np.float32:
            raise UserError(
                f"{path}: {name} has the type {array.dtype} and must be float32; export the run "
                "again, or convert it"
            )
    return leaves


def _stacked(folder: Path, sets: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The parameters of all agents, leaves `[A, ...]`."""
    for i, leaves in enumerate(sets):
        for name, array in sets[0].items():
            if name not in leaves or leaves[name].shape != array.shape:
                raise UserError(
                    f"{folder}: {name} of agent {i} is not of the shape that agent 0 has, "
                    f"{list(array.shape)}; export the run again"
                )
    return {name: np.stack([leaves[name] for leaves in sets]) for name in sets[0]}


def _check_leaves(folder: Path, leaves: dict[str, np.ndarray], wanted: dict[str, Any]) -> None:
    for name in {**wanted, **leaves}:
        here = list(leaves[name].shape) if name in leaves else None
        needed = list(wanted[name].shape) if name in wanted else None
        if here != needed:
            raise UserError(
                f"{folder}: {name} has the shape {here}, and its {JSON_FILE} needs {needed}; "
                "export the run again"
            )


def _versions() -> dict[str, str]:
    packages = ("jaxvff", "jax", "flax", "numpy", "safetensors")
    return {"python": platform.python_version()} | {p: metadata.version(p) for p in packages}
