"""A report: one HTML page about runs, which needs neither a network nor files beside it.

What it shows is gathered here and in page_tasks.py; page.html.jinja says how it looks.
The sweep values come from entry_files.py, what they have in common from study.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxvff.core.errors import UserError, check_name, extra
from jaxvff.core.files import write_text
from jaxvff.reports import entry_files, rules, study
from jaxvff.reports.entry import COMPLETE, ENDED, RECORDED, Entry

if TYPE_CHECKING:
    from jaxvff.reports.page_tasks import Across, Task

FILE = "index.html"
TEMPLATE = "page.html.jinja"
SMALLER_IS_BETTER = ("regret", "max_error", "loss", "td_error_abs")
LONGEST_VALUE = 60  # characters of a setting


class Wish(NamedTuple):
    """What is asked of a report besides its runs."""

    metrics: tuple[str, ...] = ()  # curves to draw besides those of plots.CURVES
    score: str | None = None  # what methods are compared by; None: win rate, else return


PLAIN = Wish()


class Range(NamedTuple):
    """The least and the most of a number; the same of one run."""

    low: float
    high: float


class Row(NamedTuple):
    """A sweep value in the table of runs."""

    run: str
    command: str
    task: str
    name: str
    seeds: int
    steps: int
    state: str
    # Of several runs the least and the most.
    wall_s: Range | None
    compile_s: Range | None
    seed_steps_per_s: Range | None


class Settings(NamedTuple):
    """How configurations differ, and what they have in common."""

    keys: list[str]  # in which they differ
    rows: list[tuple[str, str, list[str]]]  # task, name, value of each key
    shared: dict[str, str]


class Stop(NamedTuple):
    """Something that did not go as asked."""

    task: str
    name: str
    what: str


class Page(NamedTuple):
    """What a report shows."""

    runs: list[Row]
    machines: list[tuple[str, str]]  # run, versions and devices
    settings: Settings
    tasks: list[Task]
    across: Across | None
    stops: list[Stop]


def write(paths: Sequence[Path], out: Path, wish: Wish = PLAIN) -> Path:
    """Write the page about runs into a folder.

    Args:
      paths: run folders, and files of records.
      out: the folder; made where it is missing.
      wish: what is asked.

    Returns:
      The file.

    Raises:
      UserError: a path is neither, or nothing has been reported yet.
    """
    return save(html(gather(paths, wish)), out)


def save(text: str, out: Path) -> Path:
    """Put a page into a folder, which is made where it is missing; the file."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / FILE, text)
    return out / FILE


def _check(wish: Wish, entries: Sequence[Entry]) -> None:
    """Hold what is asked for against what was measured.

    Raises:
      UserError: no run has such a curve or score, or a score is better where it is smaller.
    """
    if wish.metrics:
        numbers = (item for e in entries for line in e.lines for item in line.items())
        curves = sorted({name for name, value in numbers if _is_measure(value)})
        for name in wish.metrics:
            check_name(name, curves, "curves")
    if wish.score in SMALLER_IS_BETTER:
        raise UserError(
            f"score={wish.score} is better where it is smaller, and the larger score is taken for "
            "the better one here; choose another, such as score=test_return"
        )
    if wish.score is not None:
        check_name(wish.score, sorted({name for e in entries for name in e.final}), "score")


def _is_measure(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(x, (int, float)) for x in value)


def gather(paths: Sequence[Path], wish: Wish = PLAIN) -> Page:
    """What a report shows of runs.

    Raises:
      UserError: a path is no run, or nothing has been reported yet.
    """
    from jaxvff.reports import page_tasks  # here: matplotlib takes a second to import

    read = [entry for path in paths for entry in entry_files.read(path)]
    told = [e for e in read if e.lines or e.final or e.rates]
    entries = study.pooled(rules.completed(told))
    if not entries:
        raise UserError(
            f"{', '.join(map(str, paths))}: nothing has been reported yet; wait for the first "
            "report of a run, or merge the shards of a plan"
        )
    _check(wish, entries)
    groups = study.by_task(entries)
    named = [
        (task, name, entry)
        for task, of_task in groups.items()
        for name, entry in zip(study.named(of_task), of_task, strict=True)
    ]
    return Page(
        runs=[_row(*each) for each in named],
        machines=_machines(entries),
        settings=_settings(named),
        tasks=page_tasks.tasks(named, wish.metrics, wish.score),
        across=page_tasks.across(named, wish.score),
        stops=[stop for each in named for stop in _stops(*each)],
    )


def html(page: Page, *, renews: bool = False) -> str:
    """The page as a text.

    Args:
      page: what it shows.
      renews: it asks its server for a newer one.

    Raises:
      UserError: jinja2 is missing.
    """
    try:
        import jinja2
    except ImportError as error:
        raise UserError(
            f"report needs the package jinja2, which cannot be imported; {extra('report')}"
        ) from error
    from jaxvff import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("jaxvff.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": figure, "count": "{:,}".format,
        "seconds": spread(seconds), "speed": spread(lambda x: figure(x, 2)),
    }  # fmt: skip
    made = time.strftime("%Y-%m-%d %H:%M")
    return environment.get_template(TEMPLATE).render(
        page=page, made=made, version=__version__, renews=renews
    )


def figure(x: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, a dash where there is none."""
    if x is None or x != x:
        return "–"
    text = f"{x:,.0f}" if abs(x) >= 10 ** (digits - 1) else f"{x:.{digits}g}"
    return text.replace("-", "−")


def spread(shown: Callable[[float | None], str]) -> Callable[[Range | None], str]:
    """A range as text: one number where both of its ends look the same."""

    def text(x: Range | None) -> str:
        low, high = (shown(None), shown(None)) if x is None else (shown(x.low), shown(x.high))
        return low if low == high else f"{low} to {high}"

    return text


def seconds(x: float | None) -> str:
    """A duration: 42 s, 3 min, 2.5 h."""
    if x is None or x != x:
        return "–"
    if x < 120:
        return f"{x:.0f} s"
    return f"{x / 60:.0f} min" if x < 7200 else f"{x / 3600:.1f} h"


def _row(task: str, name: str, entry: Entry) -> Row:
    share = entry.steps / entry.total_steps if entry.total_steps else 1.0
    partly = entry.state not in (COMPLETE, RECORDED)
    return Row(
        run=entry.run,
        command=", ".join(dict.fromkeys(t.command for t in entry.trainings if t.command)),
        task=task,
        name=name,
        seeds=entry.n_seeds,
        steps=entry.steps,
        state=f"{entry.state}, {share:.0%} of {entry.total_steps:,}" if partly else entry.state,
        wall_s=_range(t.timing.get("wall_s") for t in entry.trainings),
        compile_s=_range(t.timing.get("compile_s") for t in entry.trainings),
        seed_steps_per_s=_range(t.seed_steps_per_s for t in entry.trainings),
    )


def _range(numbers: Iterable[float | None]) -> Range | None:
    """Of the numbers that there are; None: there are none."""
    known = [x for x in numbers if x is not None and x == x]
    return Range(min(known), max(known)) if known else None


def _machines(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Each run, with versions and devices."""
    told = {t.run: _machine(t.machine) for e in entries for t in e.trainings if t.machine}
    return list(told.items())


def _machine(machine: dict[str, Any]) -> str:
    """Versions and devices in a line."""
    parts = [f"{k} {machine[k]}" for k in ("jaxvff", "jax", "python") if machine.get(k)]
    if device := machine.get("device") or machine.get("cpu"):
        parts.append(f"{machine.get('n_devices') or machine.get('cores') or 1} × {device}")
    if rss := machine.get("peak_rss_mb"):
        parts.append(f"peak memory {rss:,} MB")
    if commit := machine.get("commit"):
        parts.append(f"commit {commit}")
    return ", ".join(parts)


def _settings(named: Sequence[tuple[str, str, Entry]]) -> Settings:
    entries = [entry for _, _, entry in named]
    differing = study.differences(entries)
    keys = list(differing)
    rows = [
        (task, name, [_value(differing[key][k]) for key in keys])
        for k, (task, name, _) in enumerate(named)
    ]
    every = {key: value for entry in reversed(entries) for key, value in study.what(entry).items()}
    shared = {key: _value(value) for key, value in every.items() if key not in differing}
    return Settings(keys, rows, shared)


def _value(value: object) -> str:
    if value is None:
        return "–"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _stops(task: str, name: str, entry: Entry) -> list[Stop]:
    """Seeds that stopped, and runs that ended before they were complete."""
    out = [
        Stop(task, name, f"seed {seed} stopped at env step {at:,}: a number was not finite")
        for seed, at in entry.stopped.items()
    ]
    if ENDED in entry.state:
        left = f"{entry.steps:,} of {entry.total_steps:,} env steps"
        out.append(Stop(task, name, f"the run ended early, after {left}"))
    return out
