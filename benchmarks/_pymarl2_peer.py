"""Time PyMARL2 (PyTorch, CPU) on its own one-step matrix game, as the peer of pymarl2.py.

It needs torch, numpy and pyyaml, and a checkout of PyMARL2; it runs as a subprocess:

  python benchmarks/_pymarl2_peer.py CHECKOUT --steps 1000 --warmup 200 --threads 2

Nothing of PyMARL2 is copied here. Its modules are imported from the checkout and its training loop
runs as it stands; a probe around the learner's `train` takes the time. One step is one episode of
the game (one environment step), its insertion, one sampled batch and one gradient update. The last
line of stdout is one JSON object; all that PyMARL2 prints goes to stderr.
"""

import argparse
import contextlib
import importlib
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
import yaml

PAYOFFS = {
    "a": [[12, -12, -12], [-12, 0, 0], [-12, 0, 0]],
    "b": [[12, 0, 10], [0, 0, 10], [10, 10, 10]],
}
# What PyMARL2 imports and this game never calls: module -> names taken from it.
STUBS = {
    "envs.starcraft": ["StarCraft2Env"],  # instead of pysc2, s2clientprotocol and absl
    "smac.env": ["StarCraft2Env"],
    "matplotlib.pyplot": ["xcorr"],
    "pygame": [],
}
NEVER = 10**12  # env steps; an interval that no run here reaches


class Probe:
    """Builds PyMARL2's learner in place of its class, and times the calls of `train`."""

    def __init__(self, learner_class: Any, warmup: int) -> None:
        """Args: the class that PyMARL2 registered; warmup: untimed updates, > 0."""
        self.learner_class, self.warmup = learner_class, warmup
        self.updates, self.start_s, self.end_s = 0, math.nan, math.nan

    def __call__(self, *args: Any) -> Any:
        """The learner, with `train` passing through this probe."""
        self.learner = self.learner_class(*args)
        self.inner_train, self.learner.train = self.learner.train, self.train
        return self.learner

    def train(self, batch: Any, *args: Any) -> Any:
        """One update; the clock starts at the end of the last untimed one."""
        info = self.inner_train(batch, *args)
        self.batch, self.updates, self.end_s = batch, self.updates + 1, time.perf_counter()
        if self.updates == self.warmup:
            self.start_s = self.end_s
        return info


def parse_args() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description="Time PyMARL2 on its one-step matrix game.")
    parser.add_argument("checkout", type=Path, help="root of a PyMARL2 checkout")
    counts = {"steps": 1000, "warmup": 200, "threads": 2, "batch-size": 128, "buffer-size": 5000}
    for name, default in counts.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--payoff", choices=(*PAYOFFS, "own"), default="own")
    parser.add_argument("--method", choices=("qmix", "vdn"), default="qmix")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if min(args.steps, args.warmup, args.threads, args.batch_size) < 1:
        parser.error("--steps, --warmup, --threads and --batch-size must be > 0")
    if args.buffer_size < args.batch_size:
        parser.error(f"--buffer-size={args.buffer_size} < --batch-size={args.batch_size}")
    return args


def load_config(src: Path, args: argparse.Namespace) -> SimpleNamespace:
    """PyMARL2's configuration in its own order of precedence, then what this benchmark fixes."""
    config: dict[str, Any] = {}
    for name in ("default", "envs/one_step_matrix_game", f"algs/{args.method}"):
        config |= yaml.safe_load((src / "config" / f"{name}.yaml").read_text())
    config |= {"runner": "episode", "batch_size_run": 1, "use_cuda": False, "device": "cpu"}
    config |= {"batch_size": args.batch_size, "buffer_size": args.buffer_size}
    # One evaluation and one report of the learner still come first; both fall before the clock.
    config |= dict.fromkeys(("test_interval", "log_interval", "learner_log_interval"), NEVER)
    # The first update comes with episode `batch_size`; its loop ends one episode after `t_max`.
    config["t_max"] = args.batch_size + args.warmup + args.steps - 2
    return SimpleNamespace(**config)


def read_tables(probe: Probe) -> dict[str, list]:
    """The learned q_tot `[actions, actions]` and utilities `[agents, actions]` at step 0."""
    mac, batch = probe.learner.mac, probe.batch[:1]
    with torch.no_grad():
        mac.init_hidden(batch_size=1)
        utilities = mac.forward(batch, t=0)[0]
        joint = torch.cartesian_prod(*utilities)[:, None]  # [actions^2, 1, agents]
        states = batch["state"][:, :1].expand(len(joint), -1, -1)
        q_tot = probe.learner.mixer(joint, states).reshape(2 * utilities.shape[1:])
    return {"q_tot": q_tot.tolist(), "utilities": utilities.tolist()}


def peak_rss_mb() -> float | None:
    """Peak resident memory of this process, MB (10^6 bytes); None without /proc."""
    # Not getrusage's ru_maxrss: on Linux the process that launched this one counts in it.
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6
    return None


def commit(checkout: Path) -> str | None:
    """The checkout's git hash; None without git or outside of a repository of its own."""
    command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        if (checkout / ".git").exists():  # else git would answer for a repository around it
            return subprocess.check_output(command, stderr=subprocess.DEVNULL, text=True).strip()
    return None


def run(args: argparse.Namespace) -> Probe:
    """Train with PyMARL2's own loop; returns the probe of its learner."""
    src = args.checkout.resolve() / "src"
    config = load_config(src, args)
    sys.dont_write_bytecode = True  # leaves the checkout as it was
    sys.path.insert(0, str(src))
    for name, attributes in STUBS.items():
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(dict.fromkeys(attributes))
    training = importlib.import_module("run.run")
    if args.payoff != "own":
        game = importlib.import_module("envs.matrix_game.one_step_matrix_game")
        game.payoff_values = PAYOFFS[args.payoff]
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    np.random.seed(args.seed)  # the global generator: its buffer draws from there
    probe = Probe(training.le_REGISTRY[config.learner], args.warmup)
    training.le_REGISTRY[config.learner] = probe
    console = SimpleNamespace(info=lambda *_: None)
    logger = SimpleNamespace(console_logger=console, log_stat=lambda *_: None)
    training.run_sequential(args=config, logger=logger)
    return probe


def main() -> None:
    """Run, and print the result."""
    args = parse_args()
    with contextlib.redirect_stdout(sys.stderr):
        probe = run(args)
    steps, wall_s = probe.updates - args.warmup, probe.end_s - probe.start_s
    if steps != args.steps:
        raise RuntimeError(f"timed {steps} updates, expected {args.steps}: has its loop changed?")
    result = {"steps_per_s": steps / wall_s, "steps": steps, "wall_s": wall_s}
    result |= {"threads": torch.get_num_threads(), "torch": torch.__version__}
    result |= {"python": platform.python_version(), "batch_size": args.batch_size}
    result |= {"commit": commit(args.checkout), "peak_rss_mb": peak_rss_mb(), **read_tables(probe)}
    print(json.dumps(result, allow_nan=False))  # a diverged run fails here, not in the reader


if __name__ == "__main__":
    main()
