"""The sweep values of run folders, also of runs that go on, and of files of records; no JAX."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.reports import rules, table_file
from jaxvff.reports.entry import COMPLETE, ENDED, RECORDED, RUNNING, Entry, Learned, Training
from jaxvff.reports.records import SUCCESSES, Line, MedianSeed
from jaxvff.reports.statistics import Rate, wilson
from jaxvff.runs import job_files, locks, run_file
from jaxvff.runs.files import TIMING_FILE


def read(path: Path) -> list[Entry]:
    """The sweep values of a run folder, or of a file of records (table.json, table1.json).

    Raises:
      UserError: it is neither, or damaged.
    """
    return list(_of_file(path) if path.is_file() else _of_folder(path))


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
    table = table_file.read(folder)
    results, machine = table or ((), {})
    records = {table_file.identity(r["sweep"], r["method"], r["env"]): r for r in results}
    for job in job_files.folders(folder):
        lines, values = job_files.lines(job), job_files.values(job)
        timing = _json(job / TIMING_FILE)
        lanes = sum(config["seeds"] for _, config in values)
        for sweep, config in values:
            mine = [line for line in lines if line["sweep"] == sweep]
            key = table_file.identity(sweep, config["method"]["name"], config["env"])
            yield _of_job(
                str(folder), command, sweep, config, mine, records.get(key, {}), machine,
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
    n_seeds = len(seeds)
    return Entry(
        trainings=(Training(run, command, n_seeds, steps, timing, machine, _learned(record)),),
        rules=rules.of_run(config["env"], Path(run), record),
        sweep=sweep,
        method=config["method"]["name"],
        env=config["env"],
        settings=flat(config),
        seeds=seeds,
        n_seeds=n_seeds,
        steps=steps,
        total_steps=total,
        state=state,
        lines=lines,
        **_results(newest | _numbers(record), n_seeds),
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
    timing, steps = record.get("timing", {}), record["steps"]
    untold = {} if record.get("env") else {rules.UNTOLD: str(path)}
    return Entry(
        trainings=(Training(str(path), "", n_seeds, steps, timing, machine, _learned(record)),),
        rules=rules.of_record(env, record) | untold,
        sweep=sweep,
        method=method,
        env=env,
        settings={"method.name": method} | own | label | swept | {"total_steps": steps},
        seeds=seeds,
        n_seeds=n_seeds,
        steps=steps,
        total_steps=steps,
        state=RECORDED,
        lines=lines,
        **_results(newest | _numbers(record), len(seeds)),
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
