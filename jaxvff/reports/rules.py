"""What makes a task: two entries are of one task where the rules of their games are the same.

A name does not tell. Games of one name may have other time limits, and a file of payoffs may have
changed between two runs; and one game may be named in two ways, by a default that one run spells
out, or by another path of the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain
from jaxvff.core.options import options_of
from jaxvff.envs import ENVS, payoffs
from jaxvff.reports.entry import Entry
from jaxvff.reports.records import env_name
from jaxvff.runs.files import INPUTS, kept_copy

PAYOFFS = "payoffs"  # a rule: their digest, in place of the file or the list
UNTOLD = "of"  # a rule of a record that tells no options: the file that it is from


def of_run(env: Mapping[str, Any], run: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """The rules of the environment of a run.

    Args:
      env: its options, as config.yaml has them.
      run: the folder, which keeps copies of files that an environment reads.
      record: of table.json; empty before the end of a run.
    """
    path = env.get("file")
    if path is not None and (copy := kept_copy(run / INPUTS, str(path))).exists():
        try:
            return _with_payoffs(env, payoffs.read(copy, "env.file"))
        except UserError:  # of an environment that reads other files
            return {**_rules(env), "file": hashlib.sha256(copy.read_bytes()).hexdigest()[:8]}
    return of_record(env, record)


def of_record(env: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """The rules that a record tells: options, and payoffs where they were given."""
    if env.get("payoff") is not None:
        return _with_payoffs(env, env["payoff"])
    if env.get("file") is not None and "payoff" in record:
        return _with_payoffs(env, record["payoff"])
    return _rules(env)


def completed(entries: Sequence[Entry]) -> list[Entry]:
    """The same entries, with defaults where others of their game tell an option and they do not."""
    told: dict[str, set[str]] = {}
    for entry in entries:
        told.setdefault(env_name(entry.env), set()).update(entry.rules)
    out = []
    for entry in entries:
        missing = told[env_name(entry.env)] - entry.rules.keys() - {PAYOFFS, UNTOLD, "file"}
        if missing and UNTOLD not in entry.rules:
            defaults = _defaults(entry.env["kind"])
            own = {name: defaults[name] for name in missing if name in defaults}
            entry = replace(entry, rules=entry.rules | own)
        out.append(entry)
    return out


def _defaults(kind: str) -> dict[str, Any]:
    """Of the options of an environment of this package; nobody else's code is run.

    This imports JAX: it is asked for where two entries of a game do not tell the same options.
    """
    if kind not in ENVS.own:
        return {}
    try:
        options = options_of(ENVS[kind].options)
    except ImportError:  # its game is not installed here
        return {}
    return _rules({option.name: option.default for option in options})


def _with_payoffs(env: Mapping[str, Any], table: object) -> dict[str, Any]:
    rest = {k: v for k, v in env.items() if k not in ("file", "payoff")}
    # Six digits: a record has rounded payoffs, and a file has them as they were written.
    text = " ".join(f"{x:.6g}" for x in np.asarray(table, np.float32).ravel())
    return {**_rules(rest), PAYOFFS: hashlib.sha256(text.encode()).hexdigest()[:8]}


def _rules(env: Mapping[str, Any]) -> dict[str, Any]:
    """Options that are set: a record may name those that are not, and -2 is -2.0."""
    return {k: _canonical(v) for k, v in plain(dict(env)).items() if v is not None}


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _canonical(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_canonical(v) for v in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
