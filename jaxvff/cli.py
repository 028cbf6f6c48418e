"""jaxvff train | evaluate | reproduce | stability | bench."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

# Before JAX starts: quiet the warnings about accelerators that a CPU build does not have.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

HELP = """\
jaxvff: value-function factorisation for cooperative multi-agent Q-learning in JAX

usage: jaxvff <command> [key=value ...]

  train                  train a method for many seeds at once, show what it learned
  evaluate run=<folder>  greedy evaluation of a trained run, from its checkpoint
  reproduce table1       the paper's Table 1: eight methods, two games, 256 seeds
  reproduce smax         the paper's comparison on SMAX's versions of its three maps (for a GPU)
  stability game=a       zero-loss points, spectra, flows, escapes, the paper's theorems
  bench                  throughput, compile time and memory on this machine

first runs
  jaxvff train                                       NM-QMIX on the paper's Game A, 32 seeds
  jaxvff train method=qmix env=matrix/b seeds=64     another method, another game
  jaxvff train method=qmix env=smax/3m               SMAX, learning curves of four seeds
  jaxvff train env=grf/academy_3_vs_1_with_keeper    football, in worker processes (docs/host.md)
  jaxvff train 'sweep.epsilon_end=[0.1,0.3,1.0]'     a sweep, as one compiled program
  jaxvff train resume=runs/<folder>                  go on where a run was interrupted

`jaxvff <command> --help` lists the keys of a command.
"""

KEYS = """\
  method=      {methods}   method.<option>=
  env=         matrix/a matrix/b matrix/minus_a matrix/minus_b matrix/climbing matrix/penalty
               matrix/random   env.n_agents= env.n_actions= env.game_seed=
               matrix/file     env.file=payoff.npy (or .yaml, .json)
               matrix_steps/two_step matrix_steps/maven matrix_steps/chain
               contextual   env.noise= env.states=     predator_prey   env.penalty=
               smax/<map>      {maps}
                               env.time_limit=100|smac env.reward_scale= env.scale_state=
               jaxmarl/simple_spread jaxmarl/switch_riddle jaxmarl/overcooked
               grf/<scenario> smac/<map> smacv2/<race>_5_vs_5 smaclite/<map>     games on the host,
               custom  env.entry=package.module:function env.time_limit=         see docs/host.md
  seeds= how many, side by side     seed= the first     total_steps= env steps per seed
  lr= gamma= optimizer=adam|rmsprop|radam|sgd grad_clip= batch_size= buffer_size= updates=
  target=      sarsa (taken action) | max (target network) | double (online network) | search
  bonus=       none | rnd (bonus_beta= rnd_dim= rnd_lr=)
  replay=      uniform | prioritised (priority_exponent= importance_exponent=)
  returns=     td_lambda (td_lambda=) | n_step (n_step=) | one_step
  explore=     epsilon_greedy (epsilon_start= epsilon_end= epsilon_steps=) | softmax (temperature=)
  utility=     mlp | gru    hidden_dim= shared= agent_id= last_action= init_scale=
  run_dir=     a new folder; default runs/<date>_<method>
  tensorboard=true   wandb=<project>   curves there, too, every seed apart
  sweep.<key>=[...]   any key; lr, gamma, td_lambda, epsilon_*, temperature, target_tau, init_scale,
               bonus_beta, rnd_lr and payoffs share one compiled program
"""

TRAIN = """\
usage: jaxvff train [key=value ...]          (Hydra overrides)
       jaxvff train resume=<run folder> [total_steps=<more>]

{keys}
checkpoint_interval=<env steps> saves on the way; Ctrl-C always does. All keys with units and
ranges: docs/configuration.md. Results in the run folder: config.yaml, metrics.jsonl, table.json,
table.png, curves.png, checkpoint/.
"""

EVALUATE = """\
usage: jaxvff evaluate run=<run folder> [render=true [seed=<n>] [episodes=1]]

Restores the newest checkpoint, plays greedily, and prints what was learned: for matrix games the
learned table of the median seed and the shares of seeds. Without render no file changes.

render=true also writes greedy_*.gif there, the first greedy episodes of a seed (default: the first)
of each sweep value, and says how they ended. SMAX, MPE, overcooked and football can be drawn.
"""

REPRODUCE = """\
usage: jaxvff reproduce table1|smax|smax_cpu|random_games [key=value ...]
       jaxvff reproduce beyond|contextual|steps|predator_prey [key=value ...]
       jaxvff reproduce <the same> resume=<run folder>

table1: trains NM-QMIX, QMIX, VDN, QPLEX, QTRAN, Qatten, CW-QMIX and OW-QMIX on Games A and B for
256 seeds each and prints rates with intervals, the paper's own table beside them. Writes
table1.json and table1.png into the run folder (run_dir=). Keys as for train, but method= and env=.

smax: QMIX, NM-QMIX with SARSA(λ) and RND, QPLEX, QTRAN and VDN, five seeds each, on 3s_vs_5z,
corridor and 3s5z_vs_3s6z with SMAC's time limits; curves.png as the paper's Fig. 1. For a GPU.

random_games: nine methods at three exploration levels on 1,000 random 3x3 games; rates.png.

beyond: the two ordered methods beside all others on Games A and B, their negatives, climbing,
penalty, and random games of 2 agents with 3 actions and of 3, 4 and 6 agents with 5, with uniform
exploration; ordered_joint for 512 seeds of the 3x3 games, 64 of the others; rates.png.
contextual: the same methods on 192 games a seed, told apart by features. steps: on games of several
steps. predator_prey: on a small board with two penalties for hunting alone.

smax_cpu: all eleven methods on 3m, five seeds each; over two hours on a CPU.
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
bytes of state and of replay per seed. Keys as for train.
"""


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 2 for a mistake in the arguments."""
    args = sys.argv[1:] if argv is None else argv
    help_texts = {"train": TRAIN, "evaluate": EVALUATE, "reproduce": REPRODUCE, "bench": BENCH,
                  "stability": STABILITY}  # fmt: skip
    if not args or args[0] in ("-h", "--help", "help"):
        print(HELP, end="")
        return 0
    command, rest = args[0], args[1:]
    if command in help_texts and any(a in ("-h", "--help") for a in rest):
        from jaxvff.config import config_names

        maps = " ".join(n.split("/")[1] for n in config_names("env") if n.startswith("smax/"))
        methods = _wrapped(" ".join(config_names("method")), 15)
        keys = KEYS.replace("{methods}", methods).replace("{maps}", _wrapped(maps))
        print(help_texts[command].replace("{keys}", keys), end="")
        return 0
    if command == "--version":
        from jaxvff import __version__

        print(__version__)
        return 0
    if command not in help_texts:
        return _fail(f"unknown command {command!r}; choose one of {', '.join(help_texts)}")
    if bad := [a for a in rest if "=" not in a and not _is_name(command, a, rest)]:
        return _fail(f"{bad[0]!r} is no key=value; see jaxvff {command} --help")
    return _run(command, rest)


def _is_name(command: str, argument: str, rest: list[str]) -> bool:
    """Whether an argument without = is one: what to reproduce, or `stability claims`."""
    first = argument == rest[0]
    return first and (command == "reproduce" or (command, argument) == ("stability", "claims"))


def _run(command: str, rest: list[str]) -> int:
    from jaxvff.types import UserError

    try:
        from jaxvff import commands, sharding

        sharding.use_all_cores()
        return int(commands.COMMANDS[command](rest))
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("jaxvff: stopped; what was written is kept", file=sys.stderr)
        return 130
    except OSError as error:
        name = f" ({Path(error.filename)})" if error.filename else ""
        return _fail(f"{error.strerror or error}{name}; results written before are kept", code=1)


def _wrapped(names: str, indent: int = 31) -> str:
    return textwrap.fill(names, 72).replace("\n", "\n" + " " * indent)


def _fail(message: str, code: int = 2) -> int:
    print(f"jaxvff: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
