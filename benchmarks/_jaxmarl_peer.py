"""Drive JaxMARL's QMIX or PQN-VDN with GRUs on SMAX, for jaxmarl_speed.py and time_to_skill.py.

It needs a checkout of JaxMARL, for its training scripts, and jaxmarl installed:

  python benchmarks/_jaxmarl_peer.py CHECKOUT speed --updates 20
  python benchmarks/_jaxmarl_peer.py CHECKOUT skill --script pqn_vdn_rnn --lr 1e-3 --seed 0

Nothing of JaxMARL is copied here. A script of its `baselines/QLearning` is imported from the
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
from typing import Any, NamedTuple, NoReturn, TypeAlias

import jax
import yaml

from jaxvff.core.machine import cores

Record: TypeAlias = dict[str, Any]  # a JSON object, or JaxMARL's configuration

IMPORTED_S = time.monotonic()
SHORT = 2  # updates of the short program, which shows what the start of a run costs


class Script(NamedTuple):
    """A training script of JaxMARL, and what of it differs from the others."""

    title: str
    config: str  # its file of options for SMAX, under config/alg
    # Option -> JaxMARL's key, and the value unless the command line or --defaults sets another.
    settings: dict[str, tuple[str, int | float | str]]
    replay: bool  # learns from a replay of flashbax, from LEARNING_STARTS env steps on


# What they share: `make_train`, the environment and its wrapper, how they evaluate, and the names
# under which they log the env steps, the number of the update, the loss and the win rate.
SCRIPTS = {
    "qmix_rnn": Script(
        title="QMIX",
        config="ql_rnn_smax",
        settings={
            "hidden": ("HIDDEN_SIZE", 64),
            "mixer": ("MIXER_EMBEDDING_DIM", 32),
            "hypernet": ("MIXER_HYPERNET_HIDDEN_DIM", 64),
            "lr": ("LR", 1e-3),
            "envs": ("NUM_ENVS", 16),
            "steps": ("NUM_STEPS", 128),  # env steps of each environment in a rollout
            "batch": ("BUFFER_BATCH_SIZE", 32),  # rollouts of a single environment
            "buffer": ("BUFFER_SIZE", 5000),  # rollouts of a single environment
            "epochs": ("NUM_EPOCHS", 8),  # gradient steps in an update; a rollout before it
            "learning_starts": ("LEARNING_STARTS", 0),
            "eps_decay": ("EPS_DECAY", 0.1),  # share of all updates
        },
        replay=True,
    ),
    "pqn_vdn_rnn": Script(
        title="PQN-VDN",
        config="pqn_vdn_rnn_smax",
        # Chosen on seeds 100 and 101 of 3m, by the CPU seconds to a win rate of 0.8.
        settings={
            "hidden": ("HIDDEN_SIZE", 64),  # of two dense layers and the GRU
            "lr": ("LR", 2e-3),
            "envs": ("NUM_ENVS", 64),
            "steps": ("NUM_STEPS", 64),  # env steps of each environment in a rollout
            "minibatches": ("NUM_MINIBATCHES", 16),  # gradient steps in an epoch
            "epochs": ("NUM_EPOCHS", 4),  # passes over a rollout in an update
            "norm": ("NORM_TYPE", "batch_norm"),  # or layer_norm
            "layers": ("NUM_LAYERS", 2),  # dense layers before the GRU
            "norm_input": ("NORM_INPUT", 1),  # batch normalisation of what is observed
            "eps_decay": ("EPS_DECAY", 0.02),  # share of all updates
        },
        replay=False,
    ),
}
WIN_RATE = "test_returned_won_episode"  # the key under which JaxMARL logs it


def common_options() -> tuple[Script, argparse.ArgumentParser]:
    """The script that the command line names, and the options of both modes that it has."""
    # The script is read first, because the other options depend on it.
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--script", choices=SCRIPTS, default="qmix_rnn", help="whose options follow")
    script = SCRIPTS[first.parse_known_args()[0].script]
    common = argparse.ArgumentParser(add_help=False, parents=[first])
    common.add_argument("--map", default="3m")
    common.add_argument("--seed", type=int, default=0)
    for name, (key, value) in script.settings.items():
        option, text = "--" + name.replace("_", "-"), f"{key} (default: {value})"
        common.add_argument(option, type=type(value), help=text)
    common.add_argument("--defaults", action="store_true", help="JaxMARL's where none is given")
    if script.replay:
        text = "JaxMARL's replay as it is"
        common.add_argument("--own-min-length", action="store_true", help=text)
    return script, common


def parse_args() -> argparse.Namespace:
    """The command line; a setting that was not given is None."""
    script, common = common_options()
    parser = argparse.ArgumentParser(description=f"Drive JaxMARL's {script.title} on SMAX.")
    parser.add_argument("checkout", type=Path, help="root of a JaxMARL checkout")
    modes = parser.add_subparsers(dest="mode", required=True)
    mode = modes.add_parser("speed", parents=[common], help="time to compile; cost of an update")
    mode.add_argument("--updates", type=int, default=20, help=f"rollouts, more than {SHORT}")
    mode.add_argument("--seeds", type=int, default=1, help="seeds in the program, by its vmap")
    if script.replay:  # the others learn in each update
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
    """JaxMARL's configuration for SMAX: its files in its own order, then the settings and options.

    Args:
      folder: of JaxMARL's training scripts.
      args: the command line.
    """
    config: Record = {}
    script = SCRIPTS[args.script]
    for name in ("config", f"alg/{script.config}"):
        config |= yaml.safe_load((folder / "config" / f"{name}.yaml").read_text())
    config |= {"MAP_NAME": args.map, "SEED": args.seed}
    for name, (key, value) in script.settings.items():
        default = config[key] if args.defaults else value
        config[key] = default if getattr(args, name) is None else getattr(args, name)
    rollout = config["NUM_ENVS"] * config["NUM_STEPS"]
    updates = args.updates if args.mode == "speed" else args.total_timesteps // rollout
    config |= {"NUM_UPDATES": updates, "TOTAL_TIMESTEPS": updates * rollout}
    if args.mode == "speed":
        if script.replay and not args.learn:
            # "Never" is the largest int32, the type in which JaxMARL counts env steps.
            config["LEARNING_STARTS"] = 2**31 - 1
        return config | {"NUM_SEEDS": args.seeds, "TEST_DURING_TRAINING": False}
    # Half an update more, because JaxMARL multiplies by the number of updates and rounds down.
    config["TEST_INTERVAL"] = (max(1, round(20_000 / rollout)) + 0.5) / updates
    # WANDB_MODE has to be online, or JaxMARL does not call `wandb.log`.
    return config | {"TEST_NUM_ENVS": 32, "WANDB_MODE": "online"}


def load_script(folder: Path, args: argparse.Namespace) -> Any:
    """JaxMARL's script as a module, with a stub for wandb.

    Args:
      folder: of JaxMARL's training scripts.
      args: the command line.
    """
    if SCRIPTS[args.script].replay and not args.own_min_length:
        sample_from_one_item()
    # The script imports wandb, which need not be installed; its training only calls `log`.
    sys.modules["wandb"] = ModuleType("wandb")
    sys.dont_write_bytecode = True  # leaves the checkout as it was
    sys.path.append(str(folder))
    return importlib.import_module(args.script)


def sample_from_one_item() -> None:
    """Let every replay that is made from now on be sampled as soon as it holds one item.

    JaxMARL's replay has one item of NUM_STEPS steps per rollout on its time axis, and allows
    sampling only when it holds BUFFER_BATCH_SIZE of them. Unchanged, it learns nothing in the first
    32 x 16 x 128 = 65,536 env steps, whatever LEARNING_STARTS is. One item is enough.
    """
    import flashbax  # here, so that a script without replay does not wait for it

    make = flashbax.make_trajectory_buffer
    flashbax.make_trajectory_buffer = lambda **kw: make(**kw | {"min_length_time_axis": 1})


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
    about = {x: getattr(args, x) for x in ("script", "mode", "defaults")}
    if SCRIPTS[args.script].replay:
        about["own_min_length"] = args.own_min_length
    about["config"] = {k: v for k, v in config.items() if isinstance(v, int | float | str)}
    about |= {"versions": versions, "commit": commit, "cores": cores()}
    return about | {"backend": jax.default_backend()}


def timed_runs(train: Any, keys: jax.Array) -> tuple[dict[str, float], Any]:
    """Compile and run the program that JaxMARL's `single_run` makes.

    Args:
      train: from JaxMARL's `make_train`.
      keys: PRNG keys `[seeds]`.

    Returns:
      Wall-clock and CPU seconds of each part, the bytes of the program, and the output of the
      second run.
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
    memory = program.memory_analysis()
    times["program_bytes_per_seed"] = (
        memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    ) / len(keys)
    for name in ("first_run", "second_run"):
        del out  # the replay of the run before
        out = clock(name, program, keys)
    return times, out


def speed(script: Any, env: Any, config: Record, keys: jax.Array) -> Record:
    """Time a run, and derive what an update of all seeds costs apart from the start of the run.

    Args:
      script: JaxMARL's, as a module.
      env: JaxMARL's environment.
      config: from `load_config`.
      keys: PRNG keys `[seeds]`.
    """
    times, out = timed_runs(script.make_train(config, env), keys)
    state, kept = out["runner_state"][:2]
    networks = state.params
    if not config.get("NORM_INPUT", True):  # the layer is there, and nothing uses its numbers
        networks = {name: x for name, x in networks.items() if name != "BatchNorm_0"}
    sizes = {"parameters": sum(x.size for x in jax.tree.leaves(networks)) // len(keys)}
    if SCRIPTS[script.__name__].replay:
        sizes |= replay_sizes(kept.experience, len(keys))
    grad_steps = int(state.grad_steps.ravel()[0])
    del out, state, kept
    # A run first makes networks and an empty replay, which takes half of the time of a short run.
    # A second program that differs only in its length shows how much. It needs updates as well:
    # without any there would be no loop, and XLA copies the replay into the loop.
    updates, few = config["NUM_UPDATES"], SHORT
    rollout = config["NUM_ENVS"] * config["NUM_STEPS"]
    shorter = config | {"TOTAL_TIMESTEPS": few * rollout}
    short, _ = timed_runs(script.make_train(shorter, env), keys)
    for clock in ("s", "cpu_s"):
        start = short[f"second_run_{clock}"]
        times[f"steady_{clock}"] = (times[f"second_run_{clock}"] - start) / (updates - few)
        times[f"setup_{clock}"] = start - few * times[f"steady_{clock}"]
    counts = {"seeds": len(keys), "updates": updates, "grad_steps": grad_steps}
    # Of one seed. JaxMARL's environments reset themselves, so every slot is an env step.
    counts |= {"env_steps": config["TOTAL_TIMESTEPS"], "slots": config["TOTAL_TIMESTEPS"]}
    times["env_steps_per_s"] = rollout * len(keys) / times["steady_s"]  # of all seeds
    return counts | sizes | times


def replay_sizes(experience: Any, seeds: int) -> dict[str, float]:
    """What a seed's replay holds.

    Args:
      experience: arrays `[seeds, envs, rollouts, steps, ...]`.
      seeds: in the program.
    """
    arrays = jax.tree.leaves(experience)
    size = sum(x.nbytes for x in arrays) / seeds
    held = math.prod(arrays[0].shape[1:4])
    per_step = size / held
    return {
        "replay_slots_per_seed": held,
        "replay_bytes_per_seed": size,
        "replay_bytes_per_env_step": per_step,
    }


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

    def log(self, metrics: Record, step: Any = None) -> None:
        """Note the latest evaluation; JaxMARL calls this after each update.

        Args:
          metrics: what JaxMARL logs; between evaluations it repeats the win rate of the last one.
          step: the number of the update, which some scripts say twice.
        """
        now_s, update = process_age_s(), int(metrics["update_steps"])
        self.first_update_s = self.first_update_s or now_s
        if update % self.every:
            return
        win_rate, loss = (float(metrics[key]) for key in (WIN_RATE, "loss"))
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
        script = load_script(folder, args)
        env, _ = script.env_from_config(config)
        about = describe(args, config)
        keys = jax.random.split(jax.random.PRNGKey(args.seed), config["NUM_SEEDS"])
        if args.mode == "skill":
            watch = Watch(args, about)
            script.wandb.log = watch.log
            jax.block_until_ready(jax.jit(jax.vmap(script.make_train(config, env)))(keys))
            jax.effects_barrier()  # the last callbacks
            watch.end(process_age_s(), reached=False)
        result = about | speed(script, env, config, keys)
    print(json.dumps(result, allow_nan=False))


if __name__ == "__main__":
    main()
