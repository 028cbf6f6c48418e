"""`jaxvff evaluate run=<folder>`: greedy evaluation of a run, from its newest checkpoint."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from jaxvff.api import run as runs
from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.settings import config, overrides

KEYS = ("eval_episodes", "render", "seed", "episodes", "trust")


def run(args: list[str]) -> int:
    """Evaluate every lane of a run."""
    rest, own = overrides.split(args, "run", *KEYS)
    if "run" not in own or rest:
        raise UserError(f"evaluate takes run=<run folder>, {'=, '.join(KEYS)}= and no more")
    asked: dict[str, Any] = {}  # an option of the config, and checked as such
    config.put_all(asked, overrides.parse(f"{k}={own[k]}" for k in own if k == "eval_episodes"))
    trained = runs.load(own["run"], trust=overrides.flag(own, "trust"))
    with importing(trained.configs[0]):
        jobs = trained.files()

        from rich.console import Console

        from jaxvff.api import evaluation
        from jaxvff.reports import gifs, records, tables
        from jaxvff.runs import learned

        drawn = gifs.wish(own)
        console, found, waiting = Console(), [], []
        if drawn is not None:
            gifs.check(trained.jobs, drawn)
    for files, job in jobs:
        with ExitStack() as stack:
            with console.status(f"compiling and playing: {job.name}"):
                played = stack.enter_context(evaluation.of_job(files, job, **asked))
            if played is None:
                waiting.append(files)
                continue
            found += [records.of(result) for result in played.results]
            if drawn is not None:
                for line in gifs.gifs(files, job, played.program, played.trained, drawn):
                    console.print(line, soft_wrap=True, markup=False, highlight=False)
    if not found:
        raise learned.none_yet(trained.folder)
    tables.print_results(console, found)
    for files in waiting:
        console.print(f"{files} has no checkpoint yet", soft_wrap=True, markup=False)
    return 0
