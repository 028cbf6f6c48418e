"""Answers of the lab for people: files, and tables in the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxvff.core.files import write_json
from jaxvff.core.registry import Registry
from jaxvff.lab.basins import ENDS, MAX_SWITCHES
from jaxvff.lab.flows import ROOT, RTOL
from jaxvff.lab.hessians import TOLERANCE
from jaxvff.lab.questions import Answer
from jaxvff.lab.settings import StabilityOptions
from jaxvff.lab.study import Row
from jaxvff.lab.zero_loss import RESIDUAL
from jaxvff.reports.machine import machine
from jaxvff.reports.statistics import Rate
from jaxvff.reports.tables import rate_text

# (answer, the .png to write); a question without a row has no picture
PICTURES: Registry[Callable[[Any, Path], None]] = Registry(
    {
        name: f"jaxvff.lab.pictures:{name}"
        for name in ("escapes", "spectra", "barriers", "phase", "basins")
    }
)
METHOD = {
    "zero_loss": f"summed squared residual below {RESIDUAL:g}, float64",
    "zero_eigenvalue": f"below {TOLERANCE:g} of the largest one in size",
    "flows": f"rtol {RTOL:g}, events to {ROOT:g}, at most {MAX_SWITCHES} changes of greedy action",
}


def write_settings(folder: Path, options: StabilityOptions) -> None:
    """Write what was asked, how it is measured, and on which machine."""
    about = {"machine": machine(), "method": METHOD, "payoff": options.table()}
    write_json(folder / "settings.json", dataclasses.asdict(options) | about)


def write(folder: Path, name: str, answer: Answer) -> None:
    """Write the JSON of one question, and its PNG if it has one."""
    write_json(folder / f"{name}.json", answer)
    if name in PICTURES:
        PICTURES[name](answer, folder / f"{name}.png")


def show_all(console: Console, options: StabilityOptions, answers: dict[str, Any]) -> None:
    """The tables of all answers, by question."""
    console.print(_points(options, answers["points"]), highlight=False)
    if answers.get("spectra", {}).get("table"):
        console.print(_spectra(answers["spectra"]["table"]))
        console.print(_lifted(answers["spectra"]["lifted"]), highlight=False)
    if answers["escapes"]:
        console.print(_escapes(answers["escapes"], options))
    if "basins" in answers:
        console.print(_basins(answers["basins"]))
    if "barriers" in answers:
        console.print(_barriers(answers["barriers"], answers.get("basins")), highlight=False)
    console.print(_claims(answers["claims"]))


def _table(title: str, texts: Iterable[str], figures: Iterable[str], caption: str) -> Table:
    """A table without rows, whose columns are texts, then figures."""
    table = Table(title=title, caption=caption)
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in figures:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _points(options: StabilityOptions, answer: Row) -> str:
    missed, starts = answer["missed"], answer["starts"]
    text = (
        f"{options.mixer} on game {options.name}: {answer['size']} coordinates, "
        f"{answer['consistent']} IGM-consistent and {answer['inconsistent']} inconsistent "
        "zero-loss points; starts that reached none: "
        f"{missed['consistent']} of {starts['consistent']} and "
        f"{missed['inconsistent']} of {starts['inconsistent']}."
    )
    if not answer["consistent"] + answer["inconsistent"]:
        text += "\nNo zero-loss point: spectra, escapes and most claims are left out."
    if answer["optima"] > 1:
        text += (
            f"\n{answer['optima']} joint actions tie for the largest payoff; Definition 1 wants "
            "one, so Theorems 2 and 3 are left out, and any of them counts as optimal."
        )
    if answer.get("rank_deficient"):
        text += (
            f"\nAt {answer['rank_deficient']} points the Jacobian of Q_tot has less than full "
            "rank (two actions tie): there (H2) does not hold."
        )
    return text


def _spectra(rows: list[Row]) -> Table:
    table = Table(
        title="Hessian at zero-loss points, softmax policy (semi-gradient: the same)",
        caption="lowest: smallest eigenvalue / λ_max; normal: smallest across the zero-loss set, "
        "median; error: largest relative difference from 2Σμ∇Q∇Qᵀ; underflow: left out",
    )
    for name in ("τ", "points", "unstable", "flat", "stable", "lowest", "normal", "error"):
        is_text = name == "points"
        table.add_column(name, justify="left" if is_text else "right", no_wrap=is_text)
    for row in rows:
        counts = (str(row[k]) for k in ("unstable", "flat", "stable"))
        figures = ["-"] * 3
        if "lowest" in row:
            share = row["lowest"] / row["highest"]
            numbers = (share, row["median_lowest_normal"], row["formula_error"])
            figures = [f"{x:.0e}" for x in numbers]
        lost = f", {row['underflow']} underflow" if row["underflow"] else ""
        table.add_row(f"{row['temperature']:g}", row["kind"] + lost, *counts, *figures)
    return table


def _lifted(rows: list[Row]) -> str:
    if not rows:
        return ""
    negative, n = sum(row["negative"] for row in rows), sum(row["points"] for row in rows)
    return (
        f"With the mixer's hypernetworks ({rows[0]['size']:,} coordinates, Lanczos): {negative} of "
        f"{n} spectra have an eigenvalue below -1e-10 λ_max."
    )


def _escapes(rows: list[Row], options: StabilityOptions) -> Table:
    table = _table(
        f"{options.updates:,} updates from beside zero-loss points, ε-greedy {options.epsilon:g}",
        texts=("optimizer", "from"),
        figures=("lr·λ_max", "lanes", "left", "diverged", "fit+opt"),
        caption="left: the greedy joint action changed at least once, before any divergence",
    )
    for row in rows:
        low, middle, high = row["lr_lambda_max"]
        span = f"{middle:.2g}" if row["level"] else f"{middle:.2g} ({low:.2g}-{high:.2g})"
        table.add_row(
            row["optimizer"],
            row["kind"],
            span,
            str(row["lanes"]),
            f"{row['left'][-1]:.2f}",
            f"{row['diverged'][-1]:.2f}",
            rate_text(Rate(**row["both"])),
        )
    return table


def _basins(answer: Row) -> Table:
    table = _table(
        f"Ends of flows, {answer['starts']} starts each, time {answer['time']:g}",
        texts=("from", "policy"),
        figures=("both", "fit", "opt.", "none", "out", "moved"),
        caption="both: fit and greedy-optimal; full: with the policy term, else semi-gradient; "
        "moved: the greedy joint action changed; out: not finite, or more changes than are "
        "followed",
    )
    for start in ("random", "consistent", "inconsistent"):
        for row in answer.get(start, []):
            counts = (str(row[k]) for k in (*ENDS, "switched"))
            table.add_row(start, row["dynamics"], *counts)
        table.add_section()
    return table


def _barriers(answer: Row, basins: Row | None) -> str:
    y, minus = (rate_text(Rate(**answer["negation"][side]["optimal"])) for side in ("y", "-y"))
    text = (
        f"Negation test, {answer['lanes']} seeds: greedy-optimal {y} on y and "
        f"{minus} on -y; an unconstrained mixer's chances add to 1 at most."
    )
    if basins:
        crossings = basins["crossings"]
        text += (
            f"\n{crossings['uniform_switches']} changes of a greedy action on uniform flows, "
            f"{crossings['below_the_barrier']} of them at a loss below the barrier."
        )
    return text


def _claims(rows: list[Row]) -> Table:
    table = Table(title="The paper's claims and exact figures (docs/theory.md)", show_lines=True)
    for name in ("claim", "the paper", "exactly"):
        table.add_column(name)
    table.add_column("holds", justify="right", overflow="fold")
    for row in rows:
        left_out = f", {row['left_out']} left out" if row["left_out"] else ""
        share = f"{row['holds']} of {row['cases']}{left_out}"
        table.add_row(row["name"], row["paper"], row["exact"], share)
    return table
