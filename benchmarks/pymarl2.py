"""Seed-steps per second of QMIX on a one-step matrix game, ours beside PyMARL2's, in one run.

The same work: QMIX with GRU 64, mixing 32, hypernetworks 64; batch 128, replay of 5000 episodes;
one env step and one gradient step at a time, Adam at 1e-3; evaluation off. PyMARL2 trains one seed
in a process; ours trains 1, 64 or 512 in a program. Rounds alternate, and medians are reported.

PyMARL2's code stays where it is. It needs a checkout and a Python with torch, numpy and pyyaml:

    python benchmarks/pymarl2.py PATH_TO_CHECKOUT --peer-python PATH_TO_PYTHON
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from _common import cpu_name

from jaxvff.core import machine
from jaxvff.training import sharding

PEER = Path(__file__).with_name("_pymarl2_peer.py")
RECORD = Path(__file__).with_name("results") / "pymarl2_matrix.json"
# PyMARL2's networks; what configs/ sets otherwise for one-step games.
OURS = ["method=qmix", "env=matrix/a", "utility=gru", "epsilon_steps=100000"]


def peer(args: argparse.Namespace) -> dict[str, Any]:
    """One timed process of PyMARL2."""
    command = [args.peer_python, str(PEER), args.checkout, "--payoff", "a", "--method", "qmix"]
    command += [
        "--steps",
        str(args.peer_steps),
        "--warmup",
        "200",
        "--threads",
        str(machine.cores()),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def ours(seeds: int, seconds: float, codec: bool = True) -> dict[str, Any]:
    """One timed program of ours; without the codec, every sample is computed on its own."""
    from jaxvff.cli import bench
    from jaxvff.runs.plan import plan

    (group,) = plan([*OURS, f"seeds={seeds}"])
    if not codec:
        plain = [v._replace(env=v.env._replace(codec=None)) for v in group.values]
        group = group._replace(values=plain)
    return bench.measure(group, seconds)


def main() -> None:
    """Measure, print a table, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkout", help="folder of a PyMARL2 checkout")
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--peer-steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="least timed length of ours")
    parser.add_argument("--record", type=Path, default=RECORD)
    args = parser.parse_args()
    sharding.use_all_cores()

    from jaxvff.reports.machine import machine as versions

    peers: list[dict[str, Any]] = []
    mine: dict[str, list[dict[str, Any]]] = {}
    for k in range(args.rounds):
        peers.append(peer(args))
        print(f"round {k + 1}: PyMARL2 {peers[-1]['steps_per_s']:.0f} steps/s", flush=True)
        for seeds in args.seeds:
            mine.setdefault(f"{seeds} seeds", []).append(ours(seeds, args.seconds))
        mine.setdefault("64 seeds, no codec", []).append(ours(64, args.seconds, codec=False))
        for name, rows in mine.items():
            print(f"  ours, {name}: {rows[-1]['seed_steps_per_s']:,.0f} seed-steps/s", flush=True)

    base = statistics.median(p["steps_per_s"] for p in peers)
    table = {}
    for name, rows in mine.items():
        speeds = [r["seed_steps_per_s"] for r in rows]
        table[name] = {
            "seed_steps_per_s": round(statistics.median(speeds)),
            "range": [round(min(speeds)), round(max(speeds))],
            "ratio": round(statistics.median(speeds) / base, 1),
            "compile_s": round(statistics.median(r["compile_s"] for r in rows), 1),
            "state_bytes_per_seed": rows[0]["state_bytes"],
        }
        speed, ratio = table[name]["seed_steps_per_s"], table[name]["ratio"]
        print(f"{name:20} {speed:>8,}/s  {ratio:>6} x PyMARL2")
    record = {
        "what": "QMIX, one-step matrix game A: GRU 64, batch 128, one update per env step",
        "peer": {
            "name": "PyMARL2",
            "commit": peers[0]["commit"],
            "torch": peers[0]["torch"],
            "steps_per_s": round(base, 1),
            "range": [round(min(p["steps_per_s"] for p in peers), 1),
                      round(max(p["steps_per_s"] for p in peers), 1)],
        },
        "ours": table,
        "rounds": args.rounds,
        "machine": {"cores": machine.cores(), "cpu": cpu_name(), **versions()},
        "command": "python benchmarks/pymarl2.py CHECKOUT --peer-python PYTHON",
    }  # fmt: skip
    args.record.parent.mkdir(exist_ok=True)
    args.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
