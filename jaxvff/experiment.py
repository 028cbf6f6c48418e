"""Runs on disk: make a run folder, train its groups, resume, split the results."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import numpy as np
import yaml

from jaxvff import checkpoint, config, memory, sharding, sinks, train
from jaxvff.bridge import program as bridge
from jaxvff.log import JsonLines, write_json, write_text
from jaxvff.plan import Group, Value, plan
from jaxvff.sinks import SINKS, Sink
from jaxvff.types import HostEnv, UserError

RUN_FILE, METRICS_FILE, TIMING_FILE = "run.yaml", "metrics.jsonl", "timing.json"
CHECKPOINTS = "checkpoint"
RESUMABLE = ("total_steps", *SINKS)  # the keys that decide no number of a run


class Result(NamedTuple):
    """A sweep value when its training is over, or was interrupted."""

    value: Value
    step: int  # env steps per seed that were done
    metrics: dict[str, np.ndarray]  # of the last report, leaves [seeds, ...]
    folder: Path
    timing: dict[str, float]  # compile_s and wall_s (compile included) of its whole group
    lanes: int  # of its whole group


def new_run(*parts: list[str], command: str = "train") -> tuple[Path, list[Group]]:
    """Plan a run, of a part or more, and make its folder, which says how to repeat it."""
    groups = _planned(parts)
    first = groups[0].config
    sinks.check(first)
    memory.check(groups)
    if first.run_dir is None:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{groups[0].config.method['name']}"
        folder = Path("runs") / name
    else:
        folder = Path(first.run_dir)
    make_folder(folder)
    _write_run(folder, command, list(parts))
    return folder, groups


def make_folder(folder: Path) -> None:
    """A new folder for results, or a UserError; one that exists is never written into."""
    if folder.exists():
        raise UserError(f"run_dir={str(folder)!r} exists; name another folder, or resume={folder}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"run_dir={str(folder)!r} cannot be made: {error.strerror}") from error


def old_run(
    folder: Path, command: str | None = None, extra: list[str] | None = None
) -> tuple[str, list[Group]]:
    """The command and groups of an existing run folder.

    Args:
      folder: the run folder.
      command: the one that has to have made it; None: any.
      extra: overrides for the rest of the run, of RESUMABLE keys.

    Raises:
      UserError: there is no such folder, it is none of ours, or `extra` changes the run.
    """
    for text in extra or []:
        if text.split("=", 1)[0] not in RESUMABLE:
            raise UserError(
                f"{text} cannot change in a resumed run, only {', '.join(RESUMABLE)} can; start a "
                "new run"
            )
    try:
        saved = yaml.safe_load((folder / RUN_FILE).read_text())
        made_by, parts = saved["command"], saved["parts"]
        if not all(isinstance(part, list) for part in parts):
            raise TypeError(parts)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run folder: it has no readable {RUN_FILE}") from error
    if command not in (None, made_by):
        raise UserError(f"{folder} is of another command; use jaxvff {made_by} resume={folder}")
    parts = [[*part, *(extra or [])] for part in parts]
    groups = _planned(parts)
    if extra:  # only what could be planned is written down
        _write_run(folder, made_by, parts)
    return made_by, groups


def _planned(parts: Iterable[list[str]]) -> list[Group]:
    return [group for part in parts for group in plan(part)]


def _write_run(folder: Path, command: str, parts: list[list[str]]) -> None:
    write_text(folder / RUN_FILE, yaml.safe_dump({"command": command, "parts": parts}))


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C (or SIGTERM) into a flag; the second one acts as usual."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped.is_set
        return
    previous = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def on_signal(number: int, frame: FrameType | None) -> None:
        stopped.set()
        signal.signal(number, previous[signal.Signals(number)])

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stopped.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def execute(
    folder: Path,
    groups: list[Group],
    *,
    resume: bool = False,
    stop_early: Callable[[], bool] = lambda: False,
    on_progress: Callable[[Group, int], None] = lambda group, steps: None,
    on_report: Callable[[Group, train.Report], None] = lambda group, report: None,
    tell: Callable[[str], None] = print,
) -> Iterator[list[Result]]:
    """Train the groups one after the other, and yield the results of each.

    Files in `folder` (in a folder per group, if there are several): config.yaml, metrics.jsonl
    and checkpoint/. An interruption ends the iteration after a checkpoint.

    Args:
      folder: the run folder.
      groups: from `plan`.
      resume: continue from the checkpoints in `folder`, where there are any.
      stop_early: asked about twice a second.
      on_progress: told the env steps per lane that a group has done, as often.
      on_report: told every report, after it is written.
      tell: told, in a line, of games on the host that broke.
    """
    if resume:  # a new run was checked before it had a folder
        sinks.check(groups[0].config)
        memory.check(groups)
    for index, group in enumerate(groups):
        place = group_folder(folder, groups, index)
        place.mkdir(exist_ok=True)
        name = folder.resolve().name
        with open_program(group, tell) as program:
            finished = _train_group(
                place, name, group, program, resume, stop_early, on_progress, on_report
            )
        yield finished  # here, not above: its workers have ended
        if stop_early():
            return


def _train_group(
    folder: Path,
    name: str,
    group: Group,
    program: train.Program,
    resume: bool,
    stop_early: Callable[[], bool],
    on_progress: Callable[[Group, int], None],
    on_report: Callable[[Group, train.Report], None],
) -> list[Result]:
    one, began = group.config, time.perf_counter()
    _write_configs(folder / "config.yaml", group)
    lane = sharding.place(group.lanes(), program.mesh)
    saved = checkpoint.latest(folder / CHECKPOINTS) if resume else None
    start, carry = restored(saved, group, program, lane) if saved else (0, program.init(lane))
    program, compile_s = _compile(program, carry, lane, start)
    resume_step = start * one.steps_per_iteration if saved else None
    save_every = one.iterations(one.checkpoint_interval) if one.checkpoint_interval else 0
    run = train.run(
        program,
        carry,
        lane,
        start,
        save_every=save_every,
        stop_early=stop_early,
        on_progress=lambda i: on_progress(group, i * one.steps_per_iteration),
    )
    fingerprint = group.fingerprint()
    metrics: dict[str, np.ndarray] = {}
    iteration, last_saved, latest = start, start, carry  # the run donates `carry`, if it runs
    broken: train.Stopped | None = None
    with _outputs(folder, name, group, resume_step) as outputs:
        try:
            for iteration, latest, report in run:
                metrics = {} if report is None else report.metrics
                if report is not None:
                    _write(outputs, group, report)
                    on_report(group, report)
                if save_every and iteration % save_every == 0:
                    checkpoint.save(folder / CHECKPOINTS, iteration, latest, fingerprint)
                    last_saved = iteration
        except train.Stopped as stopped:
            broken, iteration, latest = stopped, stopped.iteration, stopped.carry
        if iteration > last_saved:
            checkpoint.save(folder / CHECKPOINTS, iteration, latest, fingerprint)
        if broken:
            raise UserError(
                f"{broken}; stopped after {iteration * one.steps_per_iteration:,} steps, with a "
                "checkpoint; mend it and go on with resume="
            ) from broken
        if not metrics:  # interrupted between reports, or complete before it began
            metrics = train.report_metrics(program, latest, lane)
    timing = _add_timing(folder / TIMING_FILE, compile_s, time.perf_counter() - began)
    return results(group, folder, iteration, metrics, timing)


def _add_timing(path: Path, compile_s: float, wall_s: float) -> dict[str, float]:
    """Seconds of all sittings of a run, compile apart; kept beside its metrics."""
    before = json.loads(path.read_text()) if path.exists() else {"compile_s": 0.0, "wall_s": 0.0}
    timing = {
        "compile_s": round(before["compile_s"] + compile_s, 2),
        "wall_s": round(before["wall_s"] + wall_s, 2),
    }
    write_json(path, timing)
    return timing


def restored(
    saved: Path, group: Group, program: train.Program, lane: train.Lane
) -> tuple[int, train.Carry]:
    """The iteration and the carry of a checkpoint of `group`, on the program's devices."""
    like = jax.eval_shape(program.init, lane)
    iteration, carry = checkpoint.restore(saved, like, group.fingerprint())
    if iteration > group.config.n_iterations:
        raise UserError(
            f"total_steps={group.config.total_steps} is less than the "
            f"{iteration * group.config.steps_per_iteration} steps of checkpoint {saved}; raise it"
        )
    return iteration, sharding.place(carry, program.mesh)


def _write_configs(path: Path, group: Group) -> None:
    """The config; for a sweep, one document per value, each under a comment with its label."""
    labels = [f"# {value.label}\n" if value.label else "" for value in group.values]
    texts = [config.to_yaml(value.config) for value in group.values]
    write_text(path, "---\n".join(a + b for a, b in zip(labels, texts, strict=True)))


def group_folder(folder: Path, groups: list[Group], index: int) -> Path:
    """Where a group's files are: the run folder itself if there is only one group."""
    return folder if len(groups) == 1 else folder / f"{index:02d}_{groups[index].name}"[:100]


def results(
    group: Group,
    folder: Path,
    iteration: int,
    metrics: dict[str, np.ndarray],
    timing: dict[str, float],
) -> list[Result]:
    """Split the metrics of a group into its sweep values."""
    step = iteration * group.config.steps_per_iteration
    return [
        Result(value, step, mine, folder, timing, lanes=group.n_lanes)
        for value, mine in by_value(group, metrics)
    ]


def by_value(
    group: Group, metrics: dict[str, np.ndarray]
) -> Iterator[tuple[Value, dict[str, np.ndarray]]]:
    """Each sweep value with its metrics: leaves `[seeds, ...]` of `[K, ...]`."""
    seeds = group.config.seeds
    for i, value in enumerate(group.values):
        yield value, {k: v[i * seeds : (i + 1) * seeds] for k, v in metrics.items()}


@contextmanager
def open_program(group: Group, tell: Callable[[str], None] = print) -> Iterator[train.Program]:
    """The program of a group; what plays its games on the host ends with the context."""
    env = group.values[0].env
    if isinstance(env, HostEnv):
        with bridge.program(group.config, env, group.n_lanes, tell) as program:
            yield program
    else:
        yield train.program(group.config, env, group.n_lanes)


def _compile(
    program: train.Program, carry: train.Carry, lane: train.Lane, start: int
) -> tuple[train.Program, float]:
    """Compile ahead of time, so that it is timed apart; nothing for a run that is over."""
    if start >= program.config.n_iterations:
        return program, 0.0
    began = time.perf_counter()
    compiled = program.compile(carry, lane)
    return program._replace(advance=compiled), time.perf_counter() - began


@contextmanager
def _outputs(
    folder: Path, name: str, group: Group, resume_step: int | None
) -> Iterator[list[Sink]]:
    """metrics.jsonl and what else the config asks for; closed in any case."""
    values = [(value.label, value.config) for value in group.values]
    place = sinks.Place(folder, name, values, resume_step)
    with ExitStack() as stack:
        outputs = [JsonLines(folder / METRICS_FILE, resume_step), *sinks.open_sinks(place)]
        for output in outputs:
            stack.callback(output.close)
        yield outputs


def _write(outputs: list[Sink], group: Group, report: train.Report) -> None:
    """Each sweep value's report to each output; seeds are never merged."""
    for value, metrics in by_value(group, report.metrics):
        first = value.config.seed
        seeds = list(range(first, first + value.config.seeds))
        told: dict[str, Any] = {k: v for k, v in metrics.items() if v.ndim == 1}
        told["wall_s"] = round(report.wall_s, 3)
        for output in outputs:
            output.write(report.step, value.label, seeds, told)
