"""A run that is planned for several workers: its lanes cut into shards.

<run>/run.yaml, inputs/   as of every run
<run>/plan.json           the shards, and what a worker has to agree with
<run>/shards/             what workers make of them (runs/leases.py)

A shard is some seeds of some sweep values of one job, hence a job itself: what trains, saves and
resumes it is what trains any job. `jaxvff merge` makes of the folder what one machine would have
made of it (runs/merge.py).
"""

from __future__ import annotations

import hashlib
import heapq
import importlib
import itertools
import json
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jaxvff
from jaxvff.core.errors import UserError
from jaxvff.core.files import plain, write_json
from jaxvff.runs import job_files, run_file
from jaxvff.runs.files import INPUTS

if TYPE_CHECKING:
    from jaxvff.runs.plan import Job

PLAN_FILE, FOLDER = "plan.json", "shards"
SOURCES = ("*.py", "*.yaml")  # of this package: what decides numbers
CHUNK = 2**20  # bytes that are read at a time


class Shard(NamedTuple):
    """A part of the lanes of a job."""

    job: int  # its number in the run
    values: range  # of its sweep values
    seeds: range  # counted from the first seed of each value

    def of(self, jobs: Sequence[Job]) -> Job:
        """The shard as a job of its own."""
        first, n_seeds = self.seeds.start, len(self.seeds)
        whole = jobs[self.job]
        return whole._replace(
            values=[value.of_seeds(first, n_seeds) for value in _part(whole.values, self.values)]
        )

    @property
    def n_lanes(self) -> int:
        """Sweep values times seeds."""
        return len(self.values) * len(self.seeds)


class PlannedJob(NamedTuple):
    """What is told of a job without planning it again."""

    name: str
    total_steps: int


class Plan(NamedTuple):
    """What is in plan.json."""

    id: str  # a digest of all that decides the run
    versions: dict[str, str]  # of what computes its numbers
    jobs: list[PlannedJob]
    shards: list[Shard]


def cut(sizes: Sequence[tuple[int, int, int]], n_shards: int) -> list[Shard]:
    """Cut jobs into shards of about equal work.

    Seeds are cut first: all sweep values of a job stay together as long as there are seeds enough.

    Args:
      sizes: of each job: sweep values, seeds, steps.
      n_shards: of all jobs together.

    Raises:
      UserError: there are fewer lanes than shards, or fewer shards than jobs.
    """
    lanes = [values * seeds for values, seeds, _ in sizes]
    n_lanes = sum(lanes)
    if n_shards < len(sizes):
        raise UserError(
            f"shards={n_shards} is less than the {len(sizes)} programs of the run, and a shard is "
            f"part of one; write shards={len(sizes)} or more"
        )
    if n_shards > n_lanes:
        raise UserError(
            f"shards={n_shards} is more than the {n_lanes} lanes (seeds times sweep values) of the "
            f"run; write shards={n_lanes} or fewer"
        )
    # One each; every further one goes where a shard has the most work, and more than one lane.
    pieces = [1] * len(sizes)
    work = [values * seeds * steps for values, seeds, steps in sizes]
    heap = [
        (-float(work[i]), i) for i, (values, seeds, _) in enumerate(sizes) if values * seeds > 1
    ]
    heapq.heapify(heap)
    for _ in range(n_shards - len(sizes)):
        _, i = heapq.heappop(heap)
        pieces[i] += 1
        if pieces[i] < lanes[i]:
            heapq.heappush(heap, (-work[i] / pieces[i], i))
    return [
        Shard(i, values, seeds)
        for i, (n_values, n_seeds, _) in enumerate(sizes)
        for values, seeds in _grid(n_values, n_seeds, pieces[i])
    ]


def make(folder: Path, jobs: Sequence[Job], n_shards: int) -> Plan:
    """Write the plan of a run into its new folder.

    Raises:
      UserError: the run cannot be cut in so many shards.
    """
    sizes = [(len(job.values), job.config.seeds, job.config.total_steps) for job in jobs]
    shards = cut(sizes, n_shards)
    told = [PlannedJob(job.name, job.config.total_steps) for job in jobs]
    plan = Plan("", versions(), told, shards)
    plan = plan._replace(id=_digest(folder, plan))
    (folder / FOLDER).mkdir()
    write_json(folder / PLAN_FILE, {"id": plan.id, **_as_json(plan)})
    return plan


def read(folder: Path) -> Plan:
    """The plan in a folder.

    Raises:
      UserError: there is none, or it, run.yaml or a file of inputs/ has changed since.
    """
    if not (folder / PLAN_FILE).exists():
        raise UserError(
            f"{folder} is no plan: it has no {PLAN_FILE}; write one with jaxvff plan train ... "
            "shards=<n>, and see that this machine mounts the folder that was planned"
        )
    try:
        saved = json.loads((folder / PLAN_FILE).read_text(encoding="utf-8"))
        plan = Plan(
            str(saved["id"]),
            dict(saved["versions"]),
            [PlannedJob(str(name), int(steps)) for name, steps in saved["jobs"]],
            [Shard(j, range(a, b), range(c, d)) for j, a, b, c, d in saved["shards"]],
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{folder / PLAN_FILE} cannot be read ({error}); restore it from a copy, what was "
            "trained is kept"
        ) from error
    if _digest(folder, plan) != plan.id:
        raise UserError(
            f"{folder} was changed after it was planned ({run_file.NAME}, {PLAN_FILE} or a file in "
            f"{INPUTS}): shards of before and after would not belong together; restore the file, "
            "or plan a new run"
        )
    if not (folder / FOLDER).is_dir():
        raise UserError(f"{folder / FOLDER} is missing; restore it, or mkdir it to begin anew")
    return plan


def check_merged(folder: Path) -> None:
    """Refuse to train a plan as a whole, unless its checkpoints have been merged.

    Raises:
      UserError: they have not.
    """
    if (folder / PLAN_FILE).exists() and not any(
        any(folder.glob(f"{below}checkpoint/*")) for below in ("", "*/")
    ):
        raise UserError(
            f"{folder} is planned for several workers; go on with jaxvff work {folder}, or, when "
            f"all shards are done, jaxvff merge {folder} checkpoint=true"
        )


def check_is_whole(folder: Path) -> None:
    """Refuse a plan that has not been merged: what is asked for is of the run as a whole.

    Raises:
      UserError: it has not been.
    """
    if (folder / PLAN_FILE).exists() and not job_files.folders(folder):
        raise UserError(
            f"{folder} is planned for several workers and not merged yet; see how far it is with "
            f"jaxvff status {folder}, and when all shards are done, jaxvff merge {folder}"
        )


def check_versions(folder: Path, wanted: dict[str, str], whose: str = "this machine") -> None:
    """Refuse other versions than those of a plan: the same seeds would give other numbers.

    Args:
      folder: of the plan.
      wanted: its versions.
      whose: differs, for the message.

    Raises:
      UserError: a version differs.
    """
    mine = versions()
    for name in {**wanted, **mine}:
        if wanted.get(name) != mine.get(name):
            what = "the source of jaxvff" if name == "source" else name
            raise UserError(
                f"{folder} was planned with {what} {wanted.get(name)}, and {whose} has "
                f"{mine.get(name)}: seeds of both would not belong together; install the same "
                "versions on all machines, or plan a new run"
            )


def versions() -> dict[str, str]:
    """What has to be the same wherever lanes of a run are trained."""
    packages = {name: metadata.version(name) for name in ("jax", "jaxlib")}
    return {"jaxvff": jaxvff.__version__, "source": _source(), **packages}


def _source() -> str:
    """A digest of this package: a checkout changes without its version."""
    files: dict[str, Path] = {}  # by where a wheel has them: a checkout has envs/ beside jaxvff/
    for name in ("", "envs", "configs"):
        package = importlib.import_module(f"jaxvff.{name}".rstrip("."))
        for root in map(Path, package.__path__):
            for path in (found for kind in SOURCES for found in root.rglob(kind)):
                files[(Path(name) / path.relative_to(root)).as_posix()] = path
    digest = hashlib.sha256()
    for where, path in sorted(files.items()):
        digest.update(where.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _digest(folder: Path, plan: Plan) -> str:
    """Of all that decides the run."""
    digest = hashlib.sha256(json.dumps(_as_json(plan), sort_keys=True).encode())
    files = [folder / run_file.NAME, *sorted((folder / INPUTS).glob("*"))]
    for path in files:
        digest.update(path.name.encode() + b"\0")
        if path.is_file():
            with path.open("rb") as file:
                while chunk := file.read(CHUNK):  # recorded episodes may be large
                    digest.update(chunk)
    return digest.hexdigest()[:16]


def _as_json(plan: Plan) -> dict[str, Any]:
    rows = [
        [s.job, s.values.start, s.values.stop, s.seeds.start, s.seeds.stop] for s in plan.shards
    ]
    return plain({"versions": plan.versions, "jobs": list(map(list, plan.jobs)), "shards": rows})


def _grid(n_values: int, n_seeds: int, pieces: int) -> list[tuple[range, range]]:
    """Sweep values times seeds, in so many rectangles of about one size."""
    if pieces <= n_seeds:
        return [(range(n_values), seeds) for seeds in _ranges(n_seeds, pieces)]
    if pieces <= n_values:
        return [(values, range(n_seeds)) for values in _ranges(n_values, pieces)]
    counts = [len(r) for r in _ranges(pieces, n_values)]  # of each value
    return [(range(v, v + 1), seeds) for v, n in enumerate(counts) for seeds in _ranges(n_seeds, n)]


def _ranges(n: int, pieces: int) -> list[range]:
    """0 .. n in consecutive ranges, the longer ones first."""
    size, longer = divmod(n, pieces)
    starts = [i * size + min(i, longer) for i in range(pieces + 1)]
    return [range(a, b) for a, b in itertools.pairwise(starts)]


def _part(items: list, which: range) -> list:
    return items[which.start : which.stop]
