"""The folder of a run: what is written there, and how a run is found again.

<run>/run.yaml         the command and the overrides that repeat it
<run>/inputs/          copies of the files that they name
<run>/config.yaml      the composed configs      )
<run>/metrics.jsonl    a line per report         ) in a folder per job, if there are several
<run>/timing.json      seconds of all sittings   )
<run>/checkpoint/<n>   after n iterations        )
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

from jaxvff.core.errors import UserError
from jaxvff.core.files import file_name, whole
from jaxvff.runs import checkpoint, inputs, memory, run_file, sinks, trust, warm_start
from jaxvff.runs.files import INPUTS
from jaxvff.runs.learned import CHECKPOINTS, check_length
from jaxvff.runs.locks import Writer
from jaxvff.runs.plan import Job, plan
from jaxvff.runs.sinks import SINKS
from jaxvff.settings.overrides import Override, parse, replaced

RESUMABLE = ("total_steps", *SINKS, "sink")  # the keys that decide no number of a run

Part = Sequence[str | Override]  # overrides of one part of a run


def new_run(
    *parts: Part, command: str = "train", elsewhere: bool = False
) -> tuple[Path, list[Job]]:
    """Plan a run, of a part or more, and make its folder, which has all that repeats it.

    Args:
      parts: overrides of each part.
      command: that the run is of.
      elsewhere: it is trained on other machines, and need not fit into this one.
    """
    parsed = [parse(part) for part in parts]
    jobs = _planned(parsed)
    first = jobs[0].config
    if not elsewhere:
        _check(jobs)
    folder = new_folder(first.run_dir, first.method["name"])
    try:
        inputs.keep(folder / INPUTS, (v.config for job in jobs for v in job.values))
        warm_start.keep(folder / INPUTS, jobs)
        run_file.write(folder, command, parsed)
    except BaseException:  # a full disk, say: what is there is no run
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return folder, jobs


def new_folder(run_dir: str | None, name: str) -> Path:
    """A new folder for results; one that exists is never written into.

    Args:
      run_dir: that the user named; None: runs/<date>_<name>, with a number where several begin in
        the same second.
      name: of what is run.

    Raises:
      UserError: it exists, or cannot be made.
    """
    stem = Path("runs") / f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{name}"
    if run_dir is not None and "\\" in run_dir:
        raise UserError(
            f"run_dir={run_dir!r} has a backslash, which checkpoints cannot be kept "
            "under; name another folder"
        )
    number, folder = 1, stem if run_dir is None else Path(run_dir)
    while True:
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if run_dir is not None:
                raise UserError(
                    f"run_dir={run_dir!r} exists; name another folder, or resume={run_dir}"
                ) from None
            number += 1
            folder = stem.with_name(f"{stem.name}_{number}")
        except OSError as error:
            raise UserError(
                f"run_dir={str(folder)!r} cannot be made: {error.strerror}; name another folder"
            ) from error


def old_run(folder: Path, command: str | None = None) -> tuple[str, list[Job]]:
    """The command and jobs of an existing run folder.

    Args:
      folder: the run folder.
      command: the one that has to have made it; None: any.

    Raises:
      UserError: there is no such folder, or it is none of ours.
    """
    made_by, saved = run_file.read(folder, command)
    return made_by, _planned(saved, folder / INPUTS)


def resumed_run(folder: Path, command: str, changes: Iterable[str | Override] = ()) -> list[Job]:
    """The jobs of a run that goes on, with new values of RESUMABLE keys.

    They are written down once all is well, so that a mistake leaves the run as it was.

    Args:
      folder: the run folder.
      command: the one that has to have made it.
      changes: for the rest of the run.

    Raises:
      UserError: as `old_run`, or a change that cannot be made.
    """
    changes = parse(changes)
    if other := [o for o in changes if o.swept or o.key not in RESUMABLE]:
        raise UserError(
            f"{other[0].text} cannot change in a resumed run, only {', '.join(RESUMABLE)} can; "
            "start a new run"
        )
    made_by, saved = run_file.read(folder, command)
    parts = [replaced(part, changes) for part in saved]
    jobs = _planned(parts, folder / INPUTS)
    _check(jobs)
    for index, job in enumerate(jobs):
        newest = checkpoint.latest(job_folder(folder, jobs, index) / CHECKPOINTS)
        if newest is not None:
            check_length(job, int(newest.name))
    if changes:
        run_file.write(folder, made_by, parts)
    return jobs


def resume_command(command: str, folder: Path, jobs: Sequence[Job]) -> str:
    """What goes on with a run, to be typed into a shell."""
    words = ["jaxvff", command, shlex.quote(f"resume={folder}")]
    named = (name for job in jobs for v in job.values for name in trust.names_code(v.config))
    return " ".join([*words, "trust=true"] if any(named) else words)


def job_folder(folder: Path, jobs: Sequence[Job], index: int) -> Path:
    """Where a job's files are: the run folder itself if there is only one job."""
    if len(jobs) == 1:
        return folder
    return folder / file_name(f"{index:02d}_{jobs[index].name}", 100)


class Guard:
    """Keeps a run folder whole while a run goes on, whatever somebody does to it meanwhile."""

    def __init__(self, folder: Path, writer: Writer) -> None:
        """Remember the small files that a run is found again by.

        Args:
          folder: of the run.
          writer: the lock on it.
        """
        self._folder, self._writer = folder, writer
        top = [folder / run_file.NAME, *(folder / INPUTS).glob("*")]
        self._files = {path: _Content(path) for path in top if path.is_file()}

    def __enter__(self) -> Guard:
        return self

    def __exit__(self, *_: object) -> None:
        for content in self._files.values():
            content.close()

    def put_back(self) -> bool:
        """Write again what was removed or moved; whether anything was.

        Raises:
          UserError: another run has taken the folder's place.
        """
        if self._writer.in_place() and all(path.exists() for path in self._files):
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        self._writer.renew()
        for path, content in self._files.items():
            if path.exists() and not content.is_of(path):
                raise UserError(
                    f"{path} is another run's: {self._folder} was removed or moved while it was "
                    "written, and another run has begun there; the checkpoints and reports are "
                    "where the folder was moved"
                )
            path.parent.mkdir(exist_ok=True)
            with whole(path) as partial:
                content.copy(partial)
        return True


class _Content:
    """What a file held: in memory, or, of a large one, in the file itself, which stays open."""

    LARGE = 2**22  # bytes

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        if os.fstat(self._file.fileno()).st_size <= self.LARGE:
            content = self._file.read()
            self._file.close()
            self._file = io.BytesIO(content)

    def is_of(self, path: Path) -> bool:
        """Whether a file holds the same."""
        with path.open("rb") as other:
            self._file.seek(0)
            while chunk := self._file.read(self.LARGE):
                if other.read(len(chunk)) != chunk:
                    return False
            return not other.read(1)

    def copy(self, path: Path) -> None:
        """Write it into a file."""
        self._file.seek(0)
        with path.open("wb") as file:
            shutil.copyfileobj(self._file, file, self.LARGE)

    def close(self) -> None:
        """The file may go."""
        self._file.close()


def _planned(parts: Iterable[Part], kept: Path | None = None) -> list[Job]:
    return warm_start.started([job for part in parts for job in plan(part, kept)], kept)


def _check(jobs: Sequence[Job]) -> None:
    """Refuse what cannot be trained here, before there is anything to lose."""
    sinks.check(jobs[0].config)
    memory.check(jobs)
