"""table.json: the record of every sweep value of a run, and the machine; no JAX."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain
from jaxvff.reports import records
from jaxvff.reports.records import Record
from jaxvff.runs import shards
from jaxvff.runs.files import TABLE_FILE


class Table(NamedTuple):
    """What is in the file, as JSON values."""

    results: list[dict[str, Any]]  # a record each
    machine: dict[str, Any]


def read(folder: Path) -> Table | None:
    """The file of a run folder; None where there is none yet.

    Raises:
      UserError: it is damaged.
    """
    path = folder / TABLE_FILE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        results, machine = told["results"], told.get("machine", {})
        for each in results:
            identity(each["sweep"], each["method"], each["env"]), each["steps"] + 0
        return Table(list(results), dict(machine))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from error


def read_records(folder: Path) -> list[Record]:
    """The records of a run.

    Raises:
      UserError: there are none yet, or they cannot be read.
    """
    table = read(folder)
    if table is None:
        shards.check_is_whole(folder)
        raise UserError(
            f"{folder} has no {TABLE_FILE}, which is written when training ends; evaluate it from "
            "its newest checkpoint (jaxvff evaluate, run.evaluate())"
        )
    try:
        return [records.from_json(each) for each in table.results]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(folder / TABLE_FILE, error) from error


def identity(sweep: Mapping[str, Any], method: str, env: Mapping[str, Any]) -> str:
    """Tells the sweep values of a run apart, whichever of its parts they are of."""
    return json.dumps(plain([sweep, method, env]), sort_keys=True)


def damaged(path: Path, error: Exception) -> UserError:
    """What is told of a file that cannot be read."""
    what = f"{type(error).__name__}: {error}"
    return UserError(f"{path} cannot be read ({what}); restore it, or train again")
