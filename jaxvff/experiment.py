"""From a command line to trained lanes: plan, run, resume, results on disk."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from jaxvff import checkpoint, config, sharding, train
from jaxvff.config import Config
from jaxvff.envs import ENVS
from jaxvff.log import JsonLines, write_json, write_text
from jaxvff.options import bind_env
from jaxvff.types import Env, UserError

RUN_FILE, METRICS_FILE, TIMING_FILE = "run.yaml", "metrics.jsonl", "timing.json"
CHECKPOINTS = "checkpoint"


class Value(NamedTuple):
    """One value of a sweep (or the only one): its label, config and environment."""

    label: dict[str, Any]
    config: Config
    env: Env


class Group(NamedTuple):
    """Sweep values that run in one compiled program, each with the same number of seeds."""

    values: list[Value]

    @property
    def config(self) -> Config:
        """The config that all values share but for traced fields."""
        return self.values[0].config

    @property
    def n_lanes(self) -> int:
        """Sweep values times seeds."""
        return len(self.values) * self.config.seeds

    @property
    def name(self) -> str:
        """The method and environment kind, and the first label."""
        label = ",".join(f"{k}={v}" for k, v in self.values[0].label.items())
        return "_".join(filter(None, [self.config.method["name"], label])).replace("/", "-")

    def lanes(self) -> train.Lane:
        """What differs between lanes; values outside, seeds inside."""
        seeds = self.config.seeds
        hypers = [jax.tree.map(np.float32, value.config.hyper()) for value in self.values]
        params = [value.env.params for value in self.values]

        def stack(*leaves: Any) -> Any:
            return jnp.repeat(jnp.stack([jnp.asarray(x) for x in leaves]), seeds, axis=0)

        first = [np.arange(v.config.seed, v.config.seed + seeds) for v in self.values]
        return train.Lane(
            hyper=jax.tree.map(stack, *hypers),
            env_params=jax.tree.map(stack, *params),
            seed=jnp.asarray(np.concatenate(first).astype(np.uint32)),
        )


class Result(NamedTuple):
    """A sweep value when its training is over, or was interrupted."""

    value: Value
    step: int  # env steps per seed that were done
    metrics: dict[str, np.ndarray]  # of the last report, leaves [seeds, ...]
    folder: Path
    timing: dict[str, float]  # compile_s and wall_s (compile included) of its whole group
    lanes: int  # of its whole group


def plan(overrides: list[str]) -> list[Group]:
    """The groups that `overrides` ask for, `sweep.<key>=[...]` among them.

    Values of a sweep whose configs differ in traced fields only (types.Hyper, the payoffs) share
    a group, hence a compiled program and a vmap.

    Raises:
      UserError: anything wrong in the overrides; nothing has compiled.
    """
    fixed, sweeps = split_sweeps(overrides)
    grid = [
        dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values())
    ]
    base: dict[Any, dict[str, Any]] = {}
    groups: dict[Any, list[Value]] = {}
    for label in grid:
        composed = {k: v for k, v in label.items() if k in ("env", "method")}
        key = tuple(composed.items())
        if key not in base:  # Hydra composes slowly; what is no group is set on a copy
            base[key] = config.compose_dict([*fixed, *(f"{k}={v}" for k, v in composed.items())])
        values = copy.deepcopy(base[key])
        for name, setting in label.items():
            if name not in composed:
                _set(values, name, setting)
        one = config.build(values)
        value = Value(label, one, bind_env(one.env, ENVS))
        _check_env(one, value.env)
        groups.setdefault(_signature(value), []).append(value)
    return [Group(values) for values in groups.values()]


def split_sweeps(overrides: list[str]) -> tuple[list[str], dict[str, list]]:
    """Take the `sweep.<key>=[...]` out of the overrides, as lists by key."""
    fixed, sweeps = [], {}
    for text in overrides:
        if not text.startswith("sweep."):
            fixed.append(text)
            continue
        text = text.removeprefix("sweep.")
        try:
            override = OverridesParser.create().parse_override(text)
            values = override.value()
        except (HydraException, ValueError) as error:
            raise UserError(f"sweep.{text} cannot be read; write sweep.lr=[1e-3,1e-4]") from error
        if not isinstance(values, list) or not values:
            raise UserError(f"sweep.{text} needs a list of values, such as sweep.lr=[1e-3,1e-4]")
        sweeps[override.key_or_group] = values
    if "seeds" in sweeps:
        raise UserError("sweep.seeds is no sweep; seeds=256 already trains them side by side")
    return fixed, sweeps


def _set(values: dict[str, Any], key: str, setting: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"sweep.{key}: {part} has no parts")
    values[last] = setting


def _signature(value: Value) -> Any:
    """Equal for values that one program can run."""
    static = dataclasses.replace(value.config.static(), env={}, run_dir=None)
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(value.env.params)]
    return repr((static, value.env.signature, shapes))


def _check_env(one: Config, env: Env) -> None:
    longest = env.spec.episode_limit + 1
    if one.segment_length < longest:
        raise UserError(
            f"segment_length={one.segment_length} cannot hold an episode of "
            f"{env.spec.episode_limit} steps; set segment_length={longest} or more"
        )


def new_run(overrides: list[str], command: str = "train") -> tuple[Path, list[Group]]:
    """Plan a run and make its folder, which says how to repeat it."""
    groups = plan(overrides)
    first = groups[0].config
    if first.run_dir is None:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{groups[0].config.method['name']}"
        folder = Path("runs") / name
    else:
        folder = Path(first.run_dir)
    if folder.exists():
        raise UserError(f"run_dir={str(folder)!r} exists; name another folder, or resume={folder}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"run_dir={str(folder)!r} cannot be made: {error.strerror}") from error
    write_text(folder / RUN_FILE, yaml.safe_dump({"command": command, "overrides": overrides}))
    return folder, groups


def old_run(
    folder: Path, command: str | None = None, extra: list[str] | None = None
) -> tuple[str, list[Group]]:
    """The command and groups of an existing run folder.

    Args:
      folder: the run folder.
      command: the one that has to have made it; None: any.
      extra: overrides for the rest of the run; only total_steps may change.

    Raises:
      UserError: there is no such folder, it is none of ours, or `extra` changes the run.
    """
    for text in extra or []:
        if not text.startswith("total_steps="):
            raise UserError(
                f"{text} cannot change in a resumed run, only total_steps can; start a new run"
            )
    try:
        saved = yaml.safe_load((folder / RUN_FILE).read_text())
        made_by, overrides = saved["command"], list(saved["overrides"])
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise UserError(f"{folder} is no run folder: it has no readable {RUN_FILE}") from error
    if command not in (None, made_by):
        raise UserError(f"{folder} is of another command; use jaxvff {made_by} resume={folder}")
    if extra:
        overrides += extra
        write_text(folder / RUN_FILE, yaml.safe_dump({"command": made_by, "overrides": overrides}))
    return made_by, plan(overrides)


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
    """
    for index, group in enumerate(groups):
        place = group_folder(folder, groups, index)
        place.mkdir(exist_ok=True)
        yield _train_group(place, group, resume, stop_early, on_progress)
        if stop_early():
            return


def _train_group(
    folder: Path,
    group: Group,
    resume: bool,
    stop_early: Callable[[], bool],
    on_progress: Callable[[Group, int], None],
) -> list[Result]:
    one, began = group.config, time.perf_counter()
    write_text(folder / "config.yaml", config.to_yaml(one))
    program = train.program(one, group.values[0].env, group.n_lanes)
    lane = sharding.place(group.lanes(), program.mesh)
    saved = checkpoint.latest(folder / CHECKPOINTS) if resume else None
    start, carry = restored(saved, program, lane) if saved else (0, program.init(lane))
    program, compile_s = _compile(program, carry, lane, start)
    lines = JsonLines(folder / METRICS_FILE, start * one.steps_per_iteration if saved else None)
    run = train.run(
        program,
        carry,
        lane,
        start,
        stop_early=stop_early,
        on_progress=lambda i: on_progress(group, i * one.steps_per_iteration),
    )
    interval = one.iterations(one.checkpoint_interval)
    metrics: dict[str, np.ndarray] = {}
    iteration, last_saved, latest = start, start, carry  # the run donates `carry`, if it runs
    try:
        for iteration, latest, report in run:
            if report is not None:
                metrics = report.metrics
                _write_lines(lines, group, report)
            if one.checkpoint_interval and iteration - last_saved >= interval:
                checkpoint.save(folder / CHECKPOINTS, iteration, latest)
                last_saved = iteration
        if iteration > last_saved:
            checkpoint.save(folder / CHECKPOINTS, iteration, latest)
        if not metrics:  # interrupted before the first report, or already complete
            metrics = train.report_metrics(program, latest, lane, iteration, iteration)
    finally:
        lines.close()
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


def restored(saved: Path, program: train.Program, lane: train.Lane) -> tuple[int, train.Carry]:
    """The iteration and the carry of a checkpoint, on the program's devices."""
    iteration, carry = checkpoint.restore(saved, jax.eval_shape(program.init, lane))
    return iteration, sharding.place(carry, program.mesh)


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
    seeds, step = group.config.seeds, iteration * group.config.steps_per_iteration
    return [
        Result(
            value=value,
            step=step,
            metrics={k: v[i * seeds : (i + 1) * seeds] for k, v in metrics.items()},
            folder=folder,
            timing=timing,
            lanes=group.n_lanes,
        )
        for i, value in enumerate(group.values)
    ]


def _compile(
    program: train.Program, carry: train.Carry, lane: train.Lane, start: int
) -> tuple[train.Program, float]:
    """Compile ahead of time, so that it is timed apart; nothing for a run that is over."""
    if start >= program.config.n_iterations:
        return program, 0.0
    began = time.perf_counter()
    compiled = program.advance.lower(carry, lane, 0, 1).compile()  # type: ignore[attr-defined]
    return program._replace(advance=compiled), time.perf_counter() - began


def _write_lines(lines: JsonLines, group: Group, report: train.Report) -> None:
    """One line per sweep value; a metric is a list over its seeds, which are never merged."""
    seeds = group.config.seeds
    for i, value in enumerate(group.values):
        rows = slice(i * seeds, (i + 1) * seeds)
        scalars = {k: v[rows] for k, v in report.metrics.items() if v.ndim == 1}
        names = list(range(value.config.seed, value.config.seed + seeds))
        lines.write(
            {"step": report.step, "sweep": value.label, "seed": names, **scalars}
            | {"wall_s": round(report.wall_s, 3)}
        )
