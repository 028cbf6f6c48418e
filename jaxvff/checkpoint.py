"""Saving and restoring runs with orbax: the whole state, or a clear refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxvff.types import UserError

MANIFEST = "manifest.json"


def save(folder: Path, step: int, tree: Any) -> Path:
    """Write `tree` as `folder/<step>`, then remove older checkpoints.

    The older ones stay until the new one is complete, so that a crash, a Ctrl-C or a full disk
    in the middle costs only what was being written.

    Returns:
      The path of the new checkpoint.
    """
    folder = folder.resolve()
    final, partial = folder / str(step), folder / f"{step}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(partial / "state", _to_arrays(tree))
    manifest = {"step": step, "layout": layout(tree), "sha256": _digests(partial)}
    (partial / MANIFEST).write_text(json.dumps(manifest))
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)
    for old in folder.iterdir():
        if old != final:
            shutil.rmtree(old, ignore_errors=True)
    return final


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    steps = [int(p.name) for p in folder.glob("*") if p.name.isdigit()] if folder.is_dir() else []
    return folder / str(max(steps)) if steps else None


def restore(path: Path, like: Any) -> tuple[int, Any]:
    """The step and the tree of a checkpoint; the files are only read.

    Args:
      path: from `latest`.
      like: a tree of arrays or ShapeDtypeStructs, as what comes back should be.

    Raises:
      UserError: the checkpoint is damaged, or of another config or program.
    """
    path = path.resolve()
    remedy = "nothing was changed; restore the folder from a copy or start a new run"
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        step, expected, digests = manifest["step"], manifest["layout"], manifest["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"checkpoint {path} has no readable {MANIFEST}; {remedy}") from error
    for name, digest in _digests(path).items() | digests.items():
        if digests.get(name) != digest:
            raise UserError(
                f"checkpoint {path} is damaged: {name} is not as it was saved; {remedy}"
            )
    if missing := digests.keys() - _digests(path).keys():
        raise UserError(f"checkpoint {path} is damaged: {min(missing)} is missing; {remedy}")
    here = layout(like)
    if expected != here:
        differs = next(
            (k for k in expected.keys() | here.keys() if expected.get(k) != here.get(k)), "order"
        )
        raise UserError(
            f"checkpoint {path} is of another run: {differs} is {expected.get(differs)} there and "
            f"{here.get(differs)} here; resume with the config that wrote it"
        )
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = checkpointer.restore(path / "state", jax.eval_shape(_to_arrays, like))
    return step, _from_arrays(jax.tree.map(np.asarray, arrays), like)


def layout(tree: Any) -> dict[str, str]:
    """The path, type and shape of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}" for path, x in leaves}


def _is_key(x: Any) -> bool:
    return bool(jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key))


def _to_arrays(tree: Any) -> dict[str, Any]:
    """PRNG keys as integers, and a flat dict: what every orbax version can store."""
    leaves = jax.tree.leaves(tree)
    return {f"{i:04d}": jax.random.key_data(x) if _is_key(x) else x for i, x in enumerate(leaves)}


def _from_arrays(arrays: dict[str, Any], like: Any) -> Any:
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
