"""The training loop: a generator of reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core import sizes
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program

SUBCHUNK_S = (0.5, 10.0)  # wall-clock between two looks at the progress bar and at Ctrl-C
COPIED = 2.5e9  # bytes/s of lanes' state that a call takes in and gives back, on two cores


class Report(NamedTuple):
    """What a run tells at an interval; metrics are arrays `[K]`."""

    step: int  # env steps per lane
    metrics: dict[str, np.ndarray]
    wall_s: float  # since the generator started


class Item(NamedTuple):
    """What the loop yields: where the run is, and what it has to say."""

    iteration: int  # iterations done
    carry: Carry
    report: Report | None  # None: between two reports


def run(
    program: Program,
    carry: Carry,
    lane: Lane,
    start: int = 0,
    *,
    save_every: int = 0,
    stop_early: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], None] = lambda iteration: None,
    on_wait: Callable[[str], None] = lambda what: None,
) -> Iterator[Item]:
    """Train, and yield an Item at every interval.

    The report is None at an item between reports: where `save_every` asks for one, and the last
    item if `stop_early()` became true. Every carry that comes out continues bit for bit; the one
    passed in is donated.

    Args:
      program: from `program`.
      carry: from `program.init`, or a checkpoint.
      lane: the lanes.
      start: iterations done before.
      save_every: iterations between items that are there to be saved; 0: none.
      stop_early: asked about twice a second, in large runs every ten seconds.
      on_progress: told the iterations done, as often.
      on_wait: told what is waited for before something long that is no iteration.
    """
    config, began = program.config, time.perf_counter()
    interval = config.iterations(config.eval_interval)
    iteration, chunk = start, 1
    # However little a call does, it copies the state of all lanes: that has to stay a tenth of it.
    copying = sizes.nbytes(carry) / COPIED
    wanted_s = min(max(SUBCHUNK_S[0], 10 * copying), SUBCHUNK_S[1])
    evaluated = False
    while iteration < config.n_iterations:
        stops = [(iteration // n + 1) * n for n in (interval, save_every) if n]
        goal = min(*stops, config.n_iterations)
        while iteration < goal:
            stop = min(iteration + chunk, goal)
            called = time.perf_counter()
            carry = jax.block_until_ready(program.advance(carry, lane, iteration, stop))
            elapsed = time.perf_counter() - called
            if iteration > start:  # the first call compiles
                chunk = max(1, round((stop - iteration) * min(wanted_s / elapsed, 8)))
            iteration = stop
            on_progress(iteration)
            if stop_early() and iteration < goal:
                yield Item(iteration, carry, None)
                return
        report = None
        if iteration % interval == 0 or iteration == config.n_iterations:
            if not evaluated:
                on_wait("playing the first greedy evaluation")
            metrics, evaluated = report_metrics(program, carry, lane), True
            step = iteration * config.steps_per_iteration
            report = Report(step, metrics, time.perf_counter() - began)
            carry = carry._replace(totals=jax.tree.map(jnp.zeros_like, carry.totals))
        yield Item(iteration, carry, report)
        if stop_early():
            return


def report_metrics(program: Program, carry: Carry, lane: Lane) -> dict[str, np.ndarray]:
    """Averages since the last report, and a greedy evaluation; arrays `[K, ...]`.

    What was not measured (a loss before learning starts) is NaN, and so is everything of a lane
    that stopped, whose successes are False.
    """
    totals = {k: np.asarray(v) for k, v in carry.totals.items()}
    episodes = totals.pop("episodes")
    learned = totals.pop("learned")  # iterations in which there was an update
    with np.errstate(invalid="ignore", divide="ignore"):
        metrics = {
            k: v / (episodes if k.startswith("train_") else learned) for k, v in totals.items()
        }
    tested = program.evaluate(carry, lane)
    metrics |= {k: np.array(v) for k, v in tested.items()}
    stopped = np.asarray(carry.state.stopped_at)
    for values in metrics.values():
        values[stopped >= 0] = False if values.dtype == bool else np.nan
    return metrics | {"env_steps": np.asarray(carry.state.env_steps), "stopped_at": stopped}
