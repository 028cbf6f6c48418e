"""Drive JaxMARL's QMIX with GRUs on SMAX, for jaxmarl_speed.py and time_to_skill.py.

It needs a checkout of JaxMARL, for its training script, and jaxmarl installed:

  python benchmarks/_jaxmarl_peer.py CHECKOUT speed --updates 20  # or: skill --lr 1e-3 --seed 0

Nothing of JaxMARL is copied here. Its `baselines/QLearning/qmix_rnn.py` is imported from the
checkout and `make_train` runs unchanged, with JaxMARL's configuration and what the command line
overrides. The last line of stdout is one JSON object; all that JaxMARL prints goes to stderr.
"""

import argparse
import contextlib
import importlib.metadata
import json
import math
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn, TypeAlias

import flashbax
import jax
import yaml

from jaxvff.core.machine import cores

Record: TypeAlias = dict[str, Any]  # a JSON object, or JaxMARL's configuration

IMPORTED_S = time.monotonic()
SHORT = 2  # updates of the short program, which shows what the start of a run costs
# Option -> JaxMARL's key, and the value unless the command line or --defaults sets another.
SETTINGS: dict[str, tuple[str, int | float]] = {
    "hidden": ("HIDDEN_SIZE", 64),
    "mixer": ("MIXER_EMBEDDING_DIM", 32),
    "hypernet": ("MIXER_HYPERNET_HIDDEN_DIM", 64),
    "lr": ("LR", 1e-3),
    "envs": ("NUM_ENVS", 16),
    "steps": ("NUM_STEPS", 128),  # env steps of each environment in a rollout
    "batch": ("BUFFER_BATCH_SIZE", 32),  # rollouts of a single environment
    "buffer": ("BUFFER_SIZE", 5000),  # rollouts of a single environment
    "epochs": ("NUM_EPOCHS", 8),  # gradient steps in an update; a rollout of all envs before it
    "learning_starts": ("LEARNING_STARTS", 0),
    "eps_decay": ("EPS_DECAY", 0.1),  # share of all updates
}


def parse_args() -> argparse.Namespace:
    """The command line; a setting that was not given is None."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--map", default="3m")
    common.add_argument("--seed", type=int, default=0)
    for name, (key, value) in SETTINGS.items():
        option, text = "--" + name.replace("_", "-"), f"{key} (default: {value})"
        common.add_argument(option, type=type(value), help=text)
    common.add_argument("--defaults", action="store_true", help="JaxMARL's where none is given")
    common.add_argument("--own-min-length", action="store_true", help="JaxMARL's replay as it is")
    parser = argparse.ArgumentParser(description="Drive JaxMARL's QMIX with GRUs on SMAX.")
    parser.add_argument("checkout", type=Path, help="root of a JaxMARL checkout")
    modes = parser.add_subparsers(dest="mode", required=True)
    mode = modes.add_parser("speed", parents=[common], help="time to compile; cost of an update")
    mode.add_argument("--updates", type=int, default=20, help=f"rollouts, more than {SHORT}")
    mode.add_argument("--seeds", type=int, default=1, help="seeds in the program, by its vmap")
    mode.add_argument("--learn", action=argparse.BooleanOptionalAction, default=True)
    mode = modes.add_parser("skill", parents=[common], help="wall-clock to a greedy win rate")
    for name, value in {"target": 0.8, "max-seconds": 600.0, "total-timesteps": 10**7}.items():
        mode.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args()
    if args.mode == "speed" and args.updates <= SHORT:
        parser.error(f"--updates={args.updates} must be more than {SHORT}")
    # JaxMARL initialises with QR; batched over seeds, that deadlocks XLA's pool of CPU threads.
    if args.mode == "speed" and args.seeds > 1 and jax.default_backend() == "cpu" and cores() > 1:
        parser.error(f"--seeds={args.seeds} on {cores()} cores hangs; give it one (taskset -c 0)")
    return args


def load_config(folder: Path, args: argparse.Namespace) -> Record:
    """JaxMARL's configuration for SMAX: its files in its own order, then SETTINGS and the options.

    Args:
      folder: of JaxMARL's training script.
      args: the command line.
    """
    config: Record = {}
    for name in ("config", "alg/ql_rnn_smax"):
        config |= yaml.safe_load((folder / "config" / f"{name}.yaml").read_text())
    config |= {"MAP_NAME": args.map, "SEED": args.seed}
    for name, (key, value) in SETTINGS.items():
        default = config[key] if args.defaults else value
        config[key] = default if getattr(args, name) is None else getattr(args, name)
    rollout = config["NUM_ENVS"] * config["NUM_STEPS"]
    updates = args.updates if args.mode == "speed" else args.total_timesteps // rollout
    config |= {"NUM_UPDATES": updates, "TOTAL_TIMESTEPS": updates * rollout}
    if args.mode == "speed":
        # "Never" is the largest int32, the type in which JaxMARL counts env steps.
        config |= {} if args.learn else {"LEARNING_STARTS": 2**31 - 1}
        return config | {"NUM_SEEDS": args.seeds, "TEST_DURING_TRAINING": False}
    # Half an update more, because JaxMARL multiplies by the number of updates and rounds down.
    config["TEST_INTERVAL"] = (max(1, round(20_000 / rollout)) + 0.5) / updates
    # WANDB_MODE has to be online, or JaxMARL does not call `wandb.log`.
    return config | {"TEST_NUM_ENVS": 32, "WANDB_MODE": "online"}


def load_script(folder: Path, own_min_length: bool) -> Any:
    """JaxMARL's script as a module, with a stub for wandb.

    JaxMARL's replay has one item of NUM_STEPS steps per rollout on its time axis, and allows
    sampling only when it holds BUFFER_BATCH_SIZE of them. Unchanged, it learns nothing in the first
    32 x 16 x 128 = 65,536 env steps, whatever LEARNING_STARTS is. One item is enough.

    Args:
      folder: of JaxMARL's training script.
      own_min_length: leave JaxMARL's minimum as it is; otherwise sampling starts with one item.
    """
    make = flashbax.make_trajectory_buffer
    if not own_min_length:
        flashbax.make_trajectory_buffer = lambda **kw: make(**kw | {"min_length_time_axis": 1})
    # The script imports wandb, which need not be installed; its training only calls `log`.
    sys.modules["wandb"] = ModuleType("wandb")
    sys.dont_write_bytecode = True  # leaves the checkout as it was
    sys.path.append(str(folder))
    return importlib.import_module("qmix_rnn")


def process_age_s() -> float:
    """Seconds since this process started; without /proc, since it imported its modules."""
    with contextlib.suppress(OSError):
        ticks = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        return round(uptime_s - ticks / os.sysconf("SC_CLK_TCK"), 2)
    return time.monotonic() - IMPORTED_S


def describe(args: argparse.Namespace, config: Record) -> Record:
    """What a result says beside its measurements: settings, versions, commit, machine."""
    # Not -C: where the checkout is no repository, git would report the one that contains it.
    command = ["git", f"--git-dir={args.checkout / '.git'}", "rev-parse", "HEAD"]
    commit = subprocess.run(command, capture_output=True, text=True).stdout.strip() or None
    versions = {x: importlib.metadata.version(x) for x in ("jax", "jaxlib", "jaxmarl", "flashbax")}
    versions["python"] = sys.version.split()[0]
    about = {"mode": args.mode, "defaults": args.defaults, "own_min_length": args.own_min_length}
    about["config"] = {k: v for k, v in config.items() if isinstance(v, int | float | str)}
    about |= {"versions": versions, "commit": commit, "cores": cores()}
    return about | {"backend": jax.default_backend()}


def timed_runs(train: Any, keys: jax.Array) -> tuple[dict[str, float], Any]:
    """Compile and run the program that JaxMARL's `single_run` makes.

    Args:
      train: from JaxMARL's `make_train`.
      keys: PRNG keys `[seeds]`.

    Returns:
      Wall-clock and CPU seconds of each part, and the output of the second run.
    """
    times: dict[str, float] = {}

    def clock(name: str, f: Any, *args: Any) -> Any:
        start, start_cpu = time.perf_counter(), time.process_time()
        out = jax.block_until_ready(f(*args))
        times[f"{name}_s"] = time.perf_counter() - start
        times[f"{name}_cpu_s"] = time.process_time() - start_cpu
        return out

    lowered = clock("lower", jax.jit(jax.vmap(train)).lower, keys)
    program, out = clock("compile", lowered.compile), None
    for name in ("first_run", "second_run"):
        del out  # the replay of the run before
        out = clock(name, program, keys)
    return times, out


def speed(make_train: Any, env: Any, config: Record, keys: jax.Array) -> Record:
    """Time a run, and derive what an update of all seeds costs apart from the start of the run.

    Args:
      make_train: of JaxMARL's script.
      env: JaxMARL's environment.
      config: from `load_config`.
      keys: PRNG keys `[seeds]`.
    """
    times, out = timed_runs(make_train(config, env), keys)
    grad_steps = int(out["runner_state"][0].grad_steps.ravel()[0])
    replay = jax.tree.leaves(out["runner_state"][1].experience)
    size = sum(x.nbytes for x in replay) / len(keys)
    held = math.prod(replay[0].shape[1:4])  # environments, rollouts, steps
    parameters = sum(x.size for x in jax.tree.leaves(out["runner_state"][0].params)) // len(keys)
    del out, replay
    # A run first makes networks and an empty replay, which takes half of the time of a short run.
    # A second program that differs only in its length shows how much. It needs updates as well:
    # without any there would be no loop, and XLA copies the replay into the loop.
    updates, few = config["NUM_UPDATES"], SHORT
    rollout = config["NUM_ENVS"] * config["NUM_STEPS"]
    short, _ = timed_runs(make_train(config | {"TOTAL_TIMESTEPS": few * rollout}, env), keys)
    for clock in ("s", "cpu_s"):
        start = short[f"second_run_{clock}"]
        times[f"steady_{clock}"] = (times[f"second_run_{clock}"] - start) / (updates - few)
        times[f"setup_{clock}"] = start - few * times[f"steady_{clock}"]
    times |= {"replay_bytes_per_seed": size, "replay_bytes_per_env_step": size / held}
    counts = {"seeds": len(keys), "updates": config["NUM_UPDATES"], "grad_steps": grad_steps}
    # Of one seed. JaxMARL's environments reset themselves, so every slot is an env step.
    counts |= {"env_steps": config["TOTAL_TIMESTEPS"], "slots": config["TOTAL_TIMESTEPS"]}
    return counts | {"parameters": parameters, "replay_slots_per_seed": held} | times


class Watch:
    """Receives the evaluations that JaxMARL sends to wandb, and ends the process at the target.

    JaxMARL's run is a single compiled scan; `wandb.log` is all that it calls outside of it.
    """

    def __init__(self, args: argparse.Namespace, about: Record) -> None:
        self.target, self.about, config = args.target, about, about["config"]
        self.every = int(config["NUM_UPDATES"] * config["TEST_INTERVAL"])  # updates
        self.curve: list[Record] = []
        self.first_update_s = 0.0
        left_s = args.max_seconds - process_age_s()
        timer = threading.Timer(left_s, lambda: self.end(process_age_s(), reached=False))
        timer.daemon = True  # or an error would wait for it
        timer.start()

    def log(self, metrics: Record) -> None:
        """Note the latest evaluation; JaxMARL calls this after each update."""
        now_s, update = process_age_s(), int(metrics["update_steps"])
        self.first_update_s = self.first_update_s or now_s
        if update % self.every:
            return
        win_rate, loss = (float(metrics[key]) for key in ("test_returned_won_episode", "loss"))
        point = {"seconds": now_s, "env_step": int(metrics["env_step"]), "win_rate": win_rate}
        self.curve.append(point | {"loss": loss if math.isfinite(loss) else None})
        if win_rate >= self.target:
            self.end(now_s, reached=True)

    def end(self, seconds: float, reached: bool) -> NoReturn:
        """Print the result and end the process."""
        result = {"reached": reached, "seconds": seconds, "target": self.target}
        result |= {"first_update_s": self.first_update_s or None, "curve": self.curve}
        print(json.dumps(self.about | result), file=sys.__stdout__, flush=True)
        os._exit(0)


def main() -> None:
    """Run one mode, and print the result."""
    args = parse_args()
    folder = args.checkout / "baselines" / "QLearning"
    with contextlib.redirect_stdout(sys.stderr):
        config = load_config(folder, args)
        script = load_script(folder, args.own_min_length)
        env, _ = script.env_from_config(config)
        about = describe(args, config)
        keys = jax.random.split(jax.random.PRNGKey(args.seed), config["NUM_SEEDS"])
        if args.mode == "skill":
            watch = Watch(args, about)
            script.wandb.log = watch.log
            jax.block_until_ready(jax.jit(jax.vmap(script.make_train(config, env)))(keys))
            jax.effects_barrier()  # the last callbacks
            watch.end(process_age_s(), reached=False)
        result = about | speed(script.make_train, env, config, keys)
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
