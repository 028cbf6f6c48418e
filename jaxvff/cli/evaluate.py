"""`jaxvff evaluate run=<folder>`: greedy evaluation of a run, from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.runs import run_file
from jaxvff.settings import overrides, sweep

KEYS = ("render", "seed", "episodes")  # what is drawn, see reports.gifs


def run(args: list[str]) -> int:
    """Evaluate every lane of a run."""
    rest, own = overrides.split(args, "run", *KEYS)
    if "run" not in own or rest:
        raise UserError(f"evaluate takes run=<run folder>, {'=, '.join(KEYS)}= and no more")
    folder = Path(own["run"])
    saved = run_file.read(folder)[1]
    with importing(sweep.expand(saved[0])[0].config):
        from rich.console import Console

        from jaxvff.reports import gifs, records, tables
        from jaxvff.runs import execute
        from jaxvff.runs import folder as runs
        from jaxvff.training import loop

        drawn = gifs.wish(own)
        console, found = Console(), []
        _, jobs = runs.old_run(folder)
        if drawn is not None:
            gifs.check(jobs, drawn)
    for index, job in enumerate(jobs):
        files = runs.job_folder(folder, jobs, index)
        with execute.open_program(job) as program:
            with console.status(f"compiling and playing: {job.name}"):
                trained = execute.newest(files, job, program)
                metrics = loop.report_metrics(program, trained.carry, trained.lane)
                results = execute.results(job, files, trained.iteration, metrics=metrics, timing={})
            found += [records.of(result) for result in results]
            if drawn is not None:
                for line in gifs.gifs(files, job, program, trained, drawn):
                    console.print(line, soft_wrap=True, markup=False, highlight=False)
    tables.print_results(console, found)
    return 0
