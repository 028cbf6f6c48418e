"""Copies of the files that a run reads, so that its folder is all that it needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxvff.core.errors import UserError
from jaxvff.core.files import whole
from jaxvff.core.options import options_of
from jaxvff.envs import ENVS
from jaxvff.runs.files import kept_copy
from jaxvff.settings.config import Config


def keep(folder: Path, configs: Iterable[Config]) -> None:
    """Copy what runs read: payoffs, say, or recorded episodes.

    Args:
      folder: for the copies; it is made where there are any.
      configs: of each sweep value.

    Raises:
      UserError: a file cannot be copied, say onto a full disk.
    """
    for path in (path for config in configs for path in _read_by(config)):
        copy = kept_copy(folder, path)
        if copy.exists():
            continue
        try:
            folder.mkdir(exist_ok=True)
            with whole(copy) as partial:
                shutil.copyfile(path, partial)
        except OSError as error:
            raise UserError(
                f"{path} cannot be copied into {folder}, where a run keeps what it reads: "
                f"{error.strerror}; make room, or name a run_dir on another disk"
            ) from error


def kept(env: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`Config.env` with the copies in place of the files; older runs kept none."""
    return {**env, **{name: kept_file(path, folder) for name, path in _of_env(env).items()}}


def kept_file(path: str, folder: Path) -> str:
    """The copy of a file; the file itself where a run kept none, as older ones did."""
    copy = kept_copy(folder, path)
    return str(copy) if copy.exists() else path


def _read_by(config: Config) -> list[str]:
    """The paths of all files that a run reads."""
    return [*_of_env(config.env).values(), *_named(Config, vars(config)).values()]


def _of_env(env: Mapping[str, Any]) -> dict[str, str]:
    """The options of an environment that name a file, with its path."""
    return _named(ENVS[env["kind"]].options, env) if env.get("kind") in ENVS else {}


def _named(options: type, values: Mapping[str, Any]) -> dict[str, str]:
    """The options that name a file, with its path."""
    names = [o.name for o in options_of(options) if o.about.file]
    return {name: str(values[name]) for name in names if values.get(name) is not None}
