"""What sweep values have to do with each other: which are one, of one task, and what differs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from jaxvff.core.files import plain
from jaxvff.reports.entry import RECORDED, Entry
from jaxvff.reports.entry_files import flat
from jaxvff.reports.records import Line, env_name
from jaxvff.reports.statistics import wilson

# The settings that say where results go and which seeds are trained, not what is trained.
ELSEWHERE = (
    "run_dir", "tensorboard", "wandb", "sink", "compilation_cache", "checkpoint_interval", "seed",
    "seeds", "lanes_per_device",
)  # fmt: skip
MOST_NAMED = 3  # settings in a name


def pooled(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose settings differ in their seeds alone become one; a seed counts once.

    Runs of the same settings and seeds stay apart: they are repetitions, not further seeds. Records
    do not say all of their settings, so they stay as they are.
    """
    out: list[Entry] = []
    alike: dict[str, list[int]] = {}  # what was trained -> where entries of it are in `out`
    for entry in entries:
        own = {k: v for k, v in what(entry).items() if not k.startswith("env.")}
        trained = plain([own, entry.rules, entry.steps])
        same = alike.setdefault(json.dumps(trained, sort_keys=True), [])
        for k in same:
            if entry.state != RECORDED and not set(out[k].seeds) & set(entry.seeds):
                out[k] = _joined(out[k], entry)
                break
        else:
            same.append(len(out))
            out.append(entry)
    return out


def what(entry: Entry) -> dict[str, Any]:
    """The settings of what is trained, without where results go and which seeds there are."""
    return {k: v for k, v in entry.settings.items() if k not in ELSEWHERE}


def differences(entries: Sequence[Entry]) -> dict[str, list[Any]]:
    """The settings in which entries differ, each with its value in every entry.

    None where an entry does not have the setting. A record does not say all of its settings, so
    that one which it lacks is no difference.
    """
    keys = dict.fromkeys(key for entry in entries for key in what(entry))
    out = {}
    for key in keys:
        of_all = [entry.settings.get(key) for entry in entries]
        told = [e for e in entries if e.state != RECORDED or key in e.settings]
        said = [e.settings.get(key) for e in told]
        if any(v != said[0] for v in said):
            out[key] = of_all
    return out


def by_task(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Entries by the task that they learn, named as briefly as the others allow.

    Tasks that differ in an option of their environment alone, such as a penalty, are apart.
    """
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(json.dumps(entry.rules, sort_keys=True), []).append(entry)
    firsts = [group[0] for group in groups.values()]
    names = _apart([env_name(e.env) for e in firsts], firsts, [flat(e.rules) for e in firsts])
    return dict(zip(_unique(names, firsts), groups.values(), strict=True))


def named(entries: Sequence[Entry]) -> list[str]:
    """A name for each entry of one task: its method, and what else tells it from the others."""
    settings = [
        {k: v for k, v in what(e).items() if not k.startswith("env.") and k != "method.name"}
        for e in entries
    ]
    return _unique(_apart([entry.algorithm for entry in entries], entries, settings), entries)


def _unique(names: Sequence[str], entries: Sequence[Entry]) -> list[str]:
    """Names of which no two are the same: with their runs, where they are alike."""
    count = Counter(names)
    return _numbered(
        name if count[name] == 1 else f"{name} ({entry.run})"
        for name, entry in zip(names, entries, strict=True)
    )


def _numbered(names: Iterable[str]) -> list[str]:
    """Names of which no two are the same: the second one of a kind is numbered 2."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return out


def _joined(one: Entry, other: Entry) -> Entry:
    """Two entries with the seeds of both; reports that both have."""
    theirs = {line["step"]: line for line in other.lines}
    lines = [_both(line, theirs[line["step"]]) for line in one.lines if line["step"] in theirs]
    final = {
        k: np.concatenate([one.final[k], other.final[k]]) for k in one.final if k in other.final
    }
    rates = {
        k: wilson(one.rates[k].successes + other.rates[k].successes, one.n_seeds + other.n_seeds)
        for k in one.rates
        if k in other.rates
    }
    return replace(
        one,
        trainings=one.trainings + other.trainings,
        seeds=one.seeds + other.seeds,
        n_seeds=one.n_seeds + other.n_seeds,
        state=one.state if one.state == other.state else f"{one.state}, {other.state}",
        lines=lines,
        final=final,
        rates=rates,
        stopped_at=np.concatenate([one.stopped_at, other.stopped_at]),
    )


def _both(line: Line, other: Line) -> Line:
    lists = {k for k, v in line.items() if isinstance(v, list) and isinstance(other.get(k), list)}
    return {k: v + other[k] if k in lists else v for k, v in line.items()}


def _apart(
    briefly: Sequence[str], entries: Sequence[Entry], settings: Sequence[dict[str, Any]]
) -> list[str]:
    """Brief names, with the settings in which those of the same brief name differ.

    Where the differences are in what a sweep varies, only these are named.

    Args:
      briefly: the brief names.
      entries: that they are of.
      settings: of each entry, those that may be named.
    """
    alike: dict[str, list[dict[str, Any]]] = {}
    for name, mine in zip(briefly, settings, strict=True):
        alike.setdefault(name, []).append(mine)
    varied = {name: _varied(of_name) for name, of_name in alike.items()}
    out = []
    for name, entry, mine in zip(briefly, entries, settings, strict=True):
        own = {k: v for k, v in mine.items() if k in varied[name]}
        swept = {k: v for k, v in own.items() if k in entry.sweep or f"env.{k}" in entry.sweep}
        shown = [f"{k}={v}" for k, v in (swept or own).items()][:MOST_NAMED]
        out.append(", ".join([name, *shown]))
    return out


def _varied(settings: Sequence[dict[str, Any]]) -> set[str]:
    """The keys that have several values; of a key that a record lacks, it says nothing."""
    keys = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each[key] for each in settings if key in each] for key in keys}
    return {key for key, found in values.items() if any(v != found[0] for v in found)}
