"""A worker: takes the next free shard of a plan, trains it, and so on until none is left.

It trains a shard as `execute` trains any job, into the folder of its attempt (runs/leases.py).
"""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.files import whole, write_text
from jaxvff.core.types import HostEnv
from jaxvff.runs import checkpoint, execute, learned, leases, locks, memory, shards
from jaxvff.runs.execute import Result, Watcher
from jaxvff.runs.folder import CHECKPOINTS
from jaxvff.runs.leases import END, FREE, MOST_DEATHS, OWNER, Lease, Shelf, Standing
from jaxvff.runs.plan import Job, signature
from jaxvff.runs.shards import Plan
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program

RESULTS = "results.npz"
FAULT = "fault.txt"
LOOK_S = 5.0  # between two looks for a shard to take over, when none is free
FAILURES = 2  # shards in a row that failed here: it is this machine's fault, then
OWN = {locks.NAME, OWNER, END, CHECKPOINTS, RESULTS, FAULT}  # what a next attempt does not copy


class Tally(NamedTuple):
    """What a worker has done, and where the plan stands now."""

    done: int  # shards that this worker completed
    standings: list[Standing]

    @property
    def complete(self) -> bool:
        """Whether every shard is."""
        return all(s.state == "done" for s in self.standings)


class Worker:
    """Trains shards of a plan in this process, one after the other."""

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        jobs: Sequence[Job],
        *,
        stop: Callable[[], bool],
        tell: Callable[[str], None] = print,
        machine: dict[str, Any] | None = None,
        first: int = 0,
    ) -> None:
        """Refuse a machine that cannot hold the largest shard.

        Args:
          folder: of the plan.
          plan: in it.
          jobs: of the whole run.
          stop: asked about twice a second; true: save, and end.
          tell: takes a line for every shard.
          machine: what this one is, for the results.
          first: the shard that it would rather begin with.

        Raises:
          UserError: a shard needs more memory than there is.
        """
        self._folder, self._plan, self._jobs = folder, plan, jobs
        self._stop, self._tell, self._machine = stop, tell, machine or {}
        self._first = first
        self._shelf = Shelf(folder / shards.FOLDER)
        self._programs = _LastProgram()
        largest = {s.job: s for s in sorted(plan.shards, key=lambda s: s.n_lanes)}
        memory.check([shard.of(jobs) for shard in largest.values()])

    def work(self, *, wait: bool = True, retry: bool = False) -> Tally:
        """Train until no shard is left.

        Args:
          wait: where others have the last shards, stay to take over what they leave.
          retry: take shards that failed, too, each once.

        Raises:
          UserError: several shards in a row failed here.
          OSError: the folder cannot be written to. The shard is free for others.
        """
        done, failures, tried = 0, 0, set[int]()
        known: set[int] = set()  # complete ones
        while not self._stop():
            standings = self._shelf.standings(len(self._plan.shards), known)
            known |= {i for i, s in enumerate(standings) if s.state == "done"}
            lease = self._next(standings, tried if retry else None)
            if lease is None:
                if not wait or not any(s.state == "running" for s in standings):
                    break
                leases.poll(lambda: False, LOOK_S, self._stop)
                continue
            with lease:
                complete, failed = self._train(lease, standings[lease.shard])
            done += complete
            failures = failures + 1 if failed else 0
            if failures >= FAILURES:
                raise UserError(
                    f"{failures} shards in a row failed here, so this worker ends; jaxvff status "
                    f"{self._folder} has the reasons, and retry=true takes them again"
                )
        return Tally(done, self._shelf.standings(len(self._plan.shards), known))

    def _next(self, standings: list[Standing], retried: set[int] | None) -> Lease | None:
        """Take a shard: one that nobody has begun, before what somebody has left."""
        free = [(FREE.index(s.state), i) for i, s in enumerate(standings) if s.state in FREE]
        if retried is not None:
            failed = [i for i, s in enumerate(standings) if s.state == "failed"]
            free += [(len(FREE), i) for i in failed if i not in retried]
        free.sort(key=lambda x: (x[0], (x[1] - self._first) % len(standings)))
        for _, i in free:
            if self._stop():
                return None
            lease = self._shelf.take(i, standings[i])
            if lease is not None:
                if retried is not None:
                    retried.add(i)
                return lease
        return None

    def _train(self, lease: Lease, before: Standing) -> tuple[bool, bool]:
        """Train a shard; whether it is complete, and whether it failed."""
        shard = self._plan.shards[lease.shard]
        name = f"shard {lease.shard} of {len(self._plan.shards)}"
        try:
            with locks.sole_writer(lease.folder):
                self._begin(lease, before)
                told = f", attempt {lease.number}" if lease.number > 1 else ""
                self._tell(f"{name}: {describe(shard, self._jobs)}{told}")
                results = self._execute(lease, shard.of(self._jobs))
                if results is None:
                    if lease.lost():
                        self._tell(f"{name}: another worker has taken it over")
                    else:
                        lease.give_up("stopped", "stopped; the next worker goes on from there")
                    return False, False
                self._keep(lease, shard, results)
                lease.complete()
                self._tell(f"{name}: done in {results[0].timing['wall_s']:.0f} s")
                return True, False
        except OSError:
            self._free(lease)
            raise
        except Exception as error:  # any: one shard's mishap must not cost the others
            reason = str(error) or type(error).__name__
            if not isinstance(error, UserError):
                reason = f"{type(error).__name__}: {reason}"
                write_text(lease.folder / FAULT, traceback.format_exc())
            lease.give_up("failed", reason[:1000])
            self._tell(f"{name}: failed: {reason}")
            return False, True

    def _begin(self, lease: Lease, before: Standing) -> None:
        """Say whose the attempt is, and begin with what the one before has left.

        Raises:
          UserError: its owners die, one after the other, and save nothing.
        """
        owner = {"plan": self._plan.id, "versions": self._plan.versions}
        lease.begin(owner)
        old = [self._shelf.path(lease.shard, number) for number in reversed(before.attempts)]
        saved = next((n for path in old if (n := inherit(path, lease.folder)) is not None), 0)
        died = before.state == "stale" and before.owner.get("saved", 0) == saved
        deaths = before.owner.get("deaths", 0) + 1 if died else 0
        lease.begin_from(saved, deaths)
        if deaths >= MOST_DEATHS:
            raise UserError(
                f"{deaths} workers died on it one after the other and saved nothing: it may need "
                "more memory than they have, or last longer than they live (checkpoint_interval=)"
            )

    def _execute(self, lease: Lease, job: Job) -> list[Result] | None:
        """The results of a shard; None: it was interrupted."""
        watcher = Watcher(stop_early=lambda: self._stop() or lease.lost(), tell=self._tell)
        run = execute.execute(
            lease.folder,
            [job],
            resume=True,
            watcher=watcher,
            run=self._folder.resolve().name,
            opener=self._programs.open,
        )
        (results,) = run
        n_steps = job.config.n_iterations * job.config.steps_per_iteration
        return results if all(r.step >= n_steps for r in results) else None

    def _keep(self, lease: Lease, shard: shards.Shard, results: list[Result]) -> None:
        """Write the last report, exactly and with all that metrics.jsonl leaves out."""
        about = {
            "plan": self._plan.id,
            "versions": shards.versions(),
            "fingerprint": shard.of(self._jobs).fingerprint(),
            "shard": [shard.job, list(shard.values), list(shard.seeds)],
            "step": results[0].step,
            "timing": results[0].timing,
            "machine": self._machine,
            "owner": leases.read(lease.folder / OWNER),
        }
        arrays: dict[str, Any] = {
            f"{i}/{k}": v for i, r in enumerate(results) for k, v in r.metrics.items()
        }
        with whole(lease.folder / RESULTS) as partial, partial.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **arrays)

    def _free(self, lease: Lease) -> None:
        """Try to let others go on at once; where that fails, they see that the owner is silent."""
        try:
            lease.give_up("stopped", "its worker could not write")
        except OSError as error:
            self._tell(f"shard {lease.shard}: cannot be marked as free: {error.strerror}")


def inherit(old: Path, attempt: Path) -> int | None:
    """Begin an attempt with what another one has saved; its iterations, None: it has no checkpoint.

    The checkpoint comes first: its owner may still be writing, and reports beyond the checkpoint
    are dropped when training resumes.
    """
    (attempt / CHECKPOINTS).mkdir(exist_ok=True)
    iteration = checkpoint.adopt(old / CHECKPOINTS, attempt / CHECKPOINTS)
    if iteration is None:
        return None
    for path in old.iterdir():
        if path.name in OWN or path.name.startswith("."):
            continue
        if path.is_dir():
            shutil.copytree(path, attempt / path.name, dirs_exist_ok=True)
        else:
            shutil.copy2(path, attempt / path.name)
    return iteration


def describe(shard: shards.Shard, jobs: Sequence[Job]) -> str:
    """A shard in a few words."""
    job = shard.of(jobs)
    first = job.values[0].seeds
    values = f" of {len(job.values)} sweep values" if len(job.values) > 1 else ""
    return f"{job.name}, seeds {first.start} to {first.stop - 1}{values}"


class _LastProgram:
    """Compiled programs: the next shard mostly needs the same one as the last."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._program: Program | None = None

    @contextmanager
    def open(self, job: Job, tell: Callable[[str], None]) -> Iterator[Program]:
        """The program of a job, as learned.open_program; its Config has the seeds of the first."""
        with ExitStack() as stack:
            if isinstance(job.env, HostEnv):  # its worker processes end with the shard
                yield stack.enter_context(learned.open_program(job, tell))
                return
            key = f"{job.n_lanes} {signature(job.values[0])}"
            if key != self._key or self._program is None:
                self._key, self._program = None, None  # before the next one: it takes memory
                program = stack.enter_context(learned.open_program(job, tell))
                self._key, self._program = key, _compiling_once(program)
            yield self._program


def _compiling_once(program: Program) -> Program:
    compiled: list[Program] = []

    def compile(carry: Carry, lane: Lane) -> Program:
        if not compiled:
            compiled.append(program.compile(carry, lane))
        return compiled[0]

    return program._replace(compile=compile)
