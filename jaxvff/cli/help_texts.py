"""The help: what is said of options is made from their fields (jaxvff.core.options)."""

from __future__ import annotations

import textwrap

from jaxvff.core.options import Option, options_of
from jaxvff.settings.config import COMPONENTS, config_names
from jaxvff.settings.diagnosis import DiagnosisOptions

WIDTH = 100

GENERAL = """\
jaxvff: value-function factorisation for cooperative multi-agent Q-learning in JAX

usage: jaxvff <command> [key=value ...]

  train                  train a method for many seeds at once, show what it learned
  evaluate run=<folder>  greedy evaluation of a trained run, from its checkpoint
  diagnose run=<folder>  is the greedy joint action the best one, by the run's own joint value?
  export run=<folder>    the agents of a seed as files that act without this package (docs/api.md)
  record run=<folder>    episodes of a trained run as a file, for train offline=<file>
  report <folder> ...    a page about runs: curves, scores, comparisons, as one HTML file
  reproduce table1       the paper's Table 1: eight methods, two games, 256 seeds
  reproduce smax         the paper's comparison on SMAX's versions of its three maps
  stability game=a       zero-loss points, spectra, flows, escapes, the paper's theorems
  plan train shards=8    a run for several workers; then work, status, merge (docs/scale.md)
  bench                  throughput, compile time and memory on this machine
  compile for=tpu-v5e:2x2   what a training program needs of a TPU, without one

first runs
  jaxvff train                                       NM-QMIX on the paper's Game A, 32 seeds
  jaxvff train method=qmix env=matrix/b seeds=64     another method, another game
  jaxvff train method=qmix env=smax/3m               SMAX, learning curves of four seeds
  jaxvff train env=grf/academy_3_vs_1_with_keeper    football, in worker processes (docs/host.md)
  jaxvff train 'sweep.epsilon_end=[0.1,0.3,1.0]'     a sweep, as one compiled program
  jaxvff train resume=runs/<folder>                  go on where a run was interrupted

`jaxvff <command> --help` lists the keys of a command. --debug shows the traceback of a fault.
"""

TRAIN = """\
usage: jaxvff train [key=value ...]          (Hydra overrides)
       jaxvff train resume=<run folder> [total_steps=<more>] [trust=true]

{keys}
  sweep.<key>=[...]   any key; those marked * (and payoffs) share one compiled program
Defaults, units, ranges and what each key does: docs/configuration.md. Ctrl-C saves a checkpoint.
"""

EVALUATE = """\
usage: jaxvff evaluate run=<run folder> [eval_episodes=<n>]
                       [render=true|mp4 [seed=<n>] [episodes=1]] [trust=true]

Restores the newest checkpoint, plays greedily, and prints what was learned: for matrix games the
learned table of the median seed and the shares of seeds. Without render no file changes.
eval_episodes= plays another number of episodes a seed than the run has in its reports.
A run that names code (env.entry=, env.python=) is refused without trust=true: docs/runs.md.

render=true also writes greedy_*.gif there, the first greedy episodes of a seed (default: the first)
of each sweep value, and says how they ended. SMAX, MPE, overcooked and football can be drawn.
render=mp4 writes MP4 files instead of GIFs, and needs the extra `mp4` (imageio-ffmpeg).
"""

DIAGNOSE = """\
usage: jaxvff diagnose run=<run folder> [key=value ...] [trust=true]

Asks of every seed, from the newest checkpoint: does the greedy joint action (each agent's largest
utility) maximise the joint value that the method has learned? In which share of states, with which
regret, and which agent orders its actions wrongly? A table, and diagnosis.json and diagnosis.png
in the run folder. For games on the device.

{keys}
The joint value is Q_tot; of qtran Q_jt, of ordered_joint the value that it searches; ordered_nmqmix
and weighted QMIX have two, a row for each. iql has none, and is refused. Without trust=true, so is
a run that names code (docs/runs.md).
"""

EXPORT = """\
usage: jaxvff export run=<run folder> to=<new folder> [seed=<n>] [<swept key>=<value>] [trust=true]

Writes the agents of one seed (default: the first) from the newest checkpoint, as they act greedily:
  policy.json           sizes, the layout of what an agent sees, names of actions, where it is from
  agents.safetensors    their parameters; agent_<i>.safetensors where each has its own
  agents.jax_export     the same as a StableHLO program (jax.export.deserialize)
  act.py                acts with NumPy alone: Team(folder).act(obs, avail)
In Python: jaxvff.load_policy(folder), policy.reset(n), policy.act(obs, avail). A run begins with
such a policy by init_from=<folder>. Of a sweep, name one value: lr=1e-3. Methods whose agents wait
for a draw of the whole team (maven) are refused.
"""

RECORD = """\
usage: jaxvff record run=<run folder> to=<new file>.npz episodes=<n> [key=value ...]

Plays whole episodes with the agents of one seed, from the newest checkpoint, and writes them with a
schema (docs/api.md). jaxvff train offline=<file> learns from them and collects nothing.

  epsilon=0      share of uniformly random actions; 0: greedy play
  seed=<n>       of the run, default the first; of a sweep also one value: lr=1e-3
  play_seed=0    of the games and the random actions
  trust=true     for a run that names code (docs/runs.md)
"""

REPRODUCE = """\
usage: jaxvff reproduce table1|smax|smax_suite|smax_cpu|random_games [key=value ...]
       jaxvff reproduce beyond|contextual|steps|predator_prey|coordination [key=value ...]
       jaxvff reproduce football_ladder|football [key=value ...]
       jaxvff reproduce <the same> resume=<run folder>

table1: trains NM-QMIX, QMIX, VDN, QPLEX, QTRAN, Qatten, CW-QMIX and OW-QMIX on Games A and B for
256 seeds each and prints rates with intervals, the paper's own table beside them. Writes
table1.json and table1.png into the run folder (run_dir=). Keys as for train, but method= and env=.

smax: VDN, QMIX, NM-QMIX with SARSA(λ) and RND, QPLEX, QTRAN, IQL and ordered_joint, six seeds each,
on 3s_vs_5z, 3s5z_vs_3s6z and corridor with SMAC's time limits; curves.png as the paper's Fig. 1.
smax_suite: VDN and QMIX on eleven maps. Both say how long they take here before they start.

random_games: nine methods at three exploration levels on 1,000 random 3x3 games; rates.png.

beyond: the two ordered methods beside all others on Games A and B, their negatives, climbing,
penalty, and random games of 2 agents with 3 actions and of 3, 4 and 6 agents with 5, with uniform
exploration; ordered_joint for 512 seeds of the 3x3 games, 64 of the others; rates.png.
contextual: the same methods on 192 games a seed, told apart by features. steps: on games of several
steps. predator_prey: on a small board with two penalties for hunting alone. coordination: games of
several steps, predator-prey and foraging without replay, all methods; a night on two cores.

smax_cpu: all eleven methods on 3m, five seeds each; over two hours on a CPU.

football_ladder: QMIX on five eased tasks of Google Research Football, from an empty goal to three
against one (docs/host.md says what is eased). football: the paper's Fig. 2, six methods on an eased
3_vs_1 and on its three tasks as published. Both need the extra `grf`, and say how long they take.
"""

STABILITY = """\
usage: jaxvff stability [claims] [key=value ...]

Asks of a matrix game and a mixer with tabular utilities: where the zero-loss points are, what the
spectrum of the loss is there, whether trajectories leave them, where random starts end, what
re-ordering two actions costs; and holds the paper's theorems against the figures. `claims` answers
only what the theorems need. A JSON and a PNG for each question in the run folder.

  game=        a b climbing penalty random (n_agents= n_actions= game_seed=)
  payoff=[[1,0],[0,2]]   or file=payoff.npy (or .yaml, .json)
  mixer=       nmqmix | qmix | vdn     embed_dim=8  units of the mixing layer   init_scale=1
               fixed_mixer=true: only the utilities move, as the paper's q
  points=200   zero-loss points, half of them IGM-consistent     seed=0
  temperatures=[0.1,0.3,1,3]           of the softmax policy     epsilon=0.1  of the others
  starts=24 time=200 solver=kvaerno5|kvaerno3|tsit5              flows
  noise=0.01   distance from a zero-loss point of flows and of the stochastic algorithm
  optimizer=adam|rmsprop|radam|sgd lr=1e-3 updates=5000 lanes=256   stochastic algorithm
  run_dir=     a new folder; default runs/<date>_stability_<game>
"""

BENCH = """\
usage: jaxvff bench ['lanes=[1,64,512]'] [seconds=5] [key=value ...]

Times the compiled training program: init, compile, seed-steps per second in the steady state,
bytes of state and of its main part per seed. Keys as for train.
"""

COMPILE = """\
usage: jaxvff compile for=tpu-<chips> [key=value ...]     chips: v4, v5e, v5p or v6e and a layout

Compiles the training program ahead of time for TPUs that are not here, such as for=tpu-v5e:2x2 or
for=tpu-v5p:2x2x1, and says for one device: bytes of a lane, lanes that fit, and how long an
iteration takes at least by its matrix products and its memory traffic (the chip's published peaks)
and by XLA's own estimate, which leaves out gathers and scatters.
Needs libtpu (the extra tpu). Keys as for train.
"""

PLAN = """\
usage: jaxvff plan train shards=<n> [key=value ...]
       jaxvff plan reproduce <name> shards=<n> [key=value ...]

Writes what `train` or `reproduce` would train here as a plan, cut into n shards, and trains
nothing. A shard is some of the seeds (or sweep values) of a run. On every machine that sees the
folder (run_dir=) jaxvff work <folder> trains them; docs/scale.md.
"""

WORK = """\
usage: jaxvff work <folder> [wait=false] [retry=true] [trust=true]
       jaxvff work <folder> processes=auto       on every host of a TPU pod

Takes the next free shard of a plan until none is left, and goes on with those whose worker is dead.
Start as many as you like, on any machine that sees the folder; kill them, add more.

  wait=false    end when no shard is free, though others may yet leave theirs
  retry=true    take shards that failed, too, each once
  plan=<id>     refuse another plan than this one
  processes=<n> process=<i> coordinator=<host>:<port>   one of n JAX processes that start together;
                auto: JAX asks the pod or the cluster. Each trains its slice; process 0 merges
Ctrl-C, SIGTERM and SIGUSR2 (Slurm's warning) save a checkpoint and free the shard.
"""

STATUS = """\
usage: jaxvff status <folder>

How many shards of a plan are done, running, waiting, stopped (free, with a checkpoint), stale (the
worker is dead) or failed, and for those that are not: where, since when, how far, and why.
"""

MERGE = """\
usage: jaxvff merge <folder> [checkpoint=true] [trust=true]

Makes of the shards of a plan what one machine would have given: metrics.jsonl, tables, curves and
JSON, in the folder of the plan. Refuses shards that are missing, damaged, of other versions or of
another plan, and seeds that are missing or there twice. May be repeated.

  checkpoint=true   also joins the checkpoints: evaluate run= and train resume= take the folder then
"""

LAUNCH = """\
usage: jaxvff launch <folder> on=local [workers=<n>]
       jaxvff launch <folder> on=slurm time=<minutes> [workers=<n>] [partition=<name>] ...
       jaxvff launch <folder> on=ray [workers=<n>] [address=auto] [cpus=<n>] [gpus=<n>]

Starts workers for a plan (docs/scale.md). retry=true takes failed shards again; trust=true as for
work. What they print is in <folder>/logs.

local: a process a GPU, with more workers= several; without a GPU workers=1 that share the cores.
  One that is killed is replaced; Ctrl-C has all of them save a checkpoint and ends.
slurm: an array of jobs, by submitit (the extra slurm); this command ends when they are queued.
  time= is Slurm's limit in minutes; warn= seconds before it (default 120) a job saves a
  checkpoint and is queued again, at most requeue=100 times.
  workers=16 partition= account= qos= constraint= cpus= (per job, default 1) gpus= (0) memory= (GB)
ray: tasks on a Ray cluster, which may grow and shrink (the extra ray). workers=16 at most at a
  time, cpus=1 gpus=0 for each; address= of the cluster.
"""

REPORT = """\
usage: jaxvff report <run folder or file of records> ... [out=report] [key=value ...]

Writes <out>/index.html, a page by itself: what was run and how the settings differ, learning curves
(IQM over seeds, 95 % bootstrap interval; each seed on demand), final scores, performance profiles,
probabilities of improvement, rates and payoff tables of matrix games, what failed, and how long it
took. Runs that differ in their seeds alone are shown as one. Needs the extra `report` (jinja2).

  out=report      the folder of the page; an older page there is replaced
  curves=loss,grad_norm    metrics of metrics.jsonl to draw besides the usual ones
  score=test_return        what methods are compared by; default: win rate, else return
  watch=true      serve the page at 127.0.0.1 and renew it while runs go on; Ctrl-C ends it
  port=8000 every=5        where, and how often runs are looked at, in seconds
"""

TEXTS = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "diagnose": DIAGNOSE,
    "export": EXPORT,
    "record": RECORD,
    "reproduce": REPRODUCE,
    "stability": STABILITY,
    "bench": BENCH,
    "compile": COMPILE,
    "plan": PLAN,
    "work": WORK,
    "status": STATUS,
    "merge": MERGE,
    "launch": LAUNCH,
    "report": REPORT,
}


def of(command: str) -> str:
    """The help of a command, or that of the command line as a whole."""
    text = TEXTS.get(command, GENERAL)
    listed = {"train": keys, "diagnose": diagnosis_keys}.get(command)
    return text.replace("{keys}", listed()) if listed else text


def diagnosis_keys() -> str:
    """The keys of `diagnose`, a paragraph each, with defaults and what they mean."""
    rows = [
        (f"{o.name}={o.default}", "; ".join([o.about.help, "|".join(o.about.names)]).rstrip("; "))
        for o in options_of(DiagnosisOptions)
    ]
    indent = 2 + max(len(key) for key, _ in rows) + 2
    return "\n".join(
        textwrap.fill(
            f"{key:<{indent - 2}}{text}", WIDTH, initial_indent="  ", subsequent_indent=" " * indent
        )
        for key, text in rows
    )


def keys() -> str:
    """The keys of `train`: methods, environments, and the options of each component."""
    names = config_names("env")
    maps = " ".join(n.split("/")[1] for n in names if n.startswith("smax/"))
    games = " ".join(
        n for n in names if n.startswith(("matrix", "contextual", "predator_prey", "foraging"))
    )
    rows = [
        ("method=", " ".join(config_names("method")) + "   method.<option>="),
        ("env=", f"{games}   env.<option>="),
        (
            "",
            "jaxmarl/simple_spread jaxmarl/switch_riddle jaxmarl/overcooked   smax/<map>: " + maps,
        ),
        (
            "",
            "grf/<scenario> grf_eased/<..> smac/<map> smacv2/<race>_5_vs_5 smaclite/<map> custom",
        ),
    ]
    for component in COMPONENTS:
        title = component.__name__.removesuffix("Options").lower()
        rows.append((title, " ".join(map(_key, options_of(component)))))
    return "\n".join(_row(*row) for row in rows)


def _key(option: Option) -> str:
    """`name=`, with the values of a choice; a star marks what is traced."""
    values = "|".join(option.about.names)
    return f"{option.name}={values}{'*' * option.about.traced}"


def _row(title: str, text: str) -> str:
    indent = 2 + 14
    wrapped = textwrap.fill(text, WIDTH - indent, break_long_words=False, break_on_hyphens=False)
    return f"  {title:<14}" + wrapped.replace("\n", "\n" + " " * indent)
