"""What a report is made of: the sweep values of run folders and of record files.

It reads files alone, without JAX, also of a run that goes on.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain
from jaxvff.reports.records import SUCCESSES, Line, MedianSeed, Titled, env_name, env_steps
from jaxvff.reports.statistics import Rate, wilson
from jaxvff.runs import locks, metrics_file, run_file
from jaxvff.runs.files import CONFIG_FILE, METRICS_FILE, TABLE_FILE, TIMING_FILE

# The settings that say where results go and which seeds are trained, not what is trained.
ELSEWHERE = (
    "run_dir", "tensorboard", "wandb", "sink", "compilation_cache", "checkpoint_interval", "seed",
    "seeds", "lanes_per_device",
)  # fmt: skip
COMPLETE, RUNNING, ENDED, RECORDED = "complete", "running", "ended early", "a record"
MOST_NAMED = 3  # settings in a name


class Learned(NamedTuple):
    """What the median seed learned of a matrix game."""

    payoff: np.ndarray  # [U] * A, env units
    median_seed: MedianSeed


@dataclass(frozen=True, kw_only=True)
class Entry(Titled):
    """A sweep value of one run, or of several that differ in their seeds alone."""

    run: str  # the folder or file that it is from; of several: all, with commas
    settings: dict[str, Any]  # of the composed configuration, by dotted keys; of a record: its own
    seeds: list[int]
    n_seeds: int  # len(seeds), but for records that only count them
    steps: int  # nominal env steps a seed that were done
    total_steps: int  # that were asked for
    state: str
    lines: list[Line]  # a report each, with lists over seeds
    final: dict[str, np.ndarray]  # test_* and what else a record has of its seeds, [seeds]
    rates: dict[str, Rate] = field(default_factory=dict)  # of SUCCESSES
    learned: Learned | None = None
    stopped_at: np.ndarray  # [seeds] env steps; -1: the seed did not stop
    timing: dict[str, float]  # of the whole job: compile_s, wall_s, lanes_in_program
    machine: dict[str, Any]
    command: str = ""

    @property
    def stopped(self) -> dict[int, int]:
        """The seeds that stopped, with the env steps at which they did."""
        pairs = zip(self.seeds, self.stopped_at.tolist(), strict=True)
        return {seed: int(at) for seed, at in pairs if at >= 0}

    @property
    def seed_steps_per_s(self) -> float:
        """Env steps per second, summed over the lanes of its job, compilation left out."""
        seconds = self.timing.get("wall_s", 0.0) - self.timing.get("compile_s", 0.0)
        lanes = self.timing.get("lanes_in_program", self.n_seeds)
        return lanes * self.steps / seconds if seconds > 0 else float("nan")

    def curve(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Env steps and values of a metric, `[reports, seeds]` each, where any seed has a number.

        A seed without a number has NaN.
        """
        lines = [line for line in self.lines if _measured(line, name)]
        values = [np.array(line[name], float) for line in lines]
        steps = [np.array(env_steps(line), float) for line in lines]
        shape = (len(lines), len(self.seeds))
        return np.reshape(steps, shape), np.reshape(values, shape)


def read(path: Path) -> list[Entry]:
    """The sweep values of a run folder, or of a file of records (table.json, table1.json).

    Raises:
      UserError: it is neither, or damaged.
    """
    return list(_of_file(path) if path.is_file() else _of_folder(path))


def pooled(entries: Sequence[Entry]) -> list[Entry]:
    """Entries whose settings differ in their seeds alone become one; a seed counts once.

    Runs of the same settings and seeds stay apart: they are repetitions, not further seeds. Records
    do not say all of their settings, so they stay as they are.
    """
    out: list[Entry] = []
    alike: dict[str, list[int]] = {}  # what was trained -> where entries of it are in `out`
    for entry in entries:
        same = alike.setdefault(json.dumps([plain(what(entry)), entry.steps], sort_keys=True), [])
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
        groups.setdefault(json.dumps(_task(entry), sort_keys=True), []).append(entry)
    firsts = [group[0] for group in groups.values()]
    names = _apart([env_name(e.env) for e in firsts], firsts, [_task(e) for e in firsts])
    return dict(zip(_numbered(names), groups.values(), strict=True))


def named(entries: Sequence[Entry]) -> list[str]:
    """A name for each entry of one task: its method, and what else tells it from the others."""
    settings = [
        {k: v for k, v in what(e).items() if not k.startswith("env.") and k != "method.name"}
        for e in entries
    ]
    found = _apart([entry.algorithm for entry in entries], entries, settings)
    count = Counter(found)
    return _numbered(
        name if count[name] == 1 else f"{name} ({entry.run})"
        for name, entry in zip(found, entries, strict=True)
    )


def _task(entry: Entry) -> dict[str, Any]:
    """The options of an environment that are set; a record may name those that are not."""
    return {k: v for k, v in flat(plain(entry.env)).items() if v is not None}


def _numbered(names: Iterable[str]) -> list[str]:
    """Names of which no two are the same: the second one of a kind is numbered 2."""
    seen: Counter[str] = Counter()
    out = []
    for name in names:
        seen[name] += 1
        out.append(name if seen[name] == 1 else f"{name} #{seen[name]}")
    return out


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys, such as env.map."""
    out: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        out |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return out


def _of_folder(folder: Path) -> Iterator[Entry]:
    command, _ = run_file.read(folder)
    running = locks.held(folder) is True
    records, machine = _table(folder / TABLE_FILE)
    jobs = [folder] if (folder / CONFIG_FILE).exists() else sorted(folder.glob("*/" + CONFIG_FILE))
    for job in jobs:
        files = job if job == folder else job.parent
        lines = _lines(files / METRICS_FILE)
        settings = _configs(files / CONFIG_FILE)
        timing = _json(files / TIMING_FILE)
        lanes = sum(config["seeds"] for _, config in settings)
        for sweep, config in settings:
            mine = [line for line in lines if line["sweep"] == sweep]
            record = records.get(_key(sweep, config["method"]["name"], config["env"]), {})
            yield _of_job(
                str(folder), command, sweep, config, mine, record, machine,
                timing | {"lanes_in_program": lanes}, running,
            )  # fmt: skip


def _of_job(
    run: str,
    command: str,
    sweep: dict[str, Any],
    config: dict[str, Any],
    lines: list[Line],
    record: dict[str, Any],
    machine: dict[str, Any],
    timing: dict[str, float],
    running: bool,
) -> Entry:
    """An entry of what the files of a job say of one sweep value.

    Args:
      run: its folder.
      command: of the run.
      sweep: the label.
      config: the composed configuration.
      lines: its reports.
      record: of table.json; empty before the end of a run.
      machine: of table.json.
      timing: of the job.
      running: whether a process writes into the folder.
    """
    seeds = list(range(config["seed"], config["seed"] + config["seeds"]))
    newest = lines[-1] if lines else {}
    steps = max(record.get("steps", 0), newest.get("step", 0))
    if record.get("steps") != steps:  # the table of an earlier sitting
        record = {}
    total = config["total_steps"]
    collection = config["n_envs"] * (config["segment_length"] - 1)
    state = COMPLETE if steps > total - collection else RUNNING if running else ENDED
    timing = {"wall_s": newest.get("wall_s", 0.0)} | timing
    return Entry(
        run=run,
        command=command,
        sweep=sweep,
        method=config["method"]["name"],
        env=config["env"],
        settings=flat(config),
        seeds=seeds,
        n_seeds=len(seeds),
        steps=steps,
        total_steps=total,
        state=state,
        lines=lines,
        timing=timing,
        machine=machine,
        **_results(newest | _numbers(record), len(seeds)),
        learned=_learned(record),
    )


def _of_file(path: Path) -> Iterator[Entry]:
    """What a file of records has: `results`, each with a sweep, and results of its seeds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        results = content["results"]
        machine = content.get("machine", {}) | {
            k: content[k] for k in ("commit",) if isinstance(content.get(k), str)
        }
        entries = [_of_record(path, machine, result) for result in results]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(
            f"{path} is no run folder, and no file of records: it has no `results` with a sweep, "
            f"a method and an environment each ({type(error).__name__}: {error}); give run "
            "folders, or a table.json"
        ) from error
    yield from entries


def _of_record(path: Path, machine: dict[str, Any], record: dict[str, Any]) -> Entry:
    sweep = record["sweep"]
    kind, _, name = str(sweep.get("env", "")).partition("/")
    env = record.get("env") or {"kind": kind, "map": name}
    seeds = list(record.get("seed", ()))
    n_seeds = len(seeds) or int(record["n_seeds"])
    lines = _record_lines(record, seeds)
    newest = {k: v for k, v in (lines[-1] if lines else {}).items() if k.startswith("test_")}
    own = {f"env.{k}": v for k, v in flat(env).items()}
    method = str(record.get("method") or sweep["method"])
    swept = {k: v for k, v in sweep.items() if k not in ("env", "method")}
    label = {"label": record["label"]} if record.get("label", method) != method else {}
    return Entry(
        run=str(path),
        sweep=sweep,
        method=method,
        env=env,
        settings={"method.name": method} | own | label | swept | {"total_steps": record["steps"]},
        seeds=seeds,
        n_seeds=n_seeds,
        steps=record["steps"],
        total_steps=record["steps"],
        state=RECORDED,
        lines=lines,
        timing=record.get("timing", {}),
        machine=machine,
        **_results(newest | _numbers(record), len(seeds)),
        learned=_learned(record),
    )


def _record_lines(record: Mapping[str, Any], seeds: Sequence[int]) -> list[Line]:
    """The curve of a record: a list of lines, or lists by name; of shares there are no seeds."""
    if "share_by_step" in record:  # of `reproduce table1`
        return [{"step": int(k)} | shares for k, shares in record["share_by_step"].items()]
    curve = record.get("curve", [])
    if isinstance(curve, dict):
        names = list(curve)
        curve = [
            {name: curve[name][k] for name in names} for k in range(len(curve.get("step", ())))
        ]
    return [{"seed": list(seeds)} | line for line in curve]


def _results(numbers: Mapping[str, Any], n_seeds: int) -> dict[str, Any]:
    """The fields of an Entry that are numbers of its seeds at the end, from a line or a record."""
    found = {
        k: np.array(v, float)
        for k, v in numbers.items()
        if isinstance(v, list) and len(v) == n_seeds and n_seeds and _is_score(k)
    }
    rates = {k: Rate(**v) for k, v in numbers.get("rates", {}).items()}
    if not rates and all(k in numbers for k in SUCCESSES):
        rates = {k: wilson(sum(map(bool, numbers[k])), n_seeds) for k in SUCCESSES}
    stopped = numbers.get("stopped_at", [-1] * n_seeds)
    return {"final": found, "rates": rates, "stopped_at": np.array(stopped, int)}


def _is_score(name: str) -> bool:
    return name.startswith("test_") or name in ("max_error", "regret")


def _numbers(record: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a record's seeds, as a line has them, and its rates."""
    own = {k: record[k] for k in ("test_return", "stopped_at", "rates") if k in record}
    return own | record.get("per_seed", {})


def _learned(record: Mapping[str, Any]) -> Learned | None:
    if "median_seed" not in record:
        return None
    median = record["median_seed"]
    q_tot, utilities = (np.array(median[k], float) for k in ("q_tot", "utilities"))
    return Learned(np.array(record["payoff"], float), MedianSeed(median["seed"], q_tot, utilities))


def _table(path: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """The records of a table.json by label, method and environment, and the machine."""
    content = _json(path)
    try:
        records = {_key(r["sweep"], r["method"], r["env"]): r for r in content.get("results", ())}
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or train again") from error
    return records, content.get("machine", {})


def _key(sweep: dict[str, Any], method: str, env: dict[str, Any]) -> str:
    return json.dumps([sweep, method, env], sort_keys=True)


def _lines(path: Path) -> list[Line]:
    return metrics_file.read(path) if path.exists() else []


def _json(path: Path) -> dict[str, Any]:
    """The content of a JSON file; nothing if there is none yet.

    Raises:
      UserError: it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("no JSON object")
        return content
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or train again") from error


def _configs(path: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The sweep values of a config.yaml: the label of each and its configuration.

    Raises:
      UserError: it is damaged.
    """
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where it is there
    out = []
    try:
        for document in path.read_text(encoding="utf-8").split("---\n"):
            first = document.partition("\n")[0]
            label = ast.literal_eval(first.removeprefix("# ")) if first.startswith("# {") else {}
            config = yaml.load(document, loader)
            config["method"]["name"], config["env"]["kind"], config["total_steps"]
            out.append((plain(label), plain(config)))
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it, or train again") from error
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
        run=f"{one.run}, {other.run}",
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


def _measured(line: Line, name: str) -> bool:
    return any(x is not None for x in line.get(name, ()))


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
