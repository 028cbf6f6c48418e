"""The folder of a run: what is written there, and how a run is found again.

<run>/run.yaml         the command and the overrides that repeat it
<run>/config.yaml      the composed configs      )
<run>/metrics.jsonl    a line per report         ) in a folder per job, if there are several
<run>/timing.json      seconds of all sittings   )
<run>/checkpoint/<n>   after n iterations        )
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from jaxvff.core.errors import UserError
from jaxvff.runs import memory, run_file, sinks
from jaxvff.runs.plan import Job, plan
from jaxvff.runs.sinks import SINKS
from jaxvff.settings.overrides import Override, parse

CONFIG_FILE = "config.yaml"
METRICS_FILE, TIMING_FILE = "metrics.jsonl", "timing.json"
CHECKPOINTS = "checkpoint"
RESUMABLE = ("total_steps", *SINKS)  # the keys that decide no number of a run

Part = Sequence[str | Override]  # overrides of one part of a run


def new_run(*parts: Part, command: str = "train") -> tuple[Path, list[Job]]:
    """Plan a run, of a part or more, and make its folder, which says how to repeat it."""
    parsed = [parse(part) for part in parts]
    jobs = _planned(parsed)
    first = jobs[0].config
    sinks.check(first)
    memory.check(jobs)
    if first.run_dir is None:
        name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{first.method['name']}"
        folder = Path("runs") / name
    else:
        folder = Path(first.run_dir)
    make_folder(folder)
    run_file.write(folder, command, parsed)
    return folder, jobs


def make_folder(folder: Path) -> None:
    """A new folder for results, or a UserError; one that exists is never written into."""
    if folder.exists():
        raise UserError(f"run_dir={str(folder)!r} exists; name another folder, or resume={folder}")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"run_dir={str(folder)!r} cannot be made: {error.strerror}") from error


def old_run(
    folder: Path, command: str | None = None, extra: Iterable[str | Override] = ()
) -> tuple[str, list[Job]]:
    """The command and jobs of an existing run folder.

    Args:
      folder: the run folder.
      command: the one that has to have made it; None: any.
      extra: overrides for the rest of the run, of RESUMABLE keys.

    Raises:
      UserError: there is no such folder, it is none of ours, or `extra` changes the run.
    """
    changes = parse(extra)
    if other := [o for o in changes if o.swept or o.key not in RESUMABLE]:
        raise UserError(
            f"{other[0].text} cannot change in a resumed run, only {', '.join(RESUMABLE)} can; "
            "start a new run"
        )
    made_by, saved = run_file.read(folder, command)
    parts = [[*part, *changes] for part in saved]
    jobs = _planned(parts)
    if changes:  # only what could be planned is written down
        run_file.write(folder, made_by, parts)
    return made_by, jobs


def job_folder(folder: Path, jobs: Sequence[Job], index: int) -> Path:
    """Where a job's files are: the run folder itself if there is only one job."""
    return folder if len(jobs) == 1 else folder / f"{index:02d}_{jobs[index].name}"[:100]


def _planned(parts: Iterable[Part]) -> list[Job]:
    return [job for part in parts for job in plan(part)]
