"""What each command of the command line does; a function per command, returning the exit code."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from jaxvff import (
    bench,
    checkpoint,
    experiment,
    marl_eval,
    memory,
    plots,
    presets,
    render,
    sharding,
    show,
    table1,
    train,
)  # fmt: skip
from jaxvff.experiment import Result
from jaxvff.log import write_json
from jaxvff.options import choose
from jaxvff.plan import Group, plan
from jaxvff.types import UserError


def _train(overrides: list[str]) -> int:
    """Train, or resume, and show the results."""
    extra, options = take(overrides, "resume")
    if "resume" in options:
        folder = Path(options["resume"])
        _, groups = experiment.old_run(folder, "train", extra)
    else:
        folder, groups = experiment.new_run(extra)
    console = Console()
    results, complete = _execute(console, folder, groups, resume="resume" in options)
    records = write_results(folder, results)
    show.print_results(console, records)
    return _closing(console, folder, complete, "train")


def _evaluate(overrides: list[str]) -> int:
    """Greedy evaluation of every lane of a run, from its newest checkpoint."""
    rest, options = take(overrides, "run", *render.KEYS)
    if "run" not in options or rest:
        raise UserError(f"evaluate takes run=<run folder>, {'=, '.join(render.KEYS)}= and no more")
    wanted = render.wish(options)
    folder, console = Path(options["run"]), Console()
    _, groups = experiment.old_run(folder)
    if wanted is not None:
        render.check(groups, wanted)
    records = []
    for index, group in enumerate(groups):
        place = experiment.group_folder(folder, groups, index)
        with experiment.open_program(group) as program:
            carry, lane, iteration = _restored(place, group, program)
            metrics = train.report_metrics(program, carry, lane)
            records += [
                show.record(r) for r in experiment.results(group, place, iteration, metrics, {})
            ]
            if wanted is not None:
                step = iteration * group.config.steps_per_iteration
                for line in render.gifs(place, group, program, carry, lane, step, wanted):
                    console.print(line, soft_wrap=True, markup=False, highlight=False)
    show.print_results(console, records)
    return 0


def _reproduce(overrides: list[str]) -> int:
    """A table or figure of the paper, by name."""
    name, extra = (overrides[0], overrides[1:]) if overrides else ("nothing", [])
    choose(name, presets.names(), "reproduce")
    extra, options = take(extra, "resume")
    command = f"reproduce {name}"
    if "resume" in options:
        folder = Path(options["resume"])
        _, groups = experiment.old_run(folder, command, extra)
    else:
        folder, groups = experiment.new_run(*presets.overrides(name, extra), command=command)
    console = Console()
    results, complete = _execute(console, folder, groups, resume="resume" in options)
    records = write_results(folder, results)
    if complete and name == "table1":
        summary = table1.summary(records, [r.folder for r in results])
        write_json(folder / "table1.json", summary)
        table1.plot(summary, folder / "table1.png")
        console.print(table1.terminal(summary))
    else:
        show.print_results(console, records)
    return _closing(console, folder, complete, command)


def _bench(overrides: list[str]) -> int:
    """Throughput of the compiled program on this machine."""
    extra, options = take(overrides, "lanes", "seconds")
    try:
        lanes = yaml.safe_load(options.get("lanes", "[1, 64, 512]"))
        seconds = float(options.get("seconds", 5))
        good = all(isinstance(n, int) and n > 0 for n in lanes) and 0 < seconds < 3600
    except (TypeError, ValueError, yaml.YAMLError):
        good = False
    if not good:
        asked = " ".join(f"{key}={value}" for key, value in options.items())
        raise UserError(f"{asked} cannot be timed; write for instance lanes=[1,64] seconds=5")
    console = Console()
    plans = [plan([*extra, f"seeds={n}"]) for n in lanes]
    rows = [bench.measure(group, seconds) for groups in plans for group in groups]
    console.print(bench.terminal(rows))
    return 0


def _stability(overrides: list[str]) -> int:
    """The stability lab on one game: all questions, or the claims alone."""
    # Here, not above: diffrax and its like take a second to import that training need not wait.
    from jaxvff.analysis import lab, report, settings

    only_claims = overrides[:1] == ["claims"]
    asked = settings.load(overrides[only_claims:])
    asked.table()
    name = f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_stability_{asked.name}"
    folder = Path(asked.run_dir or Path("runs") / name)
    experiment.make_folder(folder)
    report.write_settings(folder, asked)
    console, answer = Console(), {}
    questions = lab.CLAIM_QUESTIONS if only_claims else lab.QUESTIONS
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("points", total=len(questions))
        for name, part in lab.answers(asked, only_claims):
            answer[name] = part
            report.write(folder, name, part)  # at once: what is answered survives Ctrl-C
            rest = [q for q in questions if q not in answer]
            bar.update(task, advance=1, description=rest[0] if rest else "done")
    report.show_all(console, asked, answer)
    console.print(f"results: {folder}", soft_wrap=True)
    return 0


def take(overrides: list[str], *keys: str) -> tuple[list[str], dict[str, str]]:
    """Split what is no config key off the overrides: `(the rest, {key: value})`."""
    rest = [o for o in overrides if o.split("=", 1)[0] not in keys]
    return rest, dict(o.split("=", 1) for o in overrides if o not in rest)


def write_results(folder: Path, results: list[Result]) -> list[dict[str, Any]]:
    """Tables, plots and marl_eval.json of what was trained, in its folder."""
    records = [show.record(r) for r in results]
    if not records:
        return records
    write_json(folder / "table.json", {"machine": show.machine(), "results": records})
    if "rates" in records[0]:
        plots.learned_tables(records, folder / "table.png")
        if len(records) > 1:
            plots.rates(records, folder / "rates.png")
    curves = [
        (rec, show.curve(r.folder, rec["sweep"])) for rec, r in zip(records, results, strict=True)
    ]
    for place in {folder, *(r.folder for r in results)}:
        mine = [c for c, r in zip(curves, results, strict=True) if place in (folder, r.folder)]
        plots.learning_curves(mine, place / "curves.png")
    marl_eval.write([c for c in curves if "aggregate" in c[0]], folder)
    return records


def _execute(
    console: Console, folder: Path, groups: list[Group], resume: bool
) -> tuple[list[Result], bool]:
    """Run all groups under a progress bar; the results, and whether all of it is done."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    results: list[Result] = []
    console.print(memory.describe(memory.largest(groups)), style="dim", highlight=False)
    told: set[tuple[str, int]] = set()
    with experiment.interruptible() as stopped, Progress(*columns, console=console) as bar:
        total = sum(g.n_lanes * g.config.total_steps for g in groups)
        task = bar.add_task("compiling", total=total, speed="")
        done = 0
        clock: dict[str, tuple[int, float]] = {}

        def on_progress(group: Group, steps: int) -> None:
            first_steps, first_time = clock.setdefault(group.name, (steps, time.perf_counter()))
            elapsed = time.perf_counter() - first_time
            rate = group.n_lanes * (steps - first_steps) / elapsed if elapsed > 0.1 else 0
            speed = f"{rate:,.0f} seed-steps/s" if rate else ""
            bar.update(
                task, completed=done + group.n_lanes * steps, description=group.name, speed=speed
            )

        def tell(line: str) -> None:
            console.print(line, soft_wrap=True, markup=False, highlight=False)

        def on_report(group: Group, report: train.Report) -> None:
            for line in show.stops(group, report.metrics, told):
                tell(line)

        run = experiment.execute(
            folder, groups, resume=resume, stop_early=stopped, on_progress=on_progress,
            on_report=on_report, tell=tell,
        )  # fmt: skip
        for group, finished in zip(groups, run, strict=False):
            results += finished
            done += group.n_lanes * group.config.total_steps
            bar.update(task, completed=done)
    complete = len(results) == sum(len(g.values) for g in groups) and all(
        r.step >= r.value.config.n_iterations * r.value.config.steps_per_iteration for r in results
    )
    return results, complete


def _closing(console: Console, folder: Path, complete: bool, command: str) -> int:
    if complete:
        console.print(f"results: {folder}", soft_wrap=True)
        return 0
    console.print(f"interrupted; continue with: jaxvff {command} resume={folder}", soft_wrap=True)
    return 130


def _restored(
    folder: Path, group: Group, program: train.Program
) -> tuple[train.Carry, train.Lane, int]:
    """The newest checkpoint of a group, and the iterations done there."""
    saved = checkpoint.latest(folder / experiment.CHECKPOINTS)
    if saved is None:
        raise UserError(f"{folder} has no checkpoint yet; wait for one or train again")
    lane = sharding.place(group.lanes(), program.mesh)
    iteration, carry = experiment.restored(saved, group, program, lane)
    return carry, lane, iteration


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "train": _train,
    "evaluate": _evaluate,
    "reproduce": _reproduce,
    "bench": _bench,
    "stability": _stability,
}
