"""Copies of the files that a run reads, so that its folder is all that it needs."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxvff.core.files import file_name, whole
from jaxvff.core.options import options_of
from jaxvff.envs import ENVS

FOLDER = "inputs"  # in the folder of a run


def keep(folder: Path, envs: Iterable[Mapping[str, Any]]) -> None:
    """Copy what environments read.

    Args:
      folder: for the copies; it is made where there are any.
      envs: `Config.env` of each sweep value.
    """
    for env in envs:
        for path in _files(env).values():
            copy = _copy(folder, path)
            if not copy.exists():
                folder.mkdir(exist_ok=True)
                with whole(copy) as partial:
                    shutil.copyfile(path, partial)


def kept(env: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`Config.env` with the copies in place of the files; older runs kept none."""
    copies = {name: _copy(folder, path) for name, path in _files(env).items()}
    return {**env, **{name: str(copy) for name, copy in copies.items() if copy.exists()}}


def _files(env: Mapping[str, Any]) -> dict[str, str]:
    """The options that name a file, with its path."""
    if env.get("kind") not in ENVS:
        return {}
    names = [o.name for o in options_of(ENVS[env["kind"]].options) if o.about.file]
    return {name: str(env[name]) for name in names if env.get(name) is not None}


def _copy(folder: Path, path: str) -> Path:
    """Where the copy of a file is; files of one name do not meet."""
    digest = hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return folder / f"{digest}_{file_name(Path(path).name, 100)}"
