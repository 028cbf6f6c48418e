"""Saving and restoring runs with orbax: the whole state, or a clear refusal."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.types import Array, Tree
from jaxvff.runs import locks

if TYPE_CHECKING:
    from orbax.checkpoint import StandardCheckpointer

MANIFEST = "manifest.json"
_STEP = re.compile(r"[0-9]+")  # the name of a checkpoint
# What `save` makes, complete or not; older versions left out the part in the middle.
_OURS = re.compile(r"[0-9]+(\.([0-9a-f]+\.)?(partial|old))?")


def save(folder: Path, step: int, tree: Tree, run: str = "") -> Path:
    """Write `tree` as `folder/<step>`, then remove older checkpoints.

    The older ones stay until the new one is complete, so that a crash, a Ctrl-C or a full disk
    in the middle costs only what was being written; and as long as somebody reads them.

    Args:
      folder: where the checkpoints of a run are.
      step: names the checkpoint.
      tree: arrays, PRNG keys among them.
      run: says which run this is; `restore` wants the same again.

    Returns:
      The path of the new checkpoint.

    Raises:
      OSError: it could not be written, say on a full disk.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / str(step), _aside(folder, step, "partial")
    partial.mkdir()
    try:
        _write(partial, step, tree, run)
        if final.exists():
            final.rename(_aside(folder, step, "old"))
        partial.rename(final)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # what is there is of no use, and takes room
        raise
    _remove_older(folder, final)
    return final


def _aside(folder: Path, step: int, why: str) -> Path:
    """A name, which nobody can foresee, for what is not (or no longer) a checkpoint."""
    return folder / f"{step}.{secrets.token_hex(8)}.{why}"


def _write(path: Path, step: int, tree: Tree, run: str) -> None:
    """Write a checkpoint into an empty folder."""
    try:
        with _failing_once(), _alone(), _checkpointer() as checkpointer:
            checkpointer.save(path / "state", _to_arrays(tree))
    except Exception as error:  # orbax has no common class for a disk that is full or gone
        raise OSError(f"checkpoint {path.parent / str(step)}: {_reason(error)}") from error
    manifest = {"step": step, "run": run, "layout": layout(tree), "sha256": _digests(path)}
    (path / MANIFEST).write_text(json.dumps(manifest))


@contextmanager
def _failing_once() -> Iterator[None]:
    """Keep what orbax raises from being printed as well, by each of its threads and tasks."""
    with tempfile.TemporaryFile() as printed:
        stderr = os.dup(2)
        os.dup2(printed.fileno(), 2)
        try:
            yield
            printed.seek(0)
            os.write(stderr, printed.read())
        except Exception:
            # A task is told of when Python collects it; the threads take a moment to end.
            logging.getLogger("asyncio").setLevel(logging.CRITICAL)
            time.sleep(0.5)
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _reason(error: Exception) -> str:
    """What went wrong with a file, without the files' names: the system's words, if it has any."""
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number)
    return next(iter(text.splitlines()), type(error).__name__)[:200]


def _remove_older(folder: Path, newest: Path) -> None:
    """Remove what `save` made before `newest`, and nothing of the user's or that is being read."""
    for old in folder.iterdir():
        if old == newest or not _OURS.fullmatch(old.name):
            continue
        try:
            with locks.unread(old / MANIFEST) as free:
                if free:
                    shutil.rmtree(old, ignore_errors=True)
        except FileNotFoundError:  # without a manifest: never completed, or not ours
            if not _STEP.fullmatch(old.name):
                shutil.rmtree(old, ignore_errors=True)


def latest(folder: Path) -> Path | None:
    """The newest complete checkpoint in `folder`, or None."""
    found = [p for p in folder.glob("*") if _STEP.fullmatch(p.name)]
    return max(found, key=lambda p: int(p.name), default=None)


def adopt(source: Path, folder: Path) -> int | None:
    """Make the newest checkpoint of another folder one of `folder`, whoever still writes there.

    Its files are linked, or copied where the file system has no links: they never change.

    Returns:
      Its step; None where there is none.
    """
    while (path := latest(source)) is not None:
        with locks.reading(path / MANIFEST) as kept:
            partial = _aside(folder, int(path.name), "partial")
            try:
                shutil.copytree(path, partial, copy_function=_link_or_copy)
                partial.rename(folder / path.name)
                return int(path.name)
            except (FileNotFoundError, shutil.Error):
                shutil.rmtree(partial, ignore_errors=True)
                if kept and path.exists():
                    raise
    return None


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)


def restore_newest(folder: Path, like: Tree, run: str = "") -> tuple[int, Tree] | None:
    """What `restore` returns of the newest checkpoint, also while newer ones are being written.

    Returns:
      None where there is no checkpoint.

    Raises:
      UserError: the newest one is damaged, or of another config or program.
    """
    while (path := latest(folder)) is not None:
        with locks.reading(path / MANIFEST) as kept:
            if kept or latest(folder) == path:  # else a newer one has taken its place
                return restore(path, like, run)
    return None


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
            f"checkpoint {path} is of another run: its config, seeds, payoffs or recorded episodes "
            "differ from those here; resume with what wrote it"
        )
    # To one device, whatever devices it was saved from; the caller spreads it.
    here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here),
        jax.eval_shape(_to_arrays, like),
    )
    with _alone(), _checkpointer() as checkpointer:
        arrays = checkpointer.restore(path / "state", target)
    return step, _from_arrays(jax.tree.map(np.asarray, arrays), like)


@contextmanager
def _alone() -> Iterator[None]:
    """Let orbax take this process for the only one.

    Each of several JAX processes saves what it alone has trained, when it gets there. Orbax would
    write on the first of them and wait for all others. It asks the public functions of jax.
    """
    asked = jax.process_count, jax.process_index
    jax.process_count, jax.process_index = lambda *_: 1, lambda *_: 0
    try:
        yield
    finally:
        jax.process_count, jax.process_index = asked


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
