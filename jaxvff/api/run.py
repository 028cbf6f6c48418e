"""A run: what is in its folder, and what can be done with it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxvff.core.errors import UserError
from jaxvff.runs import run_file, trust
from jaxvff.settings import sweep as sweeps
from jaxvff.settings.config import Config

if TYPE_CHECKING:
    from jaxvff.api.results import Columns, Results
    from jaxvff.policies.policy import Policy
    from jaxvff.reports.records import Curve
    from jaxvff.runs.plan import Job


def load(folder: str | Path, *, trust: bool = False) -> Run:
    """A run that was trained before, here or elsewhere.

    Args:
      folder: of the run.
      trust: run the code that it names, such as a game of its own (docs/runs.md).

    Raises:
      UserError: it is no run folder.
    """
    return Run(Path(folder), trust=trust)


class Run:
    """A run folder. Nothing is computed before it is asked for.

    Whatever shows results (`complete`, `results`, `curves`, the pictures) reads files alone: JAX is
    not imported, and code that the folder names is not run, so that nothing has to be trusted.
    """

    def __init__(self, folder: Path, *, trust: bool = False) -> None:
        """See `load`."""
        self.folder = folder
        self._trusted = trust
        self.command, self._parts = run_file.read(folder)

    @functools.cached_property
    def configs(self) -> list[Config]:
        """The settings of every sweep value."""
        return sweeps.configs(self._parts)

    @functools.cached_property
    def jobs(self) -> list[Job]:
        """Sweep values that share a compiled program each.

        Raises:
          UserError: the folder names code that is not trusted.
        """
        from jaxvff.api import start

        start.set_up(self.configs[0])
        if not self._trusted:
            trust.check(self.folder, self.configs)
        from jaxvff.runs import folder as runs

        return runs.old_run(self.folder)[1]

    @property
    def complete(self) -> bool:
        """Whether every sweep value was trained to its end, and its results are in table.json.

        Raises:
          UserError: table.json is damaged.
        """
        from jaxvff.reports import table_file

        table = table_file.read(self.folder)
        done = sorted(result["steps"] for result in table.results) if table else []
        asked = sorted(c.n_iterations * c.steps_per_iteration for c in self.configs)
        return len(done) == len(asked) and all(d >= a for d, a in zip(done, asked, strict=True))

    @property
    def results(self) -> Results:
        """What was reported last of every sweep value, from table.json.

        Raises:
          UserError: there is none yet.
        """
        from jaxvff.api.results import Results
        from jaxvff.reports import table_file

        return Results(table_file.read_records(self.folder))

    @property
    def curves(self) -> Columns:
        """Every report of every seed, from metrics.jsonl: step, seed, and what was measured.

        Raises:
          UserError: a file is damaged, or the run is a plan that is not merged yet.
        """
        from jaxvff.api import results
        from jaxvff.runs import job_files, shards

        shards.check_is_whole(self.folder)
        jobs = job_files.folders(self.folder)
        return results.curves(line for job in jobs for line in job_files.lines(job))

    def evaluate(self, eval_episodes: int | None = None) -> Results:
        """Play greedily now, from the newest checkpoints, as `jaxvff evaluate` does.

        Args:
          eval_episodes: of each seed; None: as many as the run has in its reports.

        Raises:
          UserError: there is no checkpoint yet, or the number is out of range.
        """
        from jaxvff.api import evaluation
        from jaxvff.api.results import Results
        from jaxvff.reports import records
        from jaxvff.runs import learned

        found = []
        for files, job in self.files():
            with evaluation.of_job(files, job, eval_episodes) as evaluated:
                if evaluated is not None:
                    found += [records.of(result) for result in evaluated.results]
        if not found:
            raise learned.none_yet(self.folder)
        return Results(found)

    def policy(self, seed: int | None = None, sweep: Mapping[str, Any] | None = None) -> Policy:
        """The agents of one seed, to be played with or exported.

        Args:
          seed: its number; None: the first.
          sweep: of a sweep, the value: `{"method": "qmix"}`.

        Raises:
          UserError: there is no such seed or value, or no policy of agents alone.
        """
        from jaxvff.api import policies

        return policies.of_run(self.folder, self.jobs, seed, sweep or {})

    def record(
        self,
        to: str | Path,
        episodes: int,
        *,
        seed: int | None = None,
        sweep: Mapping[str, Any] | None = None,
        epsilon: float = 0.0,
        play_seed: int = 0,
    ) -> dict[str, float]:
        """Play episodes with the agents of one seed, and write them for `offline=`.

        Args:
          to: a new .npz file (runs/episodes.py has its schema).
          episodes: how many.
          seed: of the run; None: the first.
          sweep: of a sweep, the value, as for `policy`.
          epsilon: share of uniformly random actions; 0: greedy.
          play_seed: of the games and of the random actions.

        Returns:
          The mean return, length and results of the episodes.

        Raises:
          UserError: games on the host, no such seed or value, or the file exists.
        """
        from jaxvff.api import recording

        return recording.record(
            self.folder,
            self.jobs,
            Path(to),
            n_episodes=episodes,
            seed=seed,
            sweep=sweep or {},
            epsilon=epsilon,
            play_seed=play_seed,
        )

    def plot_curves(self) -> Picture:
        """Learning curves over seeds."""
        from jaxvff.reports import plots

        return Picture.drawn(lambda path: plots.learning_curves(list(self._curves()), path))

    def plot_tables(self) -> Picture:
        """True and learned payoffs of matrix games.

        Raises:
          UserError: there is nothing to draw.
        """
        from jaxvff.reports import plots, records

        games, _ = records.by_kind(self.results)
        return Picture.drawn(lambda path: plots.learned_tables(games, path))

    def plot_rates(self) -> Picture:
        """Shares of seeds that fit and are greedy-optimal, of matrix games.

        Raises:
          UserError: there is nothing to draw.
        """
        from jaxvff.reports import plots, records

        games, _ = records.by_kind(self.results)
        if not games:
            raise UserError(
                f"{self.folder} has no matrix game, and rates are of these; plot_curves"
            )
        return Picture.drawn(lambda path: plots.rates(games, path))

    def _curves(self) -> Iterator[Curve]:
        from jaxvff.reports import records, table_file
        from jaxvff.runs import job_files

        found = {
            table_file.identity(label, config["method"]["name"], config["env"]): job
            for job in job_files.folders(self.folder)
            for label, config in job_files.values(job)
        }
        for record in self.results:
            job = found.get(table_file.identity(record.sweep, record.method, record.env))
            if job is not None:
                yield records.curve(job, record)

    def files(self) -> list[tuple[Path, Job]]:
        """The folder of each job, and the job."""
        from jaxvff.runs import folder as runs

        jobs = self.jobs
        return [(runs.job_folder(self.folder, jobs, i), job) for i, job in enumerate(jobs)]

    def __repr__(self) -> str:
        first = self.configs[0]
        values = f", {len(self.configs)} sweep values" if len(self.configs) > 1 else ""
        what = f"{first.method['name']} on {first.env['kind']}"
        return f"Run({self.folder}: {what}, {first.seeds} seeds{values})"


class Picture:
    """A PNG that a notebook shows."""

    def __init__(self, png: bytes) -> None:
        """`png`: the bytes of the file."""
        self.png = png

    @classmethod
    def drawn(cls, draw: Callable[[Path], None]) -> Picture:
        """What a function draws into a file.

        Raises:
          UserError: it draws nothing.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "picture.png"
            draw(path)
            if not path.exists():
                raise UserError("there is nothing to draw: tables are of small matrix games")
            return cls(path.read_bytes())

    def save(self, path: str | Path) -> None:
        """Write the file."""
        Path(path).write_bytes(self.png)

    def _repr_png_(self) -> bytes:
        return self.png
