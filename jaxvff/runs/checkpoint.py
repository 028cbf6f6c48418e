"""Saving and restoring runs with orbax: the whole state, or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.types import Array, Tree

if TYPE_CHECKING:
    from orbax.checkpoint import StandardCheckpointer

MANIFEST = "manifest.json"


def save(folder: Path, step: int, tree: Tree, run: str = "") -> Path:
    """Write `tree` as `folder/<step>`, then remove older checkpoints.

    The older ones stay until the new one is complete, so that a crash, a Ctrl-C or a full disk
    in the middle costs only what was being written.

    Args:
      folder: where the checkpoints of a run are.
      step: names the checkpoint.
      tree: arrays, PRNG keys among them.
      run: says which run this is; `restore` wants the same again.

    Returns:
      The path of the new checkpoint.
    """
    folder = folder.resolve()
    final, partial = folder / str(step), folder / f"{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _checkpointer() as checkpointer:
        checkpointer.save(partial / "state", _to_arrays(tree))
    manifest = {"step": step, "run": run, "layout": layout(tree), "sha256": _digests(partial)}
    (partial / MANIFEST).write_text(json.dumps(manifest))
    if final.exists():
        final.rename(folder / f"{step}.old")
    partial.rename(final)
    for old in folder.iterdir():
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []
    return folder / str(max(steps)) if steps else None


def restore(path: Path, like: Tree, run: str = "") -> tuple[int, Tree]:
    """The step and the tree of a checkpoint; the files are only read.

    Args:
      path: from `latest`.
      like: a tree of arrays or ShapeDtypeStructs, as what comes back should be.
      run: as it was given to `save`.

    Raises:
      UserError: the checkpoint is damaged, or of another config or program.
    """
    path = path.resolve()
    remedy = "nothing was changed; restore the folder from a copy or start a new run"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        step, expected, digests = manifest["step"], manifest["layout"], dict(manifest["sha256"])
        if step != int(path.name):
            raise ValueError(f"the manifest is of step {step}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} has no readable {MANIFEST}; {remedy}") from error
    found, wanted = _digests(path), layout(like)
    if missing := digests.keys() - found.keys():
        raise UserError(f"checkpoint {path} is damaged: {min(missing)} is missing; {remedy}")
    if changed := [name for name in found if digests.get(name) != found[name]]:
        raise UserError(f"checkpoint {path} is damaged: {changed[0]} is not as saved; {remedy}")
    if differing := [k for k in {**expected, **wanted} if expected.get(k) != wanted.get(k)]:
        name = differing[0]
        raise UserError(
            f"checkpoint {path} is of another run: {name} is {expected.get(name)} there and "
            f"{wanted.get(name)} here; resume with the config that wrote it"
        )
    if manifest.get("run") != run:
        raise UserError(
            f"checkpoint {path} is of another run: its config, seeds or payoffs differ from those "
            "here; resume with what wrote it"
        )
    # To one device, whatever devices it was saved from; the caller spreads it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        jax.eval_shape(_to_arrays, like),
    )
    with _checkpointer() as checkpointer:
        arrays = checkpointer.restore(path / "state", target)
    return step, _from_arrays(jax.tree.map(np.asarray, arrays), like)


def _checkpointer() -> StandardCheckpointer:
    import orbax.checkpoint as ocp  # here, not above: half a second to import

    return ocp.StandardCheckpointer()


def layout(tree: Tree) -> dict[str, str]:
    """The path, type and shape of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _is_key(x: Array) -> bool:
    return bool(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))


def _to_arrays(tree: Tree) -> dict[str, Array]:
    """PRNG keys as integers, and a flat dict: what every orbax version can store."""
    leaves = jax.tree.leaves(tree)
    return {f"{i:04d}": jax.random.key_data(x) if _is_key(x) else x for i, x in enumerate(leaves)}


def _from_arrays(arrays: dict[str, Array], like: Tree) -> Tree:
    leaves, structure = jax.tree.flatten(like)
    restored = [
        jax.random.wrap_key_data(arrays[f"{i:04d}"]) if _is_key(x) else arrays[f"{i:04d}"]
        for i, x in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, restored)


def _digests(path: Path) -> dict[str, str]:
    files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != MANIFEST)
    return {
        p.relative_to(path).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files
    }
