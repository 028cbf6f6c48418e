"""Train the jobs of a run one after the other, with checkpoints and outputs in its folder."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import write_json, write_text
from jaxvff.runs import checkpoint, locks, sinks, warm_start
from jaxvff.runs.files import CONFIG_FILE, METRICS_FILE, TIMING_FILE
from jaxvff.runs.folder import CHECKPOINTS, Guard, job_folder
from jaxvff.runs.learned import open_program, restored
from jaxvff.runs.metrics_file import JsonLines
from jaxvff.runs.plan import Job, SweepValue
from jaxvff.runs.sinks import Sink
from jaxvff.settings import config
from jaxvff.training import loop, sharding
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.loop import Report
from jaxvff.training.program import Program, Stopped

SECOND_AFTER_S = 0.5  # a terminal that is closed sends SIGHUP twice; a person needs longer


class Result(NamedTuple):
    """A sweep value when its training is over, or was interrupted."""

    value: SweepValue
    step: int  # env steps per seed that were done
    metrics: dict[str, np.ndarray]  # of the last report, leaves [seeds, ...]
    folder: Path
    timing: dict[str, float]  # compile_s and wall_s (compile included) of its whole job
    lanes: int  # of its whole job


@dataclass(frozen=True)
class Watcher:
    """Who watches a run: told what happens, asked whether to go on. By default nobody does."""

    stop_early: Callable[[], bool] = lambda: False  # asked about twice a second
    on_wait: Callable[[Job, str], None] = lambda job, what: None  # what is waited for now
    on_progress: Callable[[Job, int], None] = lambda job, steps: None  # env steps per lane
    on_report: Callable[[Job, Report], None] = lambda job, report: None  # after it is written
    tell: Callable[[str], None] = print  # a line, of games on the host that broke


Opener = Callable[[Job, Callable[[str], None]], AbstractContextManager[Program]]


def execute(
    folder: Path,
    jobs: Sequence[Job],
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    run: str | None = None,
    opener: Opener | None = None,
) -> Iterator[list[Result]]:
    """Train the jobs one after the other, and yield the results of each.

    An interruption ends the iteration after a checkpoint. Meanwhile no other process may write into
    the folder.

    Args:
      folder: the run folder; runs/folder.py says what is written there.
      jobs: from `plan`.
      resume: continue from the checkpoints in `folder`, where there are any.
      watcher: who watches.
      run: the name of the run, for sinks; None: that of the folder.
      opener: where the program of a job comes from; None: `open_program`.

    Raises:
      UserError: another process writes there, or a checkpoint is damaged or of another run.
    """
    watcher, opener = watcher or Watcher(), opener or open_program
    name = run or folder.resolve().name
    with locks.sole_writer(folder) as writer, Guard(folder, writer) as guard:
        for index, job in enumerate(jobs):
            files = job_folder(folder, jobs, index)
            sitting = _Sitting(files, name, job, watcher, guard)
            with opener(job, watcher.tell) as program:
                finished = sitting.train(program, resume=resume)
            yield finished  # here, not above: its workers have ended
            if watcher.stop_early():
                return


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first signal that ends a process into a flag; the second one acts as usual.

    These are Ctrl-C, SIGTERM, and SIGHUP, which a terminal sends when it is closed. What was
    ignored before (nohup does that) stays ignored.
    """
    stopped, first_at = threading.Event(), 0.0
    if threading.current_thread() is not threading.main_thread():
        yield stopped.is_set
        return
    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    previous = {s: handler for s, handler in handlers.items() if handler != signal.SIG_IGN}

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal first_at
        now = time.monotonic()
        if stopped.is_set() and now - first_at > SECOND_AFTER_S:
            signal.signal(number, previous[signal.Signals(number)])
            signal.raise_signal(number)
        elif not stopped.is_set():
            first_at = now
            stopped.set()

    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield stopped.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def results(
    job: Job,
    folder: Path,
    iteration: int,
    *,
    metrics: dict[str, np.ndarray],
    timing: dict[str, float],
) -> list[Result]:
    """Split the metrics of a job into its sweep values."""
    step = iteration * job.config.steps_per_iteration
    return [
        Result(value, step, part, folder, timing, lanes=job.n_lanes)
        for value, part in by_value(job, metrics)
    ]


def is_complete(jobs: Sequence[Job], results: Sequence[Result]) -> bool:
    """Whether every sweep value was trained to its end."""
    return len(results) == sum(len(job.values) for job in jobs) and all(
        r.step >= r.value.config.n_iterations * r.value.config.steps_per_iteration for r in results
    )


def by_value(
    job: Job, metrics: dict[str, np.ndarray]
) -> Iterator[tuple[SweepValue, dict[str, np.ndarray]]]:
    """Each sweep value with its metrics: leaves `[seeds, ...]` of `[K, ...]`."""
    seeds = job.config.seeds
    for i, value in enumerate(job.values):
        yield value, {k: v[i * seeds : (i + 1) * seeds] for k, v in metrics.items()}


def write_config(folder: Path, job: Job) -> None:
    """Write the config of a job: for a sweep, a document per value, under its label."""
    labels = [f"# {value.label}\n" if value.label else "" for value in job.values]
    texts = [config.to_yaml(value.config) for value in job.values]
    documents = "---\n".join(a + b for a, b in zip(labels, texts, strict=True))
    write_text(folder / CONFIG_FILE, documents)


class _Sitting:
    """A job being trained, from its start or its checkpoint to its end or an interruption."""

    def __init__(self, folder: Path, run: str, job: Job, watcher: Watcher, guard: Guard) -> None:
        """Make the folder.

        Args:
          folder: for the job's files.
          run: the name of the run's folder.
          job: to be trained.
          watcher: who watches.
          guard: of the run's folder.
        """
        self._folder, self._run, self._job, self._watcher = folder, run, job, watcher
        self._guard = guard
        self._make_folder()

    def train(self, program: Program, *, resume: bool) -> list[Result]:
        """Train to the end, or until the watcher stops it."""
        job, watcher, began = self._job, self._watcher, time.perf_counter()
        steps_per_iteration = job.config.steps_per_iteration

        # Where it starts.
        lane = sharding.spread(job.lanes(), program.mesh)
        watcher.on_wait(job, "compiling the start")
        saved = restored(self._folder, job, program, lane) if resume else None
        start, carry = saved or (0, warm_start.begun(job, program, program.init(lane)))
        watcher.on_wait(job, "compiling the training")
        program, compile_s = _compile(program, carry, lane, start)

        # Training. The loop donates the carry that it is given.
        save_every = job.config.save_every
        items = loop.run(
            program,
            carry,
            lane,
            start,
            save_every=save_every,
            stop_early=watcher.stop_early,
            on_progress=lambda i: watcher.on_progress(job, i * steps_per_iteration),
            on_wait=lambda what: watcher.on_wait(job, what),
        )
        metrics: dict[str, np.ndarray] = {}
        iteration, last_saved, latest = start, start, carry
        broken: Stopped | None = None
        with self._outputs(start * steps_per_iteration if saved else None) as outputs:
            try:
                for iteration, latest, report in items:
                    metrics = {} if report is None else report.metrics
                    self._keep_whole()
                    if report is not None:
                        _write(outputs, job, report)
                        watcher.on_report(job, report)
                    if save_every and iteration % save_every == 0:
                        self._save(iteration, latest)
                        last_saved = iteration
            except Stopped as stopped:
                broken, iteration, latest = stopped, stopped.iteration, stopped.carry

            # The end, or an interruption.
            if iteration > last_saved:
                self._save(iteration, latest)
            if broken:
                raise UserError(
                    f"{broken}; stopped after {iteration * steps_per_iteration:,} steps, with a "
                    "checkpoint; mend it and go on with resume="
                ) from broken
            if not metrics:  # interrupted between reports, or complete before it began
                metrics = loop.report_metrics(program, latest, lane)
        timing = _add_timing(self._folder / TIMING_FILE, compile_s, time.perf_counter() - began)
        return results(job, self._folder, iteration, metrics=metrics, timing=timing)

    def _save(self, iteration: int, carry: Carry) -> None:
        folder = self._folder / CHECKPOINTS
        try:
            checkpoint.save(folder, iteration, carry, self._job.fingerprint())
        except OSError:
            if not self._keep_whole():  # the disk is full, say
                raise
            checkpoint.save(folder, iteration, carry, self._job.fingerprint())

    def _keep_whole(self) -> bool:
        """Put back what somebody has removed or moved; metrics.jsonl does so for itself.

        Returns:
          Whether anything was missing.
        """
        missing = self._guard.put_back() or not (self._folder / CONFIG_FILE).exists()
        if missing:
            self._make_folder()
            self._watcher.tell(f"{self._folder} was removed or moved; what is missing is put back")
        return missing

    def _make_folder(self) -> None:
        self._folder.mkdir(exist_ok=True)
        write_config(self._folder, self._job)

    @contextmanager
    def _outputs(self, resume_step: int | None) -> Iterator[list[Sink]]:
        """metrics.jsonl and what else the config asks for; closed in any case."""
        values = [(value.label, value.config) for value in self._job.values]
        told = sinks.Destination(self._folder, self._run, values, resume_step)
        with ExitStack() as stack:
            lines = JsonLines(self._folder / METRICS_FILE, resume_step, self._watcher.tell)
            outputs = [lines, *sinks.open_sinks(told)]
            for output in outputs:
                stack.callback(output.close)
            yield outputs


def _compile(program: Program, carry: Carry, lane: Lane, start: int) -> tuple[Program, float]:
    """Compile ahead of time, so that it is timed apart; nothing for a run that is over."""
    if start >= program.config.n_iterations:
        return program, 0.0
    began = time.perf_counter()
    return program.compile(carry, lane), time.perf_counter() - began


def _write(outputs: Sequence[Sink], job: Job, report: Report) -> None:
    """Each sweep value's report to each output; seeds are never merged."""
    for value, metrics in by_value(job, report.metrics):
        told: dict[str, np.ndarray | float] = {k: v for k, v in metrics.items() if v.ndim == 1}
        told["wall_s"] = round(report.wall_s, 3)
        for output in outputs:
            output.write(report.step, value.label, list(value.seeds), told)


def _add_timing(path: Path, compile_s: float, wall_s: float) -> dict[str, float]:
    """Seconds of all sittings of a run, compile apart; kept beside its metrics."""
    timing = {"compile_s": compile_s, "wall_s": wall_s}
    if path.exists():
        try:
            before = json.loads(path.read_text())
            timing = {name: before[name] + timing[name] for name in timing}
        except (ValueError, KeyError, TypeError):
            print(f"jaxvff: {path} cannot be read; it has this sitting alone", file=sys.stderr)
    timing = {name: round(seconds, 2) for name, seconds in timing.items()}
    write_json(path, timing)
    return timing
