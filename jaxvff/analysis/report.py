"""What the lab found, in the terminal and in files."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxvff import show
from jaxvff.analysis.flows import ROOT, RTOL
from jaxvff.analysis.lab import MOST_SWITCHES
from jaxvff.analysis.pictures import ENDS, PICTURES
from jaxvff.analysis.points import RESIDUAL
from jaxvff.analysis.settings import Lab
from jaxvff.analysis.spectra import TOLERANCE
from jaxvff.log import write_json

METHOD = {
    "zero_loss": f"summed squared residual below {RESIDUAL:g}, float64",
    "zero_eigenvalue": f"below {TOLERANCE:g} of the largest one in size",
    "flows": f"rtol {RTOL:g}, events to {ROOT:g}, at most {MOST_SWITCHES} changes of greedy action",
}


def write_settings(folder: Path, lab: Lab) -> None:
    """What was asked, how it is measured, and where."""
    about = {"machine": show.machine(), "method": METHOD, "payoff": lab.table()}
    write_json(folder / "settings.json", dataclasses.asdict(lab) | about)


def write(folder: Path, name: str, answer: Any) -> None:
    """The JSON and the PNG of one question."""
    write_json(folder / f"{name}.json", answer)
    if name in PICTURES:
        PICTURES[name](answer, folder / f"{name}.png")


def show_all(console: Console, lab: Lab, answer: dict[str, Any]) -> None:
    """The tables, in the order of the questions."""
    console.print(_points(lab, answer["points"]), highlight=False)
    if answer.get("spectra", {}).get("table"):
        console.print(_spectra(answer["spectra"]["table"]))
        console.print(_lifted(answer["spectra"]["lifted"]), highlight=False)
    if answer["escapes"]:
        console.print(_escapes(answer["escapes"], lab))
    if "basins" in answer:
        console.print(_basins(answer["basins"]))
    if "barriers" in answer:
        console.print(_barriers(answer["barriers"], answer.get("basins")), highlight=False)
    console.print(_claims(answer["claims"]))


def _points(lab: Lab, p: dict[str, Any]) -> str:
    text = (
        f"{lab.mixer} on game {lab.name}: {p['size']} coordinates, {p['consistent']} "
        f"IGM-consistent and {p['inconsistent']} inconsistent zero-loss points; starts that "
        "reached none: "
        f"{p['missed']['consistent']} of {p['starts']['consistent']} and "
        f"{p['missed']['inconsistent']} of {p['starts']['inconsistent']}."
    )
    if not p["consistent"] + p["inconsistent"]:
        text += "\nNo zero-loss point: spectra, escapes and most claims are left out."
    if p["optima"] > 1:
        text += (
            f"\n{p['optima']} joint actions tie for the largest payoff; Definition 1 wants one, so "
            "Theorems 2 and 3 are left out, and any of them counts as optimal."
        )
    if p.get("rank_deficient"):
        text += (
            f"\nAt {p['rank_deficient']} points the Jacobian of Q_tot has less than full rank "
            "(two actions tie): there (H2) does not hold."
        )
    return text


def _spectra(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="Hessian at zero-loss points, softmax policy (semi-gradient: the same)")
    names = ("τ", "points", "unstable", "flat", "stable", "lowest", "normal", "error")
    for name in names:
        words = name == "points"
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for r in rows:
        counts = (str(r[k]) for k in ("unstable", "flat", "stable"))
        figures = ["-"] * 3
        if "lowest" in r:
            share = r["lowest"] / r["highest"]
            figures = [f"{x:.0e}" for x in (share, r["median_lowest_normal"], r["formula_error"])]
        lost = f", {r['underflow']} underflow" if r["underflow"] else ""
        table.add_row(f"{r['temperature']:g}", r["kind"] + lost, *counts, *figures)
    table.caption = (
        "lowest: smallest eigenvalue / λ_max; normal: smallest across the zero-loss set, median; "
        "error: largest relative difference from 2Σμ∇Q∇Qᵀ; underflow: left out"
    )
    return table


def _lifted(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    negative, n = sum(r["negative"] for r in rows), sum(r["points"] for r in rows)
    return (
        f"With the core's hypernetworks ({rows[0]['size']:,} coordinates, Lanczos): {negative} of "
        f"{n} spectra have an eigenvalue below -1e-10 λ_max."
    )


def _escapes(rows: list[dict[str, Any]], lab: Lab) -> Table:
    table = Table(
        title=f"{lab.updates:,} updates from beside zero-loss points, ε-greedy {lab.epsilon:g}"
    )
    for name in ("optimiser", "from", "lr·λ_max", "lanes", "left", "diverged", "fit+opt"):
        words = name in ("optimiser", "from")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for r in rows:
        low, middle, high = r["lr_lambda_max"]
        span = f"{middle:.2g}" if r["level"] else f"{middle:.2g} ({low:.2g}-{high:.2g})"
        table.add_row(
            r["optimizer"], r["kind"], span, str(r["lanes"]), f"{r['left'][-1]:.2f}",
            f"{r['diverged'][-1]:.2f}", show.rate_text(r["both"]),
        )  # fmt: skip
    table.caption = "left: the greedy joint action changed at least once, before any divergence"
    return table


def _basins(answer: dict[str, Any]) -> Table:
    table = Table(title=f"Ends of flows, {answer['starts']} starts each, time {answer['time']:g}")
    names = ("both", "fit", "opt.", "none", "out", "moved")
    for name in ("from", "policy", *names):
        words = name in ("from", "policy")
        table.add_column(name, justify="left" if words else "right", no_wrap=words)
    for start in ("random", "consistent", "inconsistent"):
        for r in answer.get(start, []):
            table.add_row(start, r["dynamics"], *(str(r[k]) for k in (*ENDS, "switched")))
        table.add_section()
    table.caption = (
        "both: fit and greedy-optimal; full: with the policy term, else semi-gradient; moved: the "
        "greedy joint action changed; out: not finite, or more changes than are followed"
    )
    return table


def _barriers(answer: dict[str, Any], basins: dict[str, Any] | None) -> str:
    y, minus = (answer["negation"][side]["optimal"] for side in ("y", "-y"))
    text = (
        f"Negation test, {answer['lanes']} seeds: greedy-optimal {show.rate_text(y)} on y and "
        f"{show.rate_text(minus)} on -y; an unconstrained mixer's chances add to 1 at most."
    )
    if basins:
        c = basins["crossings"]
        text += (
            f"\n{c['uniform_switches']} changes of a greedy action on uniform flows, "
            f"{c['below_the_barrier']} of them at a loss below the barrier."
        )
    return text


def _claims(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="The paper's claims and exact figures (docs/theory.md)", show_lines=True)
    for name in ("claim", "the paper", "exactly", "holds"):
        table.add_column(name, justify="right" if name == "holds" else "left")
    for r in rows:
        out = f", {r['left_out']} left out" if r["left_out"] else ""
        table.add_row(r["name"], r["paper"], r["exact"], f"{r['holds']} of {r['cases']}{out}")
    return table
