"""`jaxvff evaluate run=<folder>`: greedy evaluation of a run, from its newest checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.runs import run_file, trust
from jaxvff.settings import overrides, sweep

KEYS = ("render", "seed", "episodes", "trust")  # the first three: what is drawn, reports.gifs


def run(args: list[str]) -> int:
    """Evaluate every lane of a run."""
    rest, own = overrides.split(args, "run", *KEYS)
    if "run" not in own or rest:
        raise UserError(f"evaluate takes run=<run folder>, {'=, '.join(KEYS)}= and no more")
    folder = Path(own["run"])
    configs = [value.config for part in run_file.read(folder)[1] for value in sweep.expand(part)]
    trusted = trust.wish(own.get("trust"))
    with importing(configs[0]):
        if not trusted:
            trust.check(folder, configs)

        from rich.console import Console

        from jaxvff.api import evaluation
        from jaxvff.reports import gifs, records, tables
        from jaxvff.runs import folder as runs

        drawn = gifs.wish(own)
        console, found, waiting = Console(), [], []
        _, jobs = runs.old_run(folder)
        if drawn is not None:
            gifs.check(jobs, drawn)
    for index, job in enumerate(jobs):
        files = runs.job_folder(folder, jobs, index)
        with ExitStack() as stack:
            with console.status(f"compiling and playing: {job.name}"):
                played = stack.enter_context(evaluation.of_job(files, job))
            if played is None:
                waiting.append(files)
                continue
            found += [records.of(result) for result in played.results]
            if drawn is not None:
                for line in gifs.gifs(files, job, played.program, played.trained, drawn):
                    console.print(line, soft_wrap=True, markup=False, highlight=False)
    if not found:
        raise UserError(f"{folder} has no checkpoint yet; wait for one or train again")
    tables.print_results(console, found)
    for files in waiting:
        console.print(f"{files} has no checkpoint yet", soft_wrap=True, markup=False)
    return 0
