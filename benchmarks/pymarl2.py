"""Seed-steps per second of QMIX on a one-step matrix game, jaxvff beside PyMARL2, in one run.

Both do the same work: QMIX with a GRU of 64, mixing 32, hypernetworks 64; batch 128, replay of 5000
episodes; one env step and one gradient step at a time, Adam at 1e-3; evaluation off. PyMARL2 trains
one seed in a process; jaxvff trains 1, 64 or 512 in a program. The sides take turns in each round,
and medians over rounds are reported.

Nothing of PyMARL2 is copied here. The benchmark needs a checkout of it, and a Python with torch,
numpy and pyyaml:

    python benchmarks/pymarl2.py PATH_TO_CHECKOUT --peer-python PATH_TO_PYTHON
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from _common import Record, cpu_name

from jaxvff.core import machine
from jaxvff.training import sharding

PEER = Path(__file__).with_name("_pymarl2_peer.py")
RECORD = Path(__file__).with_name("results") / "pymarl2_matrix.json"
# Where PyMARL2 differs from what configs/ sets for one-step games: its networks, its schedule of ε.
OURS = ["method=qmix", "env=matrix/a", "utility=gru", "epsilon_steps=100000"]


def peer(args: argparse.Namespace) -> Record:
    """Time PyMARL2 once, in a process of its own."""
    command = [args.peer_python, str(PEER), args.checkout, "--payoff", "a", "--method", "qmix"]
    command += ["--steps", str(args.peer_steps), "--warmup", "200"]
    command += ["--threads", str(machine.cores())]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(seeds: int, seconds: float, codec: bool = True) -> Record:
    """Time jaxvff once.

    Args:
      seeds: trained in the program.
      seconds: least length of what is timed.
      codec: False: replay stores segments as they are, so that nothing is merged in a batch and
        every sample is computed.
    """
    from jaxvff.cli import bench
    from jaxvff.runs.plan import plan

    (job,) = plan([*OURS, f"seeds={seeds}"])
    if not codec:
        values = [v._replace(env=v.env._replace(codec=None)) for v in job.values]
        job = job._replace(values=values)
    return bench.measure(job, seconds)


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", help="folder of a PyMARL2 checkout")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--peer-steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="least timed length of jaxvff")
    parser.add_argument("--record", type=Path, default=RECORD)
    return parser.parse_args()


def run_rounds(args: argparse.Namespace) -> tuple[list[Record], dict[str, list[Record]]]:
    """Let the sides take turns.

    Returns:
      The measurements of PyMARL2, one a round; and those of jaxvff by the name of the variant.
    """
    peers: list[Record] = []
    variants: dict[str, list[Record]] = {}
    for k in range(args.rounds):
        peers.append(peer(args))
        print(f"round {k + 1}: PyMARL2 {peers[-1]['steps_per_s']:.0f} steps/s", flush=True)
        for seeds in args.seeds:
            variants.setdefault(f"{seeds} seeds", []).append(ours(seeds, args.seconds))
        plain = ours(64, args.seconds, codec=False)
        variants.setdefault("64 seeds, no codec", []).append(plain)
        for name, rows in variants.items():
            print(f"  ours, {name}: {rows[-1]['seed_steps_per_s']:,.0f} seed-steps/s", flush=True)
    return peers, variants


def summary(rows: list[Record], peer_speed: float) -> Record:
    """Medians of a variant of jaxvff over rounds; `peer_speed` is PyMARL2's, steps per second."""
    speeds = [row["seed_steps_per_s"] for row in rows]
    return {
        "seed_steps_per_s": round(statistics.median(speeds)),
        "range": [round(min(speeds)), round(max(speeds))],
        "ratio": round(statistics.median(speeds) / peer_speed, 1),
        "compile_s": round(statistics.median(row["compile_s"] for row in rows), 1),
        "state_bytes_per_seed": rows[0]["state_bytes"],
    }


def main() -> None:
    """Measure, print a table, and write the record."""
    args = parse_args()
    sharding.use_all_cores()

    from jaxvff.reports.machine import machine as versions

    peers, variants = run_rounds(args)
    peer_speeds = [row["steps_per_s"] for row in peers]
    peer_speed = statistics.median(peer_speeds)
    table = {name: summary(rows, peer_speed) for name, rows in variants.items()}
    for name, row in table.items():
        print(f"{name:20} {row['seed_steps_per_s']:>8,}/s  {row['ratio']:>6} x PyMARL2")
    record = {
        "what": "QMIX, one-step matrix game A: GRU 64, batch 128, one update per env step",
        "peer": {
            "name": "PyMARL2",
            "commit": peers[0]["commit"],
            "torch": peers[0]["torch"],
            "steps_per_s": round(peer_speed, 1),
            "range": [round(min(peer_speeds), 1), round(max(peer_speeds), 1)],
        },
        "ours": table,
        "rounds": args.rounds,
        "machine": {"cores": machine.cores(), "cpu": cpu_name(), **versions()},
        "command": "python benchmarks/pymarl2.py CHECKOUT --peer-python PYTHON",
    }
    args.record.parent.mkdir(exist_ok=True)
    args.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
