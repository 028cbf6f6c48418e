"""The jobs of a run as its files have them: nothing is planned, and no code is run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain
from jaxvff.runs import metrics_file
from jaxvff.runs.files import CONFIG_FILE, METRICS_FILE


class Value(NamedTuple):
    """A sweep value: what config.yaml has of it."""

    label: dict[str, Any]  # the swept keys with their values, as JSON values
    config: dict[str, Any]  # the composed configuration, as JSON values


def folders(run: Path) -> list[Path]:
    """The folders of the jobs that have begun, in their order."""
    if (run / CONFIG_FILE).exists():
        return [run]
    return sorted(path.parent for path in run.glob("*/" + CONFIG_FILE))


def lines(job: Path) -> list[dict[str, Any]]:
    """The reports of a job; none before the first.

    Raises:
      UserError: a line is no report.
    """
    path = job / METRICS_FILE
    return metrics_file.read(path) if path.exists() else []


def values(job: Path) -> list[Value]:
    """The sweep values of a job.

    Raises:
      UserError: config.yaml is damaged.
    """
    path = job / CONFIG_FILE
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is there
    out = []
    try:
        for document in path.read_text(encoding="utf-8").split("---\n"):
            first = document.partition("\n")[0]
            label = ast.literal_eval(first.removeprefix("# ")) if first.startswith("# {") else {}
            config = yaml.load(document, loader)
            config["method"]["name"], config["env"]["kind"], config["total_steps"]
            out.append(Value(plain(label), plain(config)))
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or train again") from error
    return out
