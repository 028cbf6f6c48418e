"""How often does NM-QMIX collapse on SMAX's 3m, and what does a collapsed seed look like?

NM-QMIX may give ∂Q_tot/∂Q_i any sign. Where it is negative, the best joint action takes each
agent's *lowest* utility, and greedy agents do the worst that they know (docs/theory.md, Symmetry).
Some seeds end like that: they never win a battle again. This study trains 16 seeds of each of
several conditions, counts the collapsed ones, and measures on states of the own policy and of
random play

- the win rate of greedy agents, of agents that take their lowest utility, and of a team that plays
  the joint action of largest Q_tot;
- ∂Q_tot/∂Q_i: its mean, and how often it is positive, before training and after it;
- how often the greedy joint action has the largest Q_tot of all joint actions, by enumeration, and
  how much of Q_tot's range is lost where it has not;
- the rank correlation between an agent's utilities and Q_tot as that agent's action alone changes.

    python benchmarks/nmqmix_collapse.py

A condition that is in the record is not run again; an interrupted one goes on from its checkpoint.
The record and the picture are written after each condition.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _common import Record, about
from matplotlib.axes import Axes
from rich.console import Console
from rich.table import Table

from jaxvff.core.actions import any_available, greedy
from jaxvff.core.files import write_json
from jaxvff.core.types import Array, Env, EnvParams, Params, Revise, Segment
from jaxvff.learning.learner import Learner
from jaxvff.losses import igm
from jaxvff.losses.contract import Model
from jaxvff.losses.terms import UtilityValues
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.explore import epsilon_greedy
from jaxvff.playing.rollout import Act, Player
from jaxvff.reports import plots
from jaxvff.reports.statistics import wilson
from jaxvff.runs import execute, learned, metrics_file
from jaxvff.runs import folder as run_folder
from jaxvff.runs.execute import Watcher
from jaxvff.runs.files import METRICS_FILE, TIMING_FILE
from jaxvff.settings.run_options import OutputOptions
from jaxvff.training import compilation_cache, sharding
from jaxvff.training.program import Program

# All settings stand here. The learning settings are those that showed the collapse in a first trial
# (seeds 0 to 11); the seeds of the study are others.
SEEDS = ["seeds=16", "seed=3000"]
BATTLE = ["env=smax/3m", "lanes_per_device=1"]  # and all else as in configs/env/smax
REPORTS = ["eval_interval=10000", "eval_episodes=64"]
PARALLEL = ["lr_steps=200000", "total_steps=170000"]
REPLAY = [  # as `jaxvff reproduce smax_cpu`, with half as many units and a quarter of the steps
    *("learner=replay", "norm=none", "optimizer=adam", "n_envs=4", "updates=8", "lr=1e-3"),
    *("lr_final=0.05", "lr_steps=150000", "epsilon_steps=20000", "total_steps=150000"),
]
NMQMIX = "method=nmqmix"
CONDITIONS: dict[str, list[str]] = {
    "base": [NMQMIX, *PARALLEL],
    "positive start": [NMQMIX, *PARALLEL, "method.positive_start=true"],
    "QMIX": ["method=qmix", *PARALLEL],
    "max target": [NMQMIX, *PARALLEL, "target=max"],
    "ε ends at 0.2": [NMQMIX, *PARALLEL, "epsilon_end=0.2"],
    "ε falls slowly": [NMQMIX, *PARALLEL, "epsilon_steps=100000"],
    "RND": [NMQMIX, *PARALLEL, "bonus=rnd", "bonus_beta=0.01"],
    "replay": [NMQMIX, *REPLAY],
    "replay, max target": [NMQMIX, *REPLAY, "target=max"],
}

COLLAPSED = 0.02  # greedy win rate below which a seed has collapsed, in the whole last quarter
EPISODES = 128  # of each win rate
GAMES, SLOTS = 32, 128  # states that are measured: GAMES x SLOTS, less final observations
EPSILON = 0.05  # of the own policy that visits them
STOP = 4  # SMAX's action id of standing still
SLOTS_AT_ONCE = 128  # so many tables of joint values are in memory at a time
HERE = Path(__file__).parent


class InSlot(NamedTuple):
    """What is measured in one state; those of [A] count for agents with more than one action."""

    slope: Array  # [A] ∂Q_tot/∂Q_i at the joint action that was played
    correlation: Array  # [A] Spearman's, of utilities and Q_tot; NaN where all of either are equal
    has_choice: Array  # [A] bool
    is_best: Array  # [] bool, no available joint action has a larger Q_tot than the greedy one
    regret: Array  # [] (largest - greedy) / (largest - smallest) Q_tot; NaN where all are equal


def rank_correlation(x: Array, y: Array, counts: Array) -> Array:
    """Spearman's rank correlation of `x[U]` and `y[U]` where `counts[U]`; ties share their rank.

    NaN where all of `x` or of `y` are equal.
    """

    def centred_ranks(z: Array) -> Array:
        below = (z[None] < z[:, None]) + 0.5 * (z[None] == z[:, None])
        ranks = jnp.sum(below * counts[None], axis=-1)
        return (ranks - jnp.sum(ranks * counts) / jnp.sum(counts)) * counts

    a, b = centred_ranks(x), centred_ranks(y)
    return jnp.sum(a * b) / jnp.sqrt(jnp.sum(a**2) * jnp.sum(b**2))


def in_slot(model: Model, params: Params, values: UtilityValues, view: Segment) -> InSlot:
    """Measure one state.

    Args:
      model: networks.
      params: {"utility", "mixer"}.
      values: what the utility networks make of the state, leaves `[A, ...]`.
      view: the state as a slot of a segment, fields without the [T].
    """
    n_agents, n_actions = view.avail.shape
    seen = {"avail": view.avail, "state": view.state}
    slope = igm.slopes(model, params, values, action=view.action, **seen)

    # The greedy joint action among all of them.
    value = igm.joint_value(model, params, values, **seen)
    q_tot = jax.vmap(value)(jnp.asarray(igm.joint_actions(*values.q.shape)))
    _, (largest, smallest) = igm.best_joint(q_tot, view.avail)
    chosen = greedy(values.q, view.avail)
    stride = n_actions ** jnp.arange(n_agents)[::-1]  # of each agent's action in the table
    mine = jnp.sum(chosen * stride)

    # What Q_tot makes of one agent's actions while the others stay greedy.
    others = mine + (jnp.arange(n_actions) - chosen[:, None]) * stride[:, None]
    return InSlot(
        slope=slope,
        correlation=jax.vmap(rank_correlation)(values.q, q_tot[others], view.avail),
        has_choice=jnp.sum(view.avail, axis=-1) > 1,
        is_best=q_tot[mine] >= largest,
        regret=(largest - q_tot[mine]) / (largest - smallest),
    )


def measure_states(model: Model, params: Params, segments: Segment) -> dict[str, Array]:
    """Means of InSlot over the states of segments.

    Args:
      model: networks.
      params: {"utility", "mixer"}.
      segments: leaves `[N, T, ...]`.

    Returns:
      Numbers `[]`: rising (share of ∂Q_tot/∂Q_i > 0), slope, correlation, is_best, regret, and
      how many states there were; rising_of_agent `[A]`.
    """
    values = UtilityValues(
        *jax.vmap(lambda s: model.utility.unroll(params["utility"], s))(segments)
    )
    slots = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (values, segments))
    found: InSlot = jax.lax.map(
        lambda x: in_slot(model, params, *x), slots, batch_size=SLOTS_AT_ONCE
    )
    # Only states in which the team decides something: final observations are none.
    counts = slots[1].mask & found.has_choice.any(-1)
    of_agents = counts[:, None] & found.has_choice
    return {
        "rising": mean(found.slope > 0, of_agents),
        "rising_of_agent": jax.vmap(mean, 1)(found.slope > 0, of_agents),
        "slope": mean(found.slope, of_agents),
        "correlation": mean(found.correlation, of_agents),
        "is_best": mean(found.is_best, counts),
        "regret": mean(found.regret, counts),
        "states": jnp.sum(counts),
    }


def mean(x: Array, counts: Array) -> Array:
    """The mean of `x` where `counts`, without what is NaN."""
    counts = counts & ~jnp.isnan(x)
    return jnp.sum(jnp.where(counts, x, 0)) / jnp.sum(counts)


def lowest(key: Array, q: Array, avail: Array) -> Array:
    """Each agent's available action of lowest utility."""
    return greedy(-q, avail)


def lowest_moving(key: Array, q: Array, avail: Array) -> Array:
    """As `lowest`, without standing still where anything else is available."""
    moving = avail & (jnp.arange(avail.shape[-1]) != STOP)
    return greedy(-q, jnp.where(moving.any(-1, keepdims=True), moving, avail))


def largest_joint(model: Model, params: Params) -> Revise:
    """The team plays the available joint action of largest Q_tot, whatever its agents picked."""

    def revise(
        state: Array, key: Array, action: Array, q: Array, avail: Array, features: Array
    ) -> Array:
        known = UtilityValues(q, features)
        value = igm.joint_value(model, params, known, avail=avail, state=state)
        joint = jnp.asarray(igm.joint_actions(*q.shape))
        return joint[igm.best_joint(jax.vmap(value)(joint), avail)[0]]

    return revise


class Seed(NamedTuple):
    """One trained seed, or one lane of all."""

    params: Params  # that it plays with: {"utility", "mixer"}
    env_params: EnvParams
    key: Array


def measure_seed(program: Program, seed: Seed, *, with_play: bool) -> dict[str, Array]:
    """All that is measured of one seed, by name.

    Args:
      program: of its job.
      seed: without the axis K.
      with_play: also the win rates of the three ways to act.
    """
    env, model = program.env, program.learner.model
    assert isinstance(env, Env)
    keys = iter(jax.random.split(seed.key, 8))

    def player(act: Act, revise: Revise | None = None) -> Player:
        return Player(env, model.utility, act, seed.params["utility"], seed.env_params, revise)

    # States of the own policy and of random play.
    policies: dict[str, Act] = {
        "own": lambda key, q, avail: epsilon_greedy(key, q, avail, jnp.array(EPSILON)),
        "random": lambda key, q, avail: any_available(key, avail, 1)[0],
    }
    out: dict[str, Array] = {}
    for name, act in policies.items():
        play = partial(rollout.on_device, player(act), n_slots=SLOTS)
        segments, _ = jax.vmap(play)(jax.random.split(next(keys), GAMES))
        found = measure_states(model, seed.params, segments)
        out |= {f"{name}.{k}": v for k, v in found.items()}
    if not with_play:
        return out

    # Ways to act.
    as_best: Act = lambda key, q, avail: greedy(q, avail)  # noqa: E731
    players = {
        "greedy": player(as_best),
        "lowest": player(lowest),
        "lowest_moving": player(lowest_moving),
        "largest_joint": player(as_best, largest_joint(model, seed.params)),
    }
    for name, each in players.items():
        won = evaluate.greedy_episodes(each, next(keys), EPISODES)["test_win_rate"]
        out[f"win_rate.{name}"] = won
    return out


def measure(folder: Path) -> Record:
    """Measure every seed of a finished run, before training and after it."""
    (job,) = run_folder.old_run(folder)[1]
    with learned.open_program(job) as program:
        trained = learned.newest(folder, job, program)
        if trained is None:
            raise SystemExit(f"{folder} has no checkpoint")
        lane, learner = trained.lane, program.learner
        keys = jax.vmap(jax.random.key)(lane.seed)
        states = {"start": program.init(lane).state.learner, "end": trained.carry.state.learner}
        found: dict[str, np.ndarray] = {}
        for when, state in states.items():
            each = Seed(acting(learner, state), lane.env_params, keys)
            of_one = partial(measure_seed, program, with_play=when == "end")
            numbers = jax.jit(lambda seeds, f=of_one: jax.lax.map(f, seeds))(each)
            found |= {f"{when}.{k}": np.asarray(v) for k, v in numbers.items()}
    lines = metrics_file.read(folder / METRICS_FILE)
    curve = np.array([line["test_win_rate"] for line in lines], float)  # [reports, seeds]
    end = found["end.win_rate.greedy"]
    stopped = np.asarray(trained.carry.state.stopped_at) >= 0
    collapsed = ~stopped & (end < COLLAPSED) & (last_quarter(curve).max(0) < COLLAPSED)
    timing = json.loads((folder / TIMING_FILE).read_text())
    return {
        "collapsed": wilson(int(collapsed.sum()), len(collapsed))._asdict(),
        "stopped": int(stopped.sum()),
        "timing": timing,
        "curve": {"step": [line["step"] for line in lines], "win_rate": curve},
        "seed": np.asarray(lane.seed),
        "per_seed": {"collapsed": collapsed, "stopped": stopped, **found},
    }


def acting(learner: Learner, state: object) -> Params:
    """What each lane plays with; leaves `[K, ...]`."""
    return jax.vmap(learner.acting)(state)


def last_quarter(curve: np.ndarray) -> np.ndarray:
    """The last quarter of the reports `[reports, seeds]`, at least one."""
    return curve[-max(1, len(curve) // 4) :]


def train(overrides: Sequence[str], folder: Path, tell: Callable[[str], None]) -> bool:
    """Train a condition, or go on with it; whether it is finished (False: interrupted)."""
    if folder.exists():
        jobs = run_folder.resumed_run(folder, "train")
    else:
        _, jobs = run_folder.new_run([*overrides, f"run_dir={folder}"])
    with execute.interruptible() as stopped:

        def on_report(job: object, report: execute.Report) -> None:
            won = report.metrics["test_win_rate"]
            low = f"{np.sum(won < COLLAPSED)} of {len(won)} seeds below {COLLAPSED:g}"
            now = f"median win rate {np.nanmedian(won):.2f}, {low}"
            tell(f"  {report.step:,} steps, {report.wall_s:.0f} s: {now}")

        watcher = Watcher(stop_early=stopped, on_report=on_report)
        for _ in execute.execute(folder, jobs, resume=True, watcher=watcher):
            pass
        return not stopped()


def groups(found: Record) -> dict[str, np.ndarray]:
    """The seeds that collapsed, that stopped on a value that is not finite, and all others.

    Returns:
      Masks `[seeds]` by name, without a group that has no seed.
    """
    collapsed, stopped = (np.array(found["per_seed"][k], bool) for k in ("collapsed", "stopped"))
    named = {"collapsed": collapsed, "others": ~collapsed & ~stopped, "stopped": stopped}
    return {name: mask for name, mask in named.items() if mask.any()}


def average(found: Record, name: str, mask: np.ndarray) -> str:
    """The mean of a number of each seed over the seeds of a group; a dash where none has it."""
    values = np.array(found["per_seed"][name], float)[mask]
    kept = values[np.isfinite(values)]
    return f"{kept.mean():.2f}" if len(kept) else "-"


def table(title: str, first: Sequence[str], numbers: Sequence[str]) -> Table:
    """An empty table: columns of words, then columns of numbers."""
    view = Table(title=title)
    for name in first:
        view.add_column(name, no_wrap=True)
    for name in numbers:
        view.add_column(name, justify="right")
    return view


def rates_table(conditions: dict[str, Record]) -> Table:
    """How many seeds collapsed, and what wins, a row per condition and group of seeds."""
    title = "Share of seeds that collapsed (95 % Wilson), and mean win rates"
    ways = ("greedy", "lowest", "lowest_moving", "largest_joint")
    headings = [way.replace("_", " ") for way in ways]
    view = table(title, ["condition"], ["seeds", *headings])
    for name, found in conditions.items():
        rate = found["collapsed"]
        span = f"{rate['rate']:.2f} ({rate['low']:.2f} to {rate['high']:.2f})"
        view.add_section()
        view.add_row(f"[bold]{name}[/]: {span}")
        for group, mask in groups(found).items():
            wins = [average(found, f"end.win_rate.{way}", mask) for way in ways]
            view.add_row(f"  {group}", str(mask.sum()), *wins)
    return view


def order_table(conditions: dict[str, Record]) -> Table:
    """How Q_tot follows the utilities, a row per condition, group of seeds and kind of states."""
    columns = {
        "∂Q>0 start": "start.{}.rising",
        "end": "end.{}.rising",
        "mean ∂Q start": "start.{}.slope",
        "end ": "end.{}.slope",
        "greedy is best": "end.{}.is_best",
        "regret": "end.{}.regret",
        "rank corr.": "end.{}.correlation",
    }
    view = table(
        "∂Q = ∂Q_tot/∂Q_i, and the order of Q_tot beside the utilities'; means over seeds",
        ["condition", "play"],
        list(columns),
    )
    for name, found in conditions.items():
        view.add_section()
        view.add_row(f"[bold]{name}[/]")
        for group, mask in groups(found).items():
            for who in ("own", "random"):
                cells = [average(found, key.format(who), mask) for key in columns.values()]
                view.add_row(f"  {group}", who, *cells)
    return view


def picture(conditions: dict[str, Record], path: Path) -> None:
    """Win-rate curves of all seeds, a panel per condition, and a last panel of all conditions."""
    n_columns = min(5, len(conditions) + 1)
    n_rows = -(-(len(conditions) + 1) // n_columns)
    size = (3.1 * n_columns, 2.9 * n_rows)
    figure, axes = plots.plt.subplots(
        n_rows, n_columns, figsize=size, squeeze=False, layout="constrained"
    )
    panels = axes.flat
    for name, found in conditions.items():
        draw_curves(next(panels), name, found)
    draw_scatter(next(panels), conditions)
    for unused in panels:
        unused.set_axis_off()
    plots.save(figure, path)


def draw_curves(ax: Axes, name: str, found: Record) -> None:
    """All seeds of a condition, collapsed ones in red."""
    steps = np.array(found["curve"]["step"]) / 1000
    for group, mask in groups(found).items():
        rates = np.array(found["curve"]["win_rate"], float)[:, mask]
        ax.plot(steps, rates, color="tab:red" if group == "collapsed" else "0.5", lw=0.9)
    rate = found["collapsed"]
    ax.set_title(f"{name}: {rate['successes']} of {rate['n']} collapsed", fontsize=9)
    ax.set(xlabel="1000 env steps a seed", ylabel="greedy win rate", ylim=(-0.03, 1.03))


def draw_scatter(ax: Axes, conditions: dict[str, Record]) -> None:
    """The share of ∂Q_tot/∂Q_i > 0 at the end against the win rate; a point is a seed."""
    palette = plots.plt.get_cmap("tab10")
    for k, (name, found) in enumerate(conditions.items()):
        seeds = found["per_seed"]
        rising, won = (
            np.array(seeds[key], float) for key in ("end.random.rising", "end.win_rate.greedy")
        )
        ax.scatter(rising, won, s=14, alpha=0.7, color=palette(k % 10), label=name)
    ax.set_title("all seeds", fontsize=9)
    ax.set(xlabel="share of ∂Q_tot/∂Q_i > 0, random play", ylabel="greedy win rate at the end")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.legend(fontsize=6)


def write(args: argparse.Namespace, conditions: dict[str, Record]) -> None:
    """Write the record and the picture of all conditions so far."""
    record = {
        "what": "NM-QMIX on SMAX 3m: how often seeds collapse, and the order of their utilities",
        "collapsed": f"greedy win rate < {COLLAPSED:g} over {EPISODES} episodes at the end, and in "
        "every report of the last quarter",
        "measured on": f"{GAMES} x {SLOTS} slots of the own policy (ε = {EPSILON:g}) and of random "
        "play, of agents with more than one available action",
        "shared": [*BATTLE, *REPORTS, *SEEDS],
        **about(),
        "command": "python benchmarks/nmqmix_collapse.py",
        "conditions": conditions,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, record)
    picture(conditions, args.out.with_suffix(".png"))


def overrides_of(name: str, extra: Sequence[str]) -> list[str]:
    """All overrides of a condition; later ones win."""
    last = {o.partition("=")[0]: o for o in [*BATTLE, *REPORTS, *SEEDS, *CONDITIONS[name], *extra]}
    return list(last.values())


def parse_args() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "nmqmix_collapse")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "nmqmix_collapse.json")
    parser.add_argument("--measure", action="store_true", help="measure again what is recorded")
    parser.add_argument(
        "overrides", nargs="*", default=[], help="for all conditions, such as seeds=2"
    )
    return parser.parse_args()


def main() -> None:
    """Train and measure each condition, write the record after it, and print the tables."""
    args, console = parse_args(), Console()
    sharding.use_all_cores()  # as the command line does, before JAX starts
    compilation_cache.set_up(OutputOptions())
    tell = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    known = json.loads(args.out.read_text())["conditions"] if args.out.exists() else {}
    conditions = {k: v for k, v in known.items() if k in CONDITIONS}
    for name in args.conditions:
        overrides = overrides_of(name, args.overrides)
        if conditions.get(name, {}).get("overrides") == overrides and not args.measure:
            continue
        # Other settings have another folder, so that a run never goes on with settings not its own.
        digest = hashlib.sha256(shlex.join(overrides).encode()).hexdigest()[:8]
        folder = args.runs / f"{name.replace(' ', '_').replace(',', '')}_{digest}"
        tell(f"{name}: {folder}")
        if not train(overrides, folder, tell):
            tell("interrupted; the same command goes on")
            break
        conditions[name] = {"overrides": overrides, **measure(folder)}
        conditions = {k: conditions[k] for k in CONDITIONS if k in conditions}  # in their order
        write(args, conditions)
        conditions = json.loads(args.out.read_text())["conditions"]
    if conditions:
        console.print(rates_table(conditions))
        console.print(order_table(conditions))


if __name__ == "__main__":
    main()
