"""Make of the shards of a plan what one machine would have made of the run.

The plan's folder becomes the run's: configs, metrics.jsonl and timing.json of every job, and, where
asked for, checkpoints. Nothing of the shards changes, so that merging can be repeated.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import plain, write_json, write_text
from jaxvff.core.types import Tree
from jaxvff.runs import checkpoint, execute, learned, metrics_file, shards
from jaxvff.runs.execute import Result
from jaxvff.runs.files import METRICS_FILE, TIMING_FILE
from jaxvff.runs.folder import CHECKPOINTS, job_folder
from jaxvff.runs.leases import Shelf, Standing
from jaxvff.runs.plan import Job
from jaxvff.runs.shards import Plan, Shard
from jaxvff.runs.work import RESULTS

MOST_NAMED = 5  # shards or seeds in a message


class Part(NamedTuple):
    """A complete shard."""

    folder: Path
    shard: Shard
    about: dict[str, Any]  # as work.py wrote it
    metrics: list[dict[str, np.ndarray]]  # of the last report, by sweep value, leaves [seeds, ...]


def merge(
    folder: Path, jobs: Sequence[Job], parts: Sequence[Part], *, checkpoints: bool
) -> list[Result]:
    """Merge all shards; the result of every sweep value.

    Args:
      folder: of the plan, whose lock is held.
      jobs: of the whole run.
      parts: from `load`.
      checkpoints: merge these, too.

    Raises:
      UserError: a shard's reports or checkpoint are missing or damaged.
    """
    results: list[Result] = []
    for index, job in enumerate(jobs):
        mine = sorted(
            (part for part in parts if part.shard.job == index),
            key=lambda p: (p.shard.values.start, p.shard.seeds.start),
        )
        files = job_folder(folder, jobs, index)
        files.mkdir(exist_ok=True)
        execute.write_config(files, job)
        _merge_lines(files / METRICS_FILE, job, mine)
        timing = {
            name: round(sum(part.about["timing"][name] for part in mine), 2)
            for name in ("compile_s", "wall_s")
        }
        write_json(files / TIMING_FILE, timing)
        steps_per_iteration = job.config.steps_per_iteration
        iteration = mine[0].about["step"] // steps_per_iteration
        if checkpoints:
            _merge_checkpoints(files / CHECKPOINTS, job, jobs, mine)
        metrics = _whole(job, mine)
        results += execute.results(job, files, iteration, metrics=metrics, timing=timing)
    return results


def load(folder: Path, plan: Plan, jobs: Sequence[Job]) -> list[Part]:
    """All shards, once it is sure that they are the run's and that they are all.

    Raises:
      UserError: a shard is not complete, damaged, or of another plan, version or config; or seeds
        are missing or there twice.
    """
    shelf = Shelf(folder / shards.FOLDER)
    standings = shelf.standings(len(plan.shards))
    _check_complete(folder, standings)
    parts = [_read(s.attempt) for s in standings if s.attempt is not None]
    fingerprints: dict[Shard, str] = {}
    for part in parts:
        whose = f"{part.folder}, done by {owner(part.about)},"
        if part.about["plan"] != plan.id:
            raise UserError(
                f"{whose} is of another plan: the folder was changed after that shard was trained; "
                "restore run.yaml, plan.json and inputs/ as they were, or remove that shard and "
                "its .done, and train it again with jaxvff work"
            )
        shards.check_versions(folder, part.about["versions"], whose)
        if part.shard not in fingerprints:
            fingerprints[part.shard] = part.shard.of(jobs).fingerprint()
        if part.about["fingerprint"] != fingerprints[part.shard]:
            raise UserError(
                f"{whose} has another fingerprint: its config, seeds or payoffs are not those of "
                "the run; remove it and its .done, and train it again with jaxvff work"
            )
    _check_seeds(jobs, parts)
    return parts


def machine(parts: Sequence[Part]) -> dict[str, Any]:
    """Where the shards were trained: what their machines have in common, or the list of it."""
    told = [part.about["machine"] for part in parts]
    out: dict[str, Any] = {}
    for name in dict.fromkeys(k for m in told for k in m):
        values = list(dict.fromkeys(m.get(name) for m in told))
        out[name] = values[0] if len(values) == 1 else values
    peaks = [m["peak_rss_mb"] for m in told if m.get("peak_rss_mb")]
    workers = {(p.about["owner"].get("host"), p.about["owner"].get("process")) for p in parts}
    return out | {"peak_rss_mb": max(peaks, default=None), "workers": len(workers)}


def owner(about: Mapping[str, Any]) -> str:
    """Who trained a shard, in words."""
    whose = about.get("owner", {})
    return f"process {whose.get('process', '?')} on {whose.get('host', '?')}"


def _check_complete(folder: Path, standings: Sequence[Standing]) -> None:
    missing = [i for i, s in enumerate(standings) if s.state != "done"]
    if missing:
        named = ", ".join(f"{i} ({standings[i].state})" for i in missing[:MOST_NAMED])
        more = f" and {len(missing) - MOST_NAMED} more" if len(missing) > MOST_NAMED else ""
        raise UserError(
            f"{len(missing)} of {len(standings)} shards of {folder} are not done: {named}{more}; "
            f"their seeds would be missing. Go on with jaxvff work {folder}"
        )


def _read(attempt: Path) -> Part:
    """A complete shard from its folder.

    Raises:
      UserError: it is damaged.
    """
    path = attempt / RESULTS
    try:
        with np.load(path, allow_pickle=False) as saved:
            about = json.loads(str(saved["about"]))
            job, values, seeds = about["shard"]
            shard = Shard(int(job), range_of(values), range_of(seeds))
            metrics: list[dict[str, np.ndarray]] = [{} for _ in shard.values]
            for name in saved.files:
                if name != "about":
                    value, _, metric = name.partition("/")
                    metrics[int(value)][metric] = saved[name]
        for needed in ("plan", "versions", "fingerprint", "step", "timing", "machine", "owner"):
            about[needed]
    except Exception as error:  # zipfile, numpy and json have no common class for damage
        raise UserError(
            f"{path} is damaged ({error or type(error).__name__}); remove {attempt} and "
            f"{attempt}.done, and train it again with jaxvff work; nothing was merged"
        ) from error
    return Part(attempt, shard, about, metrics)


def range_of(numbers: Sequence[int]) -> range:
    """Consecutive numbers as a range.

    Raises:
      ValueError: they are not consecutive.
    """
    found = range(int(numbers[0]), int(numbers[-1]) + 1)
    if list(found) != list(numbers):
        raise ValueError(f"{list(numbers)[:5]} ... are not consecutive")
    return found


def _check_seeds(jobs: Sequence[Job], parts: Sequence[Part]) -> None:
    """Refuse seeds of a sweep value that are there twice, or not at all."""
    for index, job in enumerate(jobs):
        times = np.zeros((len(job.values), job.config.seeds), int)
        for part in parts:
            if part.shard.job == index:
                of_values, of_seeds = part.shard.values, part.shard.seeds
                times[of_values.start : of_values.stop, of_seeds.start : of_seeds.stop] += 1
        for what, wrong in (("missing", times == 0), ("there twice", times > 1)):
            if wrong.any():
                value = int(np.argwhere(wrong)[0, 0])
                seeds = [job.values[value].seeds[int(s)] for s in np.flatnonzero(wrong[value])]
                raise UserError(
                    f"seeds of {job.name} are {what}, {int(wrong.sum())} in all: "
                    f"{seeds[:MOST_NAMED]} of sweep value {value}; nothing was merged"
                )


def _whole(job: Job, parts: Sequence[Part]) -> dict[str, np.ndarray]:
    """The metrics of the last report of all lanes `[K, ...]`, values outside and seeds inside."""
    by_value: list[list[dict[str, np.ndarray]]] = [[] for _ in job.values]
    for part in parts:  # sorted by seeds
        for value, metrics in zip(part.shard.values, part.metrics, strict=True):
            by_value[value].append(metrics)
    lanes = [metrics for value in by_value for metrics in value]
    return {name: np.concatenate([m[name] for m in lanes]) for name in lanes[0]}


def _merge_lines(path: Path, job: Job, parts: Sequence[Part]) -> None:
    """Write metrics.jsonl: a line for each report and sweep value, with the seeds of all shards."""
    labels = {json.dumps(plain(value.label)): i for i, value in enumerate(job.values)}
    found: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    counts: list[Counter] = []
    for part in parts:  # sorted by seeds
        lines = metrics_file.read(part.folder / METRICS_FILE)
        for line in lines:
            found[line["step"], labels[json.dumps(line["sweep"])]].append(line)
        counts.append(Counter(line["step"] for line in lines))
    for part, count in zip(parts, counts, strict=True):
        if count.keys() != counts[0].keys() or set(count.values()) != {len(part.shard.values)}:
            raise UserError(
                f"{part.folder / METRICS_FILE} lacks reports, or has some twice; remove "
                f"{part.folder} and {part.folder}.done, and train it again with jaxvff work"
            )
    write_text(path, "".join(json.dumps(_joined(found[key])) + "\n" for key in sorted(found)))


def _joined(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report of one sweep value, of the reports of its shards."""
    out: dict[str, Any] = {}
    for name, value in lines[0].items():
        if isinstance(value, list):
            out[name] = [x for line in lines for x in line[name]]
        elif name == "wall_s":
            out[name] = max(line[name] for line in lines)
        else:
            out[name] = value
    return out


def _merge_checkpoints(folder: Path, job: Job, jobs: Sequence[Job], parts: Sequence[Part]) -> None:
    """Write a checkpoint of all lanes, with which the run is evaluated and goes on."""
    pieces: list[tuple[Part, Tree]] = []
    shapes: dict[int, Tree] = {}
    iteration = 0
    for part in parts:
        mine = part.shard.of(jobs)
        if mine.n_lanes not in shapes:
            with learned.open_program(mine) as program:
                shapes[mine.n_lanes] = jax.eval_shape(program.init, mine.lanes())
        saved = checkpoint.restore_newest(
            part.folder / CHECKPOINTS, shapes[mine.n_lanes], mine.fingerprint()
        )
        if saved is None:
            raise UserError(f"{part.folder} has no checkpoint; merge without checkpoint=true")
        iteration = saved[0]
        pieces.append((part, saved[1]))
    order = np.argsort(np.concatenate([_lane_numbers(job, part.shard) for part, _ in pieces]))

    def join(*leaves: np.ndarray) -> np.ndarray:
        return np.concatenate([np.asarray(x) for x in leaves])[order]

    # Keys as integers, which NumPy can join.
    plain_trees = [jax.tree.map(_key_data, tree) for _, tree in pieces]
    like = pieces[0][1]
    joined = jax.tree.map(join, *plain_trees)
    checkpoint.save(folder, iteration, jax.tree.map(_as_key, joined, like), job.fingerprint())


def _lane_numbers(job: Job, shard: Shard) -> np.ndarray:
    """Where the lanes of a shard stand among those of its job."""
    values, seeds = np.array(shard.values), np.array(shard.seeds)
    return (values[:, None] * job.config.seeds + seeds).ravel()


def _key_data(x: Any) -> Any:
    return jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x


def _as_key(x: np.ndarray, like: Any) -> Any:
    is_key = jax.dtypes.issubdtype(like.dtype, jax.dtypes.prng_key)
    return jax.random.wrap_key_data(jnp.asarray(x)) if is_key else x
