"""Where learning curves go besides metrics.jsonl: TensorBoard and Weights & Biases, when asked.

A new sink is a class with `write` and `close`, a row in SINKS, an extra of that name in
pyproject.toml, and an option of that name in settings/run_options.py, off by default.
"""

from __future__ import annotations

import dataclasses
import importlib
import math
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from jaxvff.core.errors import UserError, extra
from jaxvff.core.files import file_name, write_text
from jaxvff.settings.config import Config
from jaxvff.settings.run_options import OTHER_SINKS

FINISH_S = 60.0  # how long wandb may upload after a run; the rest stays on disk for `wandb sync`
WANDB_FILE = "wandb_id.txt"


class Sink(Protocol):
    """Takes reports; one file, stream or run per seed, never an average."""

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Take one report of one sweep value.

        Args:
          step: nominal env steps per seed.
          sweep: the value's label.
          seeds: the numbers of its seeds.
          metrics: arrays `[seeds]`, or numbers that hold for all seeds.
        """

    def close(self) -> None:
        """Finish what was written."""


class Destination(NamedTuple):
    """What a sink is told before the first report."""

    folder: Path  # where the metrics.jsonl of these values is
    run: str  # name of the run's folder, which is above it where a run has several jobs
    values: list[tuple[dict[str, Any], Config]]  # label and config of each sweep value
    resume_step: int | None  # of the checkpoint that training goes on from

    def index_of(self, sweep: dict[str, Any]) -> int:
        """Which sweep value a label is of."""
        return [label for label, _ in self.values].index(sweep)

    def name(self, index: int) -> str:
        """The label of a sweep value in one line; nothing where nothing is swept."""
        return ",".join(f"{k}={v}" for k, v in self.values[index][0].items())


class TensorBoard:
    """Event files, a folder per sweep value and seed.

    After a resumption TensorBoard hides the points that came after the checkpoint.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._writers: dict[tuple[int, int], Any] = {}

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Append one event per seed, on disk when this returns."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        value = self._destination.index_of(sweep)
        for i, seed in enumerate(seeds):
            numbers = of_seed(metrics, i).items()
            scalars = [Summary.Value(tag=tag, simple_value=x) for tag, x in numbers]
            event = Event(step=step, wall_time=time.time(), summary=Summary(value=scalars))
            writer = self._writer(value, seed)
            writer.write_event(event)
            writer.flush()

    def _writer(self, value: int, seed: int) -> Any:
        # EventsWriter, not SummaryWriter: that one writes from a thread, which dies on a full
        # disk and leaves the training loop waiting at its queue.
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        if (value, seed) not in self._writers:
            folder = self._folder(value) / f"seed_{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            first = (
                0 if self._destination.resume_step is None else self._destination.resume_step + 1
            )
            # The suffix: the files' own names have seconds, and a second one would replace a first.
            writer = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
            # What SummaryWriter(purge_step=first) writes: hide what is at `first` or later.
            start = SessionLog(status=SessionLog.START)
            writer.write_event(Event(step=first, wall_time=time.time(), session_log=start))
            self._writers[value, seed] = writer
        return self._writers[value, seed]

    def _folder(self, value: int) -> Path:
        label = self._destination.name(value)
        root = self._destination.folder / "tensorboard"
        return root / file_name(f"{value:02d}_{label}", 100) if label else root  # numbered: cut

    def close(self) -> None:
        """Close all files."""
        for writer in self._writers.values():
            writer.close()


class Wandb:
    """A Weights & Biases run per seed, in a group per run folder.

    Ids are drawn once for a run folder, so that a resumed run continues its curves. Points that a
    run already has are not sent again; offline, where it cannot know, `wandb sync` may see the
    points since the checkpoint twice.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._runs: dict[tuple[int, int], Any] = {}

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Log one point per seed."""
        value = self._destination.index_of(sweep)
        for i, seed in enumerate(seeds):
            run = self._run(value, seed)
            if step >= run.step:  # else resumed: it was logged before, and wandb steps only rise
                run.log(of_seed(metrics, i), step=step)

    def _run(self, value: int, seed: int) -> Any:
        import wandb

        if (value, seed) not in self._runs:
            sweep, config = self._destination.values[value]
            method = config.method["name"]
            self._runs[value, seed] = wandb.init(
                project=config.wandb,
                group=self._destination.run,
                name=" ".join(
                    filter(None, [method, self._destination.name(value), f"seed {seed}"])
                ),
                id=f"{self._token()}-{value}-{seed}",
                resume="allow",
                reinit="create_new",  # runs side by side; by default the second is the first
                config=dataclasses.asdict(config) | {"sweep": sweep, "seed": seed},
                dir=str(self._destination.folder),
                settings=wandb.Settings(
                    console="off",  # the terminal is the progress bar's, and no seed's
                    silent=True,
                    x_disable_stats=True,  # the machine is the same for all seeds
                    finish_timeout=FINISH_S,
                    finish_timeout_raises=True,
                ),
            )
        return self._runs[value, seed]

    def _token(self) -> str:
        path = self._destination.folder / WANDB_FILE
        if not path.exists():
            write_text(path, secrets.token_hex(4))
        return path.read_text()

    def close(self) -> None:
        """Finish all runs."""
        for run in self._runs.values():
            run.finish()


class Guarded:
    """A sink whose failure ends the sink and not the training."""

    def __init__(self, name: str, sink: Sink) -> None:
        self._name, self._sink = name, sink
        self._failed = False

    def write(
        self, step: int, sweep: dict[str, Any], seeds: list[int], metrics: dict[str, Any]
    ) -> None:
        """Pass a report on, unless the sink has failed."""
        self._try(lambda: self._sink.write(step, sweep, seeds, metrics))

    def close(self) -> None:
        """Close the sink, unless it has failed."""
        self._try(self._sink.close)

    def _try(self, call: Callable[[], None]) -> None:
        if self._failed:
            return
        try:
            call()
        except Exception as error:  # any: a library's mishap must not cost hours of training
            self._failed = True
            what = " ".join(str(error).split()) or type(error).__name__
            print(
                f"jaxvff: {self._name} stopped: {what}; training and metrics.jsonl go on",
                file=sys.stderr,
            )


# Config field and extra -> the package it needs, and the sink
SINKS: dict[str, tuple[str, Callable[[Destination], Sink]]] = {
    "tensorboard": ("tensorboardX", TensorBoard),
    "wandb": ("wandb", Wandb),
}


def open_sinks(destination: Destination) -> list[Sink]:
    """The sinks that the config asks for; nothing is written or sent before the first report."""
    config = destination.values[0][1]
    made = {name: make for name, (_, make) in SINKS.items() if getattr(config, name)}
    if config.sink is not None:
        made[config.sink] = OTHER_SINKS[config.sink]
    return [Guarded(name, make(destination)) for name, make in made.items()]


def check(config: Config) -> None:
    """Import what the sinks need, and log in where that is needed.

    Raises:
      UserError: a package or a sink is missing, or wandb has no login.
    """
    for name, (package, _) in SINKS.items():
        if not (asked := getattr(config, name)):
            continue
        try:
            importlib.import_module(package)
        except ImportError as error:
            shown = str(asked).lower() if isinstance(asked, bool) else asked
            raise UserError(
                f"{name}={shown} needs the package {package}, which cannot be imported; "
                f"{extra(name)}"
            ) from error
    if config.sink is not None:
        OTHER_SINKS[config.sink]  # imported now, when nothing is lost yet
    if config.wandb:
        _log_in(config.wandb)


def _log_in(project: str) -> None:
    """Ask for wandb's key now, and not below a progress bar."""
    import wandb

    if wandb.setup().settings.mode != "online":
        return
    try:
        wandb.login()
    except Exception as error:  # usage, network, authentication: wandb has no common class
        what = " ".join(str(error).split())
        raise UserError(
            f"wandb={project} cannot log in: {what}; run wandb login, or set WANDB_MODE=offline"
        ) from error


def of_seed(metrics: dict[str, Any], i: int) -> dict[str, float]:
    """The numbers of seed `i` of the list; what was not measured is left out."""
    mine = {k: float(v[i] if np.ndim(v) else v) for k, v in metrics.items()}
    return {k: x for k, x in mine.items() if math.isfinite(x)}
