"""What an iteration on SMAX costs, jaxvff beside JaxMARL in one run: QMIX with replay, PQN-VDN.

Both sides do the same work on one core. With replay: a dense layer and a GRU of 64, mixing 32,
hypernetworks 64 of two layers; observation and agent id as inputs; 16 environments for 128 slots,
then 8 updates with RAdam from a batch of 32 such segments, with one-step double-Q targets. Other
kinds of work are the collection alone, also with 128 environments, and both with 4 seeds in a
program. Without replay (PQN-VDN): a dense layer with layer normalisation and a GRU of 64; 32
environments for 128 slots, then 4 epochs of 16 minibatches with RAdam and λ-returns of 0.85.
Evaluation is off, and learning starts with the first collection. The numbers of parameters have to
be equal, or the benchmark stops.

Both sides compile ahead of time, run once, and run a second time, which is timed. A run of JaxMARL
starts with new networks and an empty replay; what this costs is measured in a shorter run and
subtracted, so that runs of a few iterations say little. The sides take turns in each round, and
medians over rounds are reported. The benchmark needs a checkout of JaxMARL, for its training
script:

    python benchmarks/jaxmarl_speed.py PATH_TO_CHECKOUT

The record is written after each round.
"""

from __future__ import annotations

import argparse
import os
import statistics
from pathlib import Path
from typing import NamedTuple

from _common import Record, about, end_children_on_term, last_json
from rich.console import Console
from rich.table import Table

from jaxvff.core.files import write_json

HERE = Path(__file__).parent
SLOTS, UPDATES, BUFFER = 128, 8, 5000
EPOCHS, MINIBATCHES = 4, 16
# The same as the settings of _jaxmarl_peer.py; `ours` adds the map, the seeds and the environments.
SHARED = [
    "utility=gru",
    "hidden_dim=64",
    "last_action=false",
    "agent_id=true",
    "optimizer=radam",
    "lr=1e-3",
    f"segment_length={SLOTS}",
]
# JaxMARL's script -> our settings, and the options of its own.
OURS = {
    "qmix_rnn": [
        *SHARED,
        "learner=replay",
        "norm=none",
        "method=qmix",
        "method.embed_dim=32",
        "method.hypernet_dim=64",
        "returns=one_step",
        "target=double",
        "batch_size=32",
        f"updates={UPDATES}",
        f"buffer_size={BUFFER}",
        "target_interval=80",
    ],
    "pqn_vdn_rnn": [
        *SHARED,
        "learner=parallel",
        "norm=layer",
        "method=vdn",
        "target=max",
        "td_lambda=0.85",
        f"epochs={EPOCHS}",
        f"minibatches={MINIBATCHES}",
    ],
}
THEIRS = {
    "qmix_rnn": [f"--epochs={UPDATES}", f"--buffer={BUFFER}"],
    "pqn_vdn_rnn": [
        f"--epochs={EPOCHS}",
        f"--minibatches={MINIBATCHES}",
        "--norm=layer_norm",
        "--layers=1",
        "--norm-input=0",
        "--lr=1e-3",
    ],
}
GRAD_STEPS = {"qmix_rnn": UPDATES, "pqn_vdn_rnn": EPOCHS * MINIBATCHES}  # of an iteration
NOTES = [
    "ratio is theirs / ours of the medians: above 1, theirs costs more; env_steps_per_s is a speed",
    "*_cpu_s are seconds of the process on its one core; wall-clock means less on a busy machine",
    "lower, compile: ours is two programs, init and advance; theirs is one. Ours sets LLVM's "
    "effort to 1 on a CPU (0 for init), theirs is XLA's default",
    "setup: networks and an empty replay; first_run: setup and as many iterations as are timed",
    "steady: one iteration of all seeds in the program. Ours: a second run of the same length, "
    "which goes on from the first; theirs: the second run less that of a program with 2 "
    "iterations, over the difference in iterations; its setup follows from the same two",
    "JaxMARL's environments reset themselves, so each of its slots is an env step; ours keeps a "
    "slot for the final observation of an episode, so an iteration of 128 slots has fewer env "
    "steps (counted, not estimated): costs are given per iteration and per env step",
    "JaxMARL's replay allows sampling from 65,536 env steps on, whatever LEARNING_STARTS is; its "
    "min_length_time_axis is set to 1 here, so that both learn from the first collection on",
    "JaxMARL's target network is synced every 10 collections, ours every 80 updates: the same",
    "PQN-VDN: JaxMARL's input normalisation is off, and what is left of it (2 numbers an input, "
    "which its layer makes and does not use) is not counted; it learns from 4 slots more, those "
    "before the iteration, and computes the targets anew in each minibatch, ours once an iteration",
    "program_bytes_per_seed: XLA's arguments, results and temporaries of the program that trains",
    f"replay: ours holds {BUFFER} segments a seed, theirs as many rounded down to environments",
]


class Work(NamedTuple):
    """What one iteration consists of."""

    learn: bool
    envs: int = 16  # of each seed
    seeds: int = 1  # in the program
    script: str = "qmix_rnn"  # JaxMARL's


WORK = {
    "PQN-VDN": Work(True, envs=32, script="pqn_vdn_rnn"),
    "PQN-VDN, 4 seeds": Work(True, envs=32, seeds=4, script="pqn_vdn_rnn"),
    "PQN-VDN, 128 envs": Work(True, envs=128, script="pqn_vdn_rnn"),
    "learn": Work(True),
    "learn, 4 seeds": Work(True, seeds=4),
    "rollout": Work(False),
    "rollout, 128 envs": Work(False, envs=128),
    "rollout, 4 seeds": Work(False, seeds=4),
}
# Figure in the record -> its title in the terminal; None: it is not shown there.
FIGURES: dict[str, str | None] = {
    "lower_s": "lower, s",
    "lower_cpu_s": None,
    "compile_s": "compile, s",
    "compile_cpu_s": "compile, CPU-s",
    "setup_s": None,
    "setup_cpu_s": None,
    "first_run_s": "first run, s",
    "first_run_cpu_s": None,
    "steady_s": None,
    "steady_cpu_s": "iteration, CPU-s",
    "env_steps_per_iteration": "its env steps",
    "cpu_us_per_env_step": "env step, CPU-µs",
    "env_steps_per_s": "env steps/s",
    "replay_bytes_per_slot": None,
    "replay_bytes_per_env_step": "replay, B/env step",
    "replay_bytes_per_seed": "replay, B/seed",
    "program_bytes_per_seed": "program, B/seed",
}


def ours(args: argparse.Namespace, work: Work, seed: int) -> Record:
    """Time jaxvff once, in a process of its own."""
    overrides = [
        *OURS[work.script],
        f"env=smax/{args.map}",
        f"n_envs={work.envs}",
        f"seeds={work.seeds}",
        f"seed={seed}",
    ]
    if work.script == "qmix_rnn":
        overrides.append(f"learn_start={work.envs if work.learn else BUFFER}")
    command = [str(HERE / "_jaxvff_side.py"), *options(args, work), *overrides]
    return last_json(command, core=args.core)


def peer(args: argparse.Namespace, work: Work, seed: int) -> Record:
    """Time JaxMARL once, in a process of its own."""
    command = [str(HERE / "_jaxmarl_peer.py"), str(args.checkout), "speed"]
    command += [f"--script={work.script}", f"--map={args.map}", f"--envs={work.envs}"]
    command += [f"--seeds={work.seeds}", f"--steps={SLOTS}", f"--seed={seed}"]
    command += [*THEIRS[work.script], *options(args, work, replay=work.script == "qmix_rnn")]
    return last_json(command, core=args.core)


def options(args: argparse.Namespace, work: Work, replay: bool = True) -> list[str]:
    """The options that both processes take; JaxMARL's learns always where it has no replay."""
    if work.learn:
        return [f"--updates={args.updates}", *(["--learn"] if replay else [])]
    return [f"--updates={args.rollouts}", "--no-learn"]


def check(work: Work, both: dict[str, Record]) -> None:
    """Check that both sides have done the same work.

    Args:
      work: what they should have done.
      both: side -> what its process measured.

    Raises:
      SystemExit: the sides have different numbers of parameters, or one has taken another number
        of gradient steps than `work` asks for.
    """
    parameters = {side: row["parameters"] for side, row in both.items()}
    if len(set(parameters.values())) > 1:
        raise SystemExit(f"not the same networks: {parameters} parameters")
    for side, row in both.items():
        expected = GRAD_STEPS[work.script] * row["updates"] if work.learn else 0
        if row["grad_steps"] != expected:
            raise SystemExit(f"{side} did {row['grad_steps']} updates instead of {expected}")


def figures(row: Record) -> dict[str, float]:
    """The figures in FIGURES that there are, from what a process measured."""
    env_steps = row["env_steps"] / row["updates"]  # of one seed, in an iteration
    derived = {
        "env_steps_per_iteration": env_steps * row["seeds"],
        "cpu_us_per_env_step": 1e6 * row["steady_cpu_s"] / (env_steps * row["seeds"]),
        "env_steps_per_s": env_steps * row["seeds"] / row["steady_s"],
    }
    if "replay_bytes_per_seed" in row:
        per_slot = row["replay_bytes_per_seed"] / row["replay_slots_per_seed"]
        derived["replay_bytes_per_slot"] = per_slot
        derived["replay_bytes_per_env_step"] = per_slot * row["slots"] / row["env_steps"]
    both = row | derived
    return {name: both[name] for name in FIGURES if name in both}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(rows: list[dict[str, Record]]) -> Record:
    """Each figure over rounds, with the ratio of the medians, JaxMARL / jaxvff."""
    out: Record = {}
    for name in figures(rows[0]["ours"]):
        both = {s: spread([figures(row[s])[name] for row in rows]) for s in ("theirs", "ours")}
        out[name] = {**both, "ratio": both["theirs"]["median"] / both["ours"]["median"]}
    return out


def terminal(table: dict[str, Record], rounds: int) -> Table:
    """The medians and their ranges, a section per kind of work."""
    view = Table(title=f"Median of {rounds} rounds (range)")
    for name in ("", "JaxMARL", "jaxvff", "ratio"):
        view.add_column(name, justify="right" if name else "left", no_wrap=True)

    def text(x: dict[str, float]) -> str:
        low, high = number(x["min"]), number(x["max"])
        return number(x["median"]) + ("" if low == high else f" ({low}-{high})")

    for work, rows in table.items():
        view.add_section()
        view.add_row(f"[bold]{work}[/]")
        for name, title in FIGURES.items():
            if title is not None and name in rows:
                row = rows[name]
                cells = (text(row["theirs"]), text(row["ours"]), f"{row['ratio']:.2f}")
                view.add_row(title, *cells)
    return view


def number(x: float) -> str:
    """A number with three digits; from 100 on, as an integer with separators."""
    return f"{x:,.0f}" if x >= 100 else f"{x:.3g}"


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", type=Path, help="root of a JaxMARL checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--map", default="3m")
    parser.add_argument("--updates", type=int, default=20, help="iterations timed with the learner")
    parser.add_argument("--rollouts", type=int, default=100, help="iterations timed without it")
    some = f"some of: {'; '.join(WORK)}"
    parser.add_argument(
        "--work", nargs="+", choices=WORK, default=[*WORK], metavar="WORK", help=some
    )
    parser.add_argument("--core", type=int, default=0, help="the one that all processes run on")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "jaxmarl_speed.json")
    return parser.parse_args()


def main() -> None:
    """Measure, write the record after each round, and print a table."""
    args = parse_args()
    console = Console()
    end_children_on_term()

    done: dict[str, list[dict[str, Record]]] = {name: [] for name in args.work}
    loads: list[float] = []
    for k in range(args.rounds):
        loads.append(os.getloadavg()[0])
        for name in args.work:
            both = {"theirs": peer(args, WORK[name], k), "ours": ours(args, WORK[name], k)}
            check(WORK[name], both)
            done[name].append(both)
            costs = ", ".join(f"{s} {row['steady_cpu_s']:.3f}" for s, row in both.items())
            console.print(f"round {k + 1}, {name}: CPU-s per iteration: {costs}", highlight=False)
        table = {name: summary(rows) for name, rows in done.items()}
        write(args, table, loads, done)
    console.print(terminal(table, args.rounds))


def write(
    args: argparse.Namespace,
    table: dict[str, Record],
    loads: list[float],
    done: dict[str, list[dict[str, Record]]],
) -> None:
    """Write the record of all rounds so far.

    Args:
      args: the command line.
      table: kind of work -> its summary.
      loads: the machine's load at the start of each round.
      done: kind of work -> for each round, what each side's process measured.
    """
    first = done[args.work[0]][0]
    record = {
        "what": f"recurrent QMIX and PQN-VDN on SMAX {args.map}: cost of an iteration on one core",
        "notes": NOTES,
        "table": table,
        "rounds": len(loads),
        "iterations_timed": {"learn": args.updates, "rollout": args.rollouts},
        "parameters": {n: done[n][0]["ours"]["parameters"] for n in args.work},
        "ours": {"overrides": OURS, "work": {n: WORK[n]._asdict() for n in args.work}},
        "peer": {x: first["theirs"][x] for x in ("commit", "versions")},
        "load_at_start_of_round": loads,  # processes, mean of the minute before
        **about(),
        "command": "python benchmarks/jaxmarl_speed.py CHECKOUT",
        "runs": done,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, record)


if __name__ == "__main__":
    main()
