"""`jaxvff status <folder>`: where the shards of a plan stand; it needs no JAX."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from jaxvff.cli import planned
from jaxvff.runs import shards
from jaxvff.runs.leases import LEASE_S, OWNER, Shelf, Standing, State
from jaxvff.runs.shards import Plan

MOST_SHOWN = 40  # shards that are told of one by one, of each state
STATES: tuple[State, ...] = ("done", "running", "waiting", "stopped", "stale", "failed")
TOLD = ("running", "stopped", "stale", "failed")


def run(args: list[str]) -> int:
    """Print it."""
    folder, _ = planned.arguments(args, "status", ())
    plan = shards.read(folder)
    standings = Shelf(folder / shards.FOLDER).standings(len(plan.shards))
    for line in lines(folder, plan, standings):
        print(line)
    return 0


def lines(folder: Path, plan: Plan, standings: list[Standing]) -> list[str]:
    """What is told: a count of each state, then what is neither done nor waiting."""
    counts = Counter(s.state for s in standings)
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    out = [f"{folder}: {len(standings)} shards, {told}"]
    for state in TOLD:
        mine = [(i, s) for i, s in enumerate(standings) if s.state == state]
        out += [_line(plan, i, s) for i, s in mine[:MOST_SHOWN]]
        if len(mine) > MOST_SHOWN:
            out.append(f"  and {len(mine) - MOST_SHOWN} more {state}")
    return out


def _line(plan: Plan, index: int, standing: Standing) -> str:
    shard, whose = plan.shards[index], standing.owner
    job = plan.jobs[shard.job]
    where = (
        f"unknown, {OWNER} is damaged or missing; without a sign of life for {LEASE_S:.0f} s "
        "another worker takes it over"
    )
    if "host" in whose:
        where = f"process {whose.get('process')} on {whose['host']}"
    seeds = f"seeds {shard.seeds.start} to {shard.seeds.stop - 1} of the job's"
    text = f"  {index} {standing.state}: {job.name}, {seeds}; {where}, attempt "
    text += str(standing.attempts[-1])
    if standing.state == "running":
        text += f", {_step(standing.attempt):,} of {job.total_steps:,} steps"
    if standing.state in ("running", "stale"):
        text += f", last heard of {standing.silent_s:.0f} s ago"
    return f"{text}: {standing.reason}" if standing.reason else text


def _step(attempt: Path | None) -> int:
    """Of the last report; 0 before the first."""
    if attempt is None:
        return 0
    try:
        last = (attempt / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        return int(json.loads(last)["step"])
    except (OSError, IndexError, ValueError, KeyError, TypeError):
        return 0  # none yet, or one that is being written
