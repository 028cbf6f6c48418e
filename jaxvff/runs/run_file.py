"""run.yaml: the command and the overrides that repeat a run; light to import."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from jaxvff.core.errors import UserError
from jaxvff.settings.overrides import Override, parse

NAME = "run.yaml"


def write(folder: Path, command: str, parts: Iterable[Iterable[Override]]) -> None:
    """Write down how to repeat a run.

    Args:
      folder: of the run.
      command: that made it, such as "train" or "reproduce table1".
      parts: its parts, each with overrides of its own.
    """
    from jaxvff.core.files import write_text

    texts = [[o.text for o in part] for part in parts]
    write_text(folder / NAME, yaml.safe_dump({"command": command, "parts": texts}))


def read(folder: Path, command: str | None = None) -> tuple[str, list[list[Override]]]:
    """The command that made a run, and the overrides of each of its parts.

    Args:
      folder: of the run.
      command: the one that has to have made it; None: any.

    Raises:
      UserError: there is no such folder, it is none of ours, or of another command.
    """
    try:
        saved = yaml.safe_load((folder / NAME).read_text(encoding="utf-8"))
        made_by, parts = saved["command"], saved["parts"]
        if not isinstance(made_by, str) or not _are_parts(parts):
            raise TypeError(saved)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run folder: it has no readable {NAME}") from error
    if command not in (None, made_by):
        raise UserError(f"{folder} is of another command; use jaxvff {made_by} resume={folder}")
    return made_by, [parse(part) for part in parts]


def _are_parts(parts: object) -> bool:
    """Whether it is a list of lists of texts, at least one."""
    return (
        isinstance(parts, list)
        and bool(parts)
        and all(isinstance(part, list) and all(isinstance(o, str) for o in part) for part in parts)
    )
