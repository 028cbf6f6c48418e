"""Bad inputs: each gets a line that names the value, what is expected and the remedy.

The table holds command lines and what their message has to say. Files that they name are made in
the folder they run in.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.lab import questions
from jaxvff.runs import execute

Mistake = tuple[str, ...]  # a command line, and what its message has to contain

FILE = "train env=matrix/file env.file="
PAYOFF = "train env=matrix/file 'env.payoff="  # up to the closing quote
NAMES_AND_FORMS: list[Mistake] = [
    # Keys
    ("train foo=1", "unknown key 'foo'", "seeds"),
    ("train lrr=1", "unknown key 'lrr'", "did you mean lr"),
    ("train LR=1", "unknown key 'LR'", "choose one of"),
    ("train größe=1", "unknown key 'größe'", "seeds"),
    ("train lr.x=1", "lr.x: lr is one value and has no x", "write lr=<value>"),
    ("train seeds.0=1", "seeds is one value", "write seeds=<value>"),
    ("train traced=1", "unknown key 'traced'", "target"),
    ("train =5", "has no key", "key=value"),
    ("train .=5", "has no key", "key=value"),
    ("train env.=3", "env.=3", "key=value"),
    ("train ' =3'", "' =3' has no key", "key=value"),
    ("train 'l r=3'", "'l r=3' has a key that is none", "key=value"),
    ("train lr", "is no key=value", "--help"),
    ("train env.game.x=3", "game is one value and has no x",),
    ("train foo/bar=1", "has a key that is none", "key=value"),
    # Values that are missing
    ("train lr=", "'lr=' has no value", "write lr=<value> or leave lr out"),
    ("train wandb=", "'wandb=' has no value", "leave wandb out"),
    ("train run_dir=", "has no value", "leave run_dir out"),
    ("train env=", "'env=' has no value", "write env=<value>"),
    (FILE, "'env.file=' has no value", "write env.file=<value>"),
    ("train resume=", "resume= has no value", "resume=<value>"),
    ("evaluate run=", "run= has no value", "run=<value>"),
    ("bench lanes=", "lanes= has no value", "lanes=<value>"),
    ("train 'lr= '", "has no value", "lr=<value>"),
    # Hydra's own grammar
    ("train +lr=1", "'+lr=1'", "write lr=<value>"),
    ("train ++lr=1", "'++lr=1'", "write lr=<value>"),
    ("train ~lr=1", "'~lr=1'", "write lr=<value>"),
    ("train env@foo=matrix/a", "env@foo", "write env=<value>"),
    ("train hydra.run.dir=x", "'hydra.run.dir=x' changes nothing", "run_dir="),
    ("train hydra/launcher=x", "sweep.<key>=[...]", "jaxvff launch"),
    ("train hydra=x", "changes nothing", "run_dir="),
    ("train 'lr=${gamma}'", "'lr=${gamma}' refers to another value", "write the value itself"),
    ("train 'run_dir=${oc.env:HOME}/r'", "refers to another value", "write the value itself"),
    ("train 'sweep.lr=[${gamma}]'", "refers to another value", "write the value itself"),
    ("train seeds=1,2", "has several values", "sweep.seeds=[...]"),
    ("train 'lr=range(1,3)'", "has several values", "sweep.lr=[...]"),
    ("train 'lr=choice(1,2)'", "has several values", "sweep.lr=[...]"),
    ("train run_dir=a,b", "has several values", "quote a text with a comma"),
    ("train 'lr=[1'", "'lr=[1' cannot be read", "key=value"),
    ("train 'lr={a:'", "cannot be read", "key=value"),
    ("train \"lr='1\"", "cannot be read", "key=value"),
    # Twice
    ("train lr=1e-3 lr=1e-4", "lr= is given twice, lr=1e-3 and lr=1e-4", "keep one"),
    ("train lr=1e-3 lr=1e-3", "lr= is given twice", "keep one"),
    ("train env=matrix/a env=matrix/b", "env= is given twice", "keep one"),
    ("train method=qmix method=vdn", "method= is given twice", "keep one"),
    ("train env.game=a env.game=b", "env.game= is given twice", "keep one"),
    ("train 'sweep.lr=[1e-3]' 'sweep.lr=[1e-4]'", "sweep.lr= is given twice", "keep one"),
    ("train 'sweep.lr=[0.1,0.1]'", "has 0.1 twice", "each value once"),
    ("train 'sweep.lr=[1,1.0]'", "has 1.0 twice", "each value once"),
    ("train 'sweep.method=[qmix,vdn,qmix]'", "has 'qmix' twice", "each value once"),
    ("train lr=1 'sweep.lr=[1,2]'", "lr is set and swept", "keep"),
    ("train 'env.kwargs={a: 1}' env.kwargs.a=2", "env.kwargs.a=2 is a part of", "keep one"),
    ("train resume=a resume=b", "resume= is given twice, resume=a and resume=b", "keep one"),
    ("evaluate run=a run=b", "run= is given twice", "keep one"),
    ("evaluate run=a seed=1 seed=2", "seed= is given twice", "keep one"),
    ("bench 'lanes=[1]' 'lanes=[2]'", "lanes= is given twice", "keep one"),
    ("bench lr=1e-3 lr=1e-4", "lr= is given twice", "keep one"),
    ("stability seed=1 seed=2", "seed= is given twice", "keep one"),
    ("reproduce table1 seeds=1 seeds=2", "seeds= is given twice", "keep one"),
    (
        "reproduce beyond 'sweep.method=[qmix]' 'sweep.method=[vdn]'",
        "sweep.method= is given twice",
        "keep one",
    ),
    # Sweeps
    ("train sweep.lr=3", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("train sweep.lr=1,2", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep.lr=[]'", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep.lr={a: 1}'", "needs a list", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep.lr=[1e-3'", "cannot be read", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep.=[1,2]'", "has no key", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep=[1,2]'", "has no key", "sweep.lr=[1e-3,1e-4]"),
    ("train 'sweep.lrr=[1,2]'", "unknown key 'lrr'", "did you mean lr"),
    ("train 'sweep.gamma=[0.9,1.9]'", "gamma=1.9 is out of range", "[0, 1]"),
    ("train 'sweep.lr=[1e-3,true]'", "lr=true must be a number", "0.001"),
    ("train 'sweep.lr=[1e-3,[1]]'", "lr=[1] must be a number", "0.001"),
    ("train 'sweep.utility=[mlp,rnn]'", "utility='rnn' is unknown", "did you mean"),
    ("train 'sweep.run_dir=[a,b]'", "sweep.run_dir is no sweep", "one value"),
    ("train 'sweep.seeds=[1,2]'", "sweep.seeds is no sweep", "one value"),
    ("train 'sweep.wandb=[a,b]'", "sweep.wandb is no sweep", "one value"),
    ("train 'sweep.method=[qmix,qqmix]'", "method=qqmix is unknown", "qmix"),
    ("train 'sweep.method=[[qmix]]'", "is no name", "sweep.method=[one,two]"),
    ("train 'sweep.env=[1,2]'", "1 is no name", "sweep.env=[one,two]"),
    ("train +sweep.lr=[1]", "'+sweep.lr=[1]'", "write sweep.lr=<value>"),
    # Names
    ("train method=qmxi", "method=qmxi is unknown", "did you mean qmix"),
    ("train method=QMIX", "method=QMIX is unknown", "qmix"),
    ("train method=5", "takes one name", "sweep.method"),
    ("train method=null", "takes one name", "sweep.method"),
    ("train 'method=[qmix,vdn]'", "takes one name", "sweep.method"),
    ("train 'env={kind: matrix}'", "takes one name", "sweep.env"),
    ("train env=matrix/c", "env=matrix/c is unknown", "matrix/"),
    ("train env=matrix/base", "env=matrix/base is unknown", "did you mean matrix/"),
    ("train env=../env/matrix/a", "env=../env/matrix/a is unknown", "matrix/a"),
    ("train env=matrix", "env=matrix is unknown", "matrix/"),
    ("train env=nothing", "env=nothing is unknown", "matrix/a"),
    ("train env.kind=matrx", "env.kind='matrx' is unknown", "matrix"),
    ("train method.name=vdm", "method='vdm' is unknown", "vdn"),
    ("train target=best", "target='best' is unknown", "sarsa"),
    ("train optimizer=adamw", "optimizer='adamw' is unknown", "adam"),
    ("train optimizer=5", "optimizer='5' is unknown", "adam"),
    ("train utility=true", "utility='true' is unknown", "mlp"),
    ("train bonus=null", "bonus=null must be a text", "none"),
    ("train 'env.game=[a]'", "env.game=['a'] is unknown", "climbing"),
    ("train env.game=d", "env.game='d' is unknown", "climbing"),
    ("train method.embed_dm=3", "method.embed_dm is no option of nmqmix", "did you mean embed_dim"),
    ("train method.monotonic=true", "method.monotonic is no option", "embed_dim"),
    ("train method=vdn method.embed_dim=8", "no option of vdn", "it takes none"),
    ("train env.foo=1", "env.foo is no option of matrix", "choose one of game"),
    ("train env.gam=a", "env.gam is no option of matrix", "did you mean game"),
    ("train env=contextual env.file=x", "env.file is no option of contextual", "features"),
]  # fmt: skip
TYPES_AND_RANGES: list[Mistake] = [
    ("train lr=fast", "lr='fast' must be a number", "0.001"),
    ("train lr=true", "lr=true must be a number", "0.001"),
    ("train lr=null", "lr=null must be a number", "0.001"),
    ("train 'lr=[1,2]'", "lr=[1, 2] must be a number", "0.001"),
    ("train 'lr=1e-3#x'", "lr='1e-3#x' must be a number", "0.001"),
    ("train 'lr=0,001'", "has several values", "sweep.lr"),
    ("train lr=1e-3s", "lr='1e-3s' must be a number", "0.001"),
    ("train seeds=true", "seeds=true must be a whole number", "32"),
    ("train seeds=False", "seeds=false must be a whole number", "32"),
    ("train seeds=1.5", "seeds=1.5 must be a whole number", "32"),
    ("train seeds=many", "seeds='many' must be a whole number", "32"),
    ("train seeds=0x10", "seeds='0x10' must be a whole number", "32"),
    ("train seeds='\"4\"'", "seeds='4' must be a whole number", "32"),
    ("train total_steps=1e6", "total_steps=1000000.0 must be a whole", "such as 1000000"),
    ("train shared=3.7", "shared=3.7 must be true or false", "true"),
    ("train shared=1", "shared=1 must be true or false", "true"),
    ("train shared=yes", "shared='yes' must be true or false", "true"),
    ("train tensorboard=5", "tensorboard=5 must be true or false", "such as false"),
    ("train tensorboard=null", "tensorboard=null must be true or false", "such as false"),
    ("train tensorboard=runs", "tensorboard='runs' must be true or false", "such as false"),
    ("train compilation_cache=off", "compilation_cache='off' must be true or false", "true"),
    ("train wandb=true", "wandb=true is no name", "wandb=<name>"),
    ("train wandb=True", "wandb=true is no name", "wandb=null for none"),
    ("train 'wandb=[a]'", "wandb=['a'] must be a text"),
    ("train run_dir=true", "run_dir=true is no name", "run_dir=<name>"),
    ("train 'run_dir={a: 1}'", "run_dir={'a': 1} must be a text"),
    ("train method.embed_dim=x", "method.embed_dim='x' must be a whole number", "32"),
    ("train method.embed_dim=true", "method.embed_dim=true must be a whole number", "32"),
    ("train method.embed_dim=8.0", "method.embed_dim=8.0 must be a whole number", "such as 8"),
    ("train method=qtran method.opt_weight=x", "method.opt_weight='x' must be a number", "1"),
    ("train env=matrix/random env.n_agents=2.5", "env.n_agents=2.5 must be a whole number", "[2, "),
    ("train env=matrix/random env.n_agents=null", "env.n_agents=null must be a whole", "[2, "),
    ("train env=matrix/random env.n_agents=true", "env.n_agents=true must be a whole", "[2, "),
    ("train env=matrix/random env.n_actions=x", "env.n_actions='x' must be a whole number", "[2, "),
    ("train env=matrix/random env.game_seed=1.5", "env.game_seed=1.5 must be a whole", "[0, "),
    ("train env=contextual env.noise=true", "env.noise=true must be a number", "such as 0"),
    ("train env=contextual env.states=x", "env.states='x' must be a whole number", "192"),
    ("train env=predator_prey env.time_limit=true", "env.time_limit=true must be", "200"),
    ("train 'sweep.env.game_seed=[0,x]' env=matrix/random", "env.game_seed='x' must be", "[0, "),
    ("train env=matrix/file 'sweep.env.file=[1,2]'", "env.file=1 must be a text"),
    ("stability lr=true", "lr=true must be a number", "0.001"),
    ("stability points=1.5", "points=1.5 must be a whole number", "200"),
    ("stability fixed_mixer=5", "fixed_mixer=5 must be true or false", "false"),
    ("stability temperatures=1", "temperatures=1 must be a list", "[0.1"),
    ("stability 'temperatures=[1,x]'", "temperatures=[1, 'x'] must be positive numbers", "[0.1,1]"),
    ("stability 'temperatures=[true]'", "temperatures=[True] must be positive numbers", "[0.1,1]"),
    # Ranges
    ("train seeds=0", "seeds=0 is out of range", "[1, "),
    ("train seeds=-3", "seeds=-3 is out of range", "[1, "),
    ("train seed=-1", "seed=-1 is out of range", "[0, "),
    ("train seed=4294967296", "seed=4294967296 is out of range", "4294967295"),
    ("train seed=4294967295", "seed=4294967295 and seeds=32 go beyond", "lower one"),
    ("train epsilon_end=1.5", "epsilon_end=1.5 is out of range", "[0, 1]"),
    ("train epsilon_start=-0.1", "epsilon_start=-0.1 is out of range", "[0, 1]"),
    ("train epsilon_end=nan", "epsilon_end=nan is out of range", "[0, 1]"),
    ("train td_lambda=1.01", "td_lambda=1.01 is out of range", "[0, 1]"),
    ("train gamma=2", "gamma=2 is out of range", "[0, 1]"),
    ("train lr=inf", "lr=inf is out of range", "0.001"),
    ("train lr=-1e-3", "lr=-0.001 is out of range", "[0, "),
    ("train lr=1e39", "lr=1e+39 is out of range", "[0, 3.4028234e+38]"),
    ("train lr=1e-50", "lr=1e-50 is out of range", "0.001"),
    ("train lr=" + "9" * 400, "lr=a number of more than 60 digits is out of range", "0.001"),
    ("train lr=" + "9" * 5000, "lr=", "0.001"),
    ("train init_scale=1e38", "init_scale=1e+38 is out of range", "(0, 1000000]"),
    ("train init_scale=0", "init_scale=0 is out of range", "(0, "),
    ("train explore=softmax temperature=0", "temperature=0 is out of range", "[1e-06, "),
    ("train explore=softmax temperature=1e-30", "temperature=1e-30 is out of range", "[1e-06, "),
    ("train grad_clip=1e40", "grad_clip=1e+40 is out of range", "such as 10"),
    ("train total_steps=0", "total_steps=0 is out of range", "[1, "),
    ("train total_steps=99999999999999999999", "is out of range", "[1, 2147483647]"),
    ("train total_steps=2147483648", "total_steps=2147483648 is out of range", "2147483647]"),
    ("train eval_episodes=1000000000000", "eval_episodes=1000000000000 is out", "[1, 100000]"),
    ("train eval_interval=9999999999", "eval_interval=9999999999 is out of", "2147483647]"),
    ("train checkpoint_interval=-1", "checkpoint_interval=-1 is out of range", "[0, "),
    ("train updates=1000000000", "updates=1000000000 is out of range", "[1, 1000000]"),
    ("train seeds=100000000", "100000000 seeds need at least", "lower"),
    ("train hidden_dim=65536", "need at least", "hidden_dim"),
    ("train hidden_dim=1000000000", "hidden_dim=1000000000 is out of range", "[1, "),
    ("train method.embed_dim=1000000000", "method.embed_dim=1000000000 is out", "65536]"),
    ("train method.hypernet_dim=1000000000", "method.hypernet_dim=1000000000 is out", "[1, "),
    ("train method=qatten method.n_heads=1000000000", "method.n_heads=1000000000 is out", "[1, "),
    ("train buffer_size=1000000000000", "buffer_size=1000000000000 is out of", "2147483647]"),
    ("train buffer_size=2000000000", "need at least", "lower buffer_size"),
    ("train method.embed_dim=0", "method.embed_dim=0 is out of range", "[1, "),
    ("train batch_size=9999", "batch_size=9999 is larger than buffer_size=5000", "lower"),
    ("train learn_start=9999", "learn_start=9999 is never reached", "lower"),
    ("train n_envs=1000000000", "total_steps=10000 is less than one collection", "raise it"),
    ("train n_envs=9000", "n_envs=9000 segments do not fit in buffer_size=5000", "lower"),
    ("train segment_length=4", "segment_length=4 must be 2", "n_envs"),
    ("train env=matrix/random env.n_agents=20", "env.n_agents=20 is out of range", "[2, 16]"),
    (
        "train env=matrix/random env.n_agents=16 env.n_actions=3",
        "env.n_actions=3 to the power env.n_agents=16 exceeds 100000 payoffs",
        "fewer",
    ),
    ("train env=matrix/random env.n_actions=1", "env.n_actions=1 is out of range", "[2, "),
    ("train env=contextual env.states=1000000000", "exceeds 1000000 payoffs", "take fewer"),
    ("train env=contextual env.features=1000000000", "env.features=1000000000 is out", "10000]"),
    ("train env=contextual env.noise=-1", "env.noise=-1 is out of range", "[0, "),
    ("train env=predator_prey env.size=1000", "env.size=1000 is out of range", "[2, 100]"),
    ("train env=predator_prey env.n_agents=500", "env.size=10 has 100 cells for 500", "23 or more"),
    ("train env=matrix_steps/chain env.length=30", "segment_length=11 cannot hold", "31 or more"),
    ("bench 'lanes=[100000000]'", "100000000 seeds need at least", "lower"),
    ("bench 'lanes=[99999999999999]'", "lanes=[99999999999999] cannot be timed", "lanes=[1,64]"),
    ("bench 'lanes=[]'", "lanes=[] cannot be timed", "lanes=[1,64]"),
    ("bench 'lanes=[0]'", "lanes=[0] cannot be timed", "lanes=[1,64]"),
    ("bench 'lanes=[true]'", "lanes=[true] cannot be timed", "lanes=[1,64]"),
    ("bench 'lanes=[1.5]'", "lanes=[1.5] cannot be timed", "lanes=[1,64]"),
    ("bench lanes=x", "lanes=x cannot be timed", "lanes=[1,64]"),
    ("bench lanes=5", "lanes=5 cannot be timed", "lanes=[1,64]"),
    ("bench 'lanes=[1'", "lanes=[1 cannot be timed", "lanes=[1,64]"),
    ("bench seconds=-1", "seconds=-1 cannot be timed", "seconds=5"),
    ("bench seconds=inf", "seconds=inf cannot be timed", "seconds=5"),
    ("bench seconds=soon", "seconds=soon cannot be timed", "seconds=5"),
    ("stability lanes=100000000000", "lanes=100000000000 is out of range", "[2, 1000000]"),
    ("stability lanes=1", "lanes=1 is out of range", "[2, "),
    ("stability points=1000000000", "points=1000000000 is out of range", "[2, 10000]"),
    ("stability embed_dim=1000000000", "embed_dim=1000000000 is out of range", "[1, 256]"),
    ("stability updates=99999999999", "updates=99999999999 is out of range", "1000000000]"),
    ("stability 'temperatures=[0]'", "temperatures=[0] must be positive numbers", "[0.1,1]"),
    ("stability 'temperatures=[]'", "temperatures=[] must be positive numbers", "[0.1,1]"),
    ("stability epsilon=2", "epsilon=2 is out of range", "[0, 1]"),
    ("stability lr=1e39", "lr=1e+39 is out of range", "(0, 1000000]"),
    ("stability game=random n_agents=30", "n_agents=30 is out of range", "[2, 8]"),
    ("stability game=random n_agents=6", "n_actions=3 to the power n_agents=6", "at most 256"),
]
IDLE: list[Mistake] = [
    ("train env.n_agents=3", "env.n_agents=3 does nothing with env.game=a", "env.game=random"),
    ("train env.n_actions=4", "env.n_actions=4 does nothing", "leave env.n_actions out"),
    ("train env.game_seed=1", "env.game_seed=1 does nothing", "env.game=random"),
    ("train 'sweep.env.game_seed=[1,2]'", "does nothing with env.game=a", "env.game=random"),
    ("train env=contextual env.n_agents=2", "does nothing with env.game=mixed", "random"),
    ("train n_step=5", "n_step=5 does nothing with returns=td_lambda", "returns=n_step"),
    ("train returns=n_step td_lambda=0.5", "td_lambda=0.5 does nothing", "returns=td_lambda"),
    ("train method=qtran td_lambda=0.5", "td_lambda=0.5 does nothing", "returns=td_lambda"),
    ("train priority_exponent=0.5", "does nothing with replay=uniform", "replay=prioritised"),
    ("train importance_exponent=0.5", "does nothing with replay", "replay=prioritised"),
    ("train bonus_beta=0.5", "does nothing with bonus=none", "another bonus than none"),
    ("train rnd_dim=8", "rnd_dim=8 does nothing with bonus=none", "bonus=rnd"),
    ("train rnd_lr=1e-3", "rnd_lr=1e-3 does nothing with bonus=none", "bonus=rnd"),
    ("train temperature=0.5", "does nothing with explore=epsilon_greedy", "explore=softmax"),
    ("train explore=softmax epsilon_end=0.1", "epsilon_end=0.1 does nothing", "explore"),
    ("train explore=softmax epsilon_start=0.1", "epsilon_start=0.1 does nothing", "explore"),
    ("train explore=softmax epsilon_steps=100", "epsilon_steps=100 does nothing", "explore"),
    ("train lr_steps=1000", "lr_steps=1000 does nothing with lr_final=1", "another lr_final"),
    ("train search_fraction=0.3", "search_fraction=0.3 does nothing", "method=ordered_nmqmix"),
    ("train 'sweep.n_step=[1,2]'", "does nothing with returns", "leave sweep.n_step out"),
    ("train 'sweep.method=[qmix,vdn]' search_fraction=0.3", "does nothing", "ordered_joint"),
    ("train 'sweep.returns=[td_lambda,one_step]' n_step=5", "does nothing", "returns=n_step"),
    ("train 'sweep.lr_final=[1.0]' lr_steps=10", "does nothing", "another lr_final"),
    ("train act_search=0.5", "act_search=0.5 needs a method that searches", "ordered_joint"),
    ("train target=search", "target=search needs a method that searches", "target=double"),
    ("train env=matrix_steps/two_step env.length=3", "two_step has 2 steps", "leave env.length"),
    ("bench seeds=4", "seeds=4 does nothing in bench", "write lanes=[1,64]"),
    ("bench eval_episodes=4", "eval_episodes=4 does nothing in bench", "leave eval_episodes out"),
    ("bench run_dir=r", "run_dir=r does nothing in bench", "leave run_dir out"),
    ("bench wandb=project", "wandb=project does nothing in bench", "leave wandb out"),
    ("bench n_step=5", "n_step=5 does nothing", "returns=n_step"),
    ("stability n_agents=3", "n_agents=3 does nothing with game=a", "game=random"),
    ("stability game=b game_seed=3", "game_seed=3 does nothing with game=b", "game=random"),
    ("stability game=b 'payoff=[[1,0],[0,2]]'", "game=b does nothing with payoff", "payoff=null"),
    ("stability 'payoff=[[1,0],[0,2]]' file=good.yaml", "does nothing with file", "file=null"),
    ("stability mixer=vdn embed_dim=4", "embed_dim=4 does nothing with mixer=vdn", "mixer"),
    ("stability mixer=vdn fixed_mixer=true", "does nothing with mixer=vdn", "leave fixed_mixer"),
    ("stability claims starts=5", "starts=5 does nothing in `stability claims`", "leave starts"),
    ("stability claims solver=tsit5", "solver=tsit5 does nothing", "leave solver out"),
    ("reproduce random_games rnd_dim=8", "rnd_dim=8 does nothing", "bonus=rnd"),
    ("reproduce beyond n_step=8", "n_step=8 does nothing", "returns=n_step"),
    (
        "reproduce beyond 'sweep.method=[qmix,vdn]' search_fraction=0.3",
        "search_fraction=0.3 does nothing",
        "ordered_joint",
    ),
]
COMMANDS: list[Mistake] = [
    ("stabilty", "unknown command 'stabilty'", "train"),
    ("reproduce", "reproduce='nothing' is unknown", "table1"),
    ("reproduce table9", "reproduce='table9' is unknown", "did you mean table1"),
    ("reproduce table1 method=qmix", "method=qmix would change", "jaxvff train method=qmix"),
    ("reproduce table1 'sweep.lr=[1,2]'", "would change what table1", "jaxvff train sweep.lr"),
    ("reproduce table1 'sweep.method=[foo]'", "would change what table1", "jaxvff train"),
    ("reproduce table1 env.game=b", "would change what table1", "jaxvff train env.game=b"),
    (
        "reproduce beyond 'sweep.method=[foo]'",
        "sweep.method='foo' is unknown",
        "resq, qfix, pow_qmix\n",
    ),
    ("reproduce beyond 'sweep.method=[qmix'", "cannot be read", "sweep.lr=[1e-3,1e-4]"),
    ("reproduce beyond method=qmix", "method=qmix cannot replace", "sweep.method=[..]"),
    ("reproduce beyond env=matrix/a", "env=matrix/a cannot replace", "sweep.env=[..]"),
    ("reproduce beyond lrr=1", "unknown key 'lrr'", "did you mean lr"),
    ("reproduce smax seeds=true", "seeds=true must be a whole number", "32"),
    ("evaluate", "evaluate takes run=<run folder>", "episodes="),
    ("evaluate run=nowhere", "nowhere is no run folder", "run.yaml"),
    ("evaluate run=good.yaml", "good.yaml is no run folder", "run.yaml"),
    ("evaluate run=nowhere lr=1", "evaluate takes run=<run folder>", "and no more"),
    ("evaluate run=nowhere eval_episodes=few", "eval_episodes='few' must be a whole number", "32"),
    ("diagnose", "diagnose takes run=<run folder>", "max_enumerated="),
    ("diagnose run=nowhere", "nowhere is no run folder", "run.yaml"),
    ("diagnose run=nowhere lr=1", "diagnose takes run=<run folder>", "and no more"),
    ("diagnose run=a run=b", "run= is given twice", "keep one"),
    ("diagnose run=nowhere games=0", "games=0 is out of range", "[1, 100000]"),
    ("diagnose run=nowhere states=own", "states='own'", "greedy"),
    ("diagnose run=nowhere max_enumerated=many", "max_enumerated='many'", "whole number"),
    ("report", "report takes run folders", "out=, curves="),
    ("report nowhere", "nowhere does not exist", "runs/mine"),
    ("report good.yaml", "good.yaml is no run folder, and no file of records", "table.json"),
    ("train resume=nowhere", "is no run folder", "run.yaml"),
    ("train run_dir=/proc/nowhere/x", "'/proc/nowhere/x' cannot be made"),
    ("train run_dir=folder.npy", "run_dir='folder.npy' exists", "name another folder"),
    ("train env=matrix/file", "exactly one of", "env.file=<path>"),
    ("train env.file=good.yaml", "env.game and env.file is set", "env=matrix/file"),
    ("train 'env.payoff=[[1,0],[0,1]]'", "env.game and env.payoff is set", "env=matrix/file"),
    ("stability game=c", "game='c' is unknown", "climbing"),
    ("stability gane=a", "gane is no option of the stability lab", "did you mean game"),
    ("stability mixer=qplex", "mixer='qplex' is unknown", "nmqmix"),
    ("stability solver=euler", "solver='euler' is unknown", "kvaerno5"),
    ("stability 'sweep.seed=[1,2]'", "cannot be swept", "seed= takes one"),
    ("stability 'payoff=[[1,1],[1,1]]'", "every payoff is 1", "any policy is optimal"),
    ("stability payoff=3", "payoff: the payoff is a int, 3", "nested lists"),
    ("stability file=missing.npy", "file='missing.npy' does not exist", ".npy"),
    ("stability file=large.yaml", "too many for the lab", "256"),
]
PAYOFFS: list[Mistake] = [
    (f"{FILE}missing.npy", "env.file='missing.npy' does not exist", ".npy"),
    (f"{FILE}3", "env.file='3' does not exist", ".npy"),
    (f"{FILE}007", "env.file='007' does not exist", ".npy"),
    (f"{FILE}1e3", "env.file='1e3' does not exist", ".npy"),
    (f"{FILE}missingö.yaml", "env.file='missingö.yaml' does not exist", ".npy"),
    (f"{FILE}m=1.yaml", "env.file='m=1.yaml' does not exist", ".npy"),
    (f"{FILE}'m #1 x.yaml'", "env.file='m #1 x.yaml' does not exist", ".npy"),
    (f"{FILE}~/missing.yaml", "env.file='~/missing.yaml' does not exist", ".npy"),
    (f"{FILE}true", "env.file=true is no name", "env.file=null for none"),
    (f"{FILE}.", "env.file='.' is a folder", ".npy"),
    (f"{FILE}folder.npy", "env.file='folder.npy' is a folder", ".npy"),
    (f"{FILE}folder.yaml", "env.file='folder.yaml' is a folder", ".npy"),
    (f"{FILE}fifo.npy", "env.file='fifo.npy' is no plain file", ".npy"),
    (f"{FILE}fifo.yaml", "env.file='fifo.yaml' is no plain file", ".npy"),
    (f"{FILE}zero.yaml", "env.file='zero.yaml' is no plain file", ".npy"),
    (f"{FILE}loop.yaml", "cannot be read: Too many levels of symbolic links", "can read"),
    (f"{FILE}good.yaml/x.npy", "cannot be read: Not a directory", "can read"),
    (f"{FILE}{'x' * 300}.npy", "cannot be read: File name too long", "can read"),
    (f"{FILE}game.csv", "env.file='game.csv' is of no known kind", ".npy"),
    (f"{FILE}game.npz", "env.file='game.npz' is of no known kind", ".npy"),
    (f"{FILE}empty.npy", "env.file='empty.npy' is empty", "nested lists"),
    (f"{FILE}empty.yaml", "env.file='empty.yaml' is empty", "nested lists"),
    (f"{FILE}empty.json", "env.file='empty.json' is empty", "nested lists"),
    (f"{FILE}comment.yaml", "comment.yaml: the payoff is empty", "nested lists"),
    (f"{FILE}bad.yaml", "line 2, column", "nested lists"),
    (f"{FILE}tab.yaml", "line 2, column 1: found character '\\t'", "nested lists"),
    (f"{FILE}tag.yaml", "could not determine a constructor", "nested lists"),
    (f"{FILE}two.yaml", "line 2, column 1", "nested lists"),
    (f"{FILE}bad.json", "line 2, column", "nested lists"),
    (f"{FILE}latin.yaml", "is no text in UTF-8", "save it as UTF-8"),
    (f"{FILE}binary.yaml", "cannot be read", "nested lists"),
    (f"{FILE}big.yaml", "big.yaml' has 16000001 bytes", "less than 16000000"),
    (f"{FILE}deep.json", "nested too deeply", "nested lists"),
    (f"{FILE}deep.yaml", "nested too deeply", "nested lists"),
    (f"{FILE}depth20.yaml", "nested more than 16 deep", "nested lists"),
    (f"{FILE}self.yaml", "nested more than 16 deep", "nested lists"),
    (f"{FILE}self2.yaml", "payoff[0, 1] is a list", "nested lists"),
    (f"{FILE}laughs.yaml", "too many entries", "100000"),
    (f"{FILE}huge_int.json", "payoff[0, 1] is a number of more than 60 digits", "finite"),
    (f"{FILE}huge_int.yaml", "payoff[0, 1] is a number of more than 60 digits", "finite"),
    (f"{FILE}digits.json", "cannot be read", "nested lists"),
    (f"{FILE}large_float.yaml", "payoff[1, 1] is 1e+39", "within ±3.4e+38"),
    (f"{FILE}nan.yaml", "payoff[1, 0] is nan", "finite"),
    (f"{FILE}nan.json", "payoff[1, 0] is nan", "finite"),
    (f"{FILE}bool.yaml", "payoff[0, 0] is a boolean, true", "must be a number"),
    (f"{FILE}null.yaml", "payoff[0, 1] is nothing, null", "must be a number"),
    (f"{FILE}text.json", "payoff[1, 1] is a text, '5'", "must be a number"),
    (f"{FILE}octal.yaml", "payoff[0, 0] is a text, '010'", "must be a number"),
    (f"{FILE}time.yaml", "payoff[0, 0] is a text, '1:30'", "must be a number"),
    (f"{FILE}mapping.yaml", "the payoff is a mapping", "nested lists"),
    (f"{FILE}scalar.yaml", "the payoff is a int, 5", "nested lists"),
    (f"{FILE}ragged.yaml", "payoff[1] has 1 entries, and the first row has 2", "nested lists"),
    (f"{FILE}ragged3.yaml", "payoff[1, 0] has 3 entries", "nested lists"),
    (f"{FILE}halfrow.yaml", "payoff[1] is 3, and the first row has 2", "nested lists"),
    (f"{FILE}wide.yaml", "has shape (2, 3)", "pad unequal action sets"),
    (f"{FILE}flat.yaml", "has shape (3,)", "one axis per agent"),
    (f"{FILE}one.yaml", "has shape (1, 1)", "two or more actions"),
    (f"{FILE}hollow.yaml", "has shape (2, 0)", "two or more actions"),
    (f"{FILE}many.yaml", "has too many entries", "at most 100000"),
    (f"{FILE}many_more.yaml", "has too many entries", "at most 100000"),
    (f"{FILE}complex.npy", "entries of type complex128", "real numbers"),
    (f"{FILE}bool.npy", "entries of type bool", "real numbers"),
    (f"{FILE}text.npy", "entries of type <U1", "real numbers"),
    (f"{FILE}object.npy", "entries of type object", "real numbers"),
    (f"{FILE}date.npy", "entries of type datetime64[D]", "real numbers"),
    (f"{FILE}struct.npy", "entries of type [('a', '<f8')]", "real numbers"),
    (f"{FILE}zip.npy", "is an .npz archive", "numpy.save"),
    (f"{FILE}words.npy", "is no .npy file", "numpy.save"),
    (f"{FILE}claim.npy", "(1000000, 1000000) has too many entries", "at most 100000"),
    (f"{FILE}cut.npy", "cut.npy' cannot be read", "nested lists"),
    (f"{FILE}header.npy", "header.npy' cannot be read", "nested lists"),
    (f"{FILE}nan.npy", "payoff[0, 1] is nan", "finite"),
    (f"{FILE}many.npy", "has too many entries", "at most 100000"),
    (f"{FILE}agents17.npy", "has too many entries", "16 agents"),
    (f"{FILE}scalar.npy", "has shape ()", "one axis per agent"),
    # In place
    (f"{PAYOFF}5'", "env.payoff: the payoff is a int, 5", "nested lists"),
    (f"{PAYOFF}abc'", "env.payoff: the payoff is a text, 'abc'", "nested lists"),
    (PAYOFF + "[[1,0],[0]]'", "env.payoff: rows are ragged: payoff[1] has 1", "nested lists"),
    (PAYOFF + "[[1,true],[0,1]]'", "payoff[0, 1] is a boolean, true", "must be a number"),
    (PAYOFF + "[[1,x],[0,1]]'", "payoff[0, 1] is a text, 'x'", "must be a number"),
    (PAYOFF + "[[1,nan],[0,1]]'", "payoff[0, 1] is nan", "finite"),
    (PAYOFF + "[[1,null],[0,1]]'", "payoff[0, 1] is nothing", "must be a number"),
    (PAYOFF + "[[1,{a: 1}],[0,1]]'", "payoff[0, 1] is a mapping", "must be a number"),
    (PAYOFF + f"[[1,{'9' * 400}],[0,1]]'", "payoff[0, 1] is a number of more", "finite"),
    (PAYOFF + "[[1,0],[0,1]'", "cannot be read", "a list as [1,2]"),
    (PAYOFF + "[]'", "has shape (0,)", "one axis per agent"),
    (PAYOFF + f"{'[' * 20}{']' * 20}'", "nested more than 16 deep", "nested lists"),
    (PAYOFF + f"{'[' * 3000}{']' * 3000}'", "nested too deeply", "a list as [1,2]"),
    ("stability 'payoff=[[1,true],[0,2]]'", "payoff[0, 1] is a boolean", "must be a number"),
    ("stability 'payoff=[[1,0],[0]]'", "payoff: rows are ragged: payoff[1]", "nested lists"),
    ("stability file=deep.json", "file='deep.json' is nested too deeply", "nested lists"),
    ("stability file=self.yaml", "nested more than 16 deep", "nested lists"),
    ("stability file=folder.npy", "file='folder.npy' is a folder", ".npy"),
]
MISTAKES = NAMES_AND_FORMS + TYPES_AND_RANGES + IDLE + COMMANDS + PAYOFFS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that payoffs cannot be read from, and `good.yaml`."""
    root = tmp_path_factory.mktemp("inputs")
    nines = "9" * 400
    texts = {
        "good.yaml": "[[5, 0], [0, 1]]",
        "game.csv": "1,2",
        "comment.yaml": "# nothing\n",
        "bad.yaml": "[[5, 0],\n[0, 1]",
        "tab.yaml": "a:\n\t- 1\n",
        "tag.yaml": "!!python/object/apply:os.getcwd []",
        "two.yaml": "[[5, 0], [0, 1]]\n--- 3\n",
        "bad.json": "[[5, 0],\n[0, 1",
        "big.yaml": "[[5, 0], [0, 1]]" + " " * (16_000_001 - 16),
        "deep.json": "[" * 100_000 + "]" * 100_000,
        "deep.yaml": "[" * 3000 + "]" * 3000,
        "depth20.yaml": "[" * 20 + "1" + "]" * 20,
        "self.yaml": "&a [*a, *a]",
        "self2.yaml": "&a [[1, *a], [1, 1]]",
        "laughs.yaml": "[1, 1, 1, 1, 1, 1, 1, 1, 1]",
        "huge_int.json": f"[[1, {nines}], [0, 1]]",
        "huge_int.yaml": f"[[1, {nines}], [0, 1]]",
        "digits.json": f"[[1, {'9' * 5000}], [0, 1]]",
        "large_float.yaml": "[[1, 0], [0, 1e39]]",
        "nan.yaml": "[[1, 0], [.nan, 1]]",
        "nan.json": "[[1, 0], [NaN, 1]]",
        "bool.yaml": "[[true, 0], [0, 1]]",
        "null.yaml": "[[1, null], [0, 1]]",
        "text.json": '[[1, 0], [0, "5"]]',
        "octal.yaml": "[[010, 0], [0, 1]]",
        "time.yaml": "[[1:30, 0], [0, 1]]",
        "mapping.yaml": "payoff: [[1, 0], [0, 1]]",
        "scalar.yaml": "5",
        "ragged.yaml": "[[1, 0], [0]]",
        "ragged3.yaml": "[[[1, 0], [1, 0]], [[1, 2, 3], [1, 2]]]",
        "halfrow.yaml": "[[1, 0], 3]",
        "wide.yaml": "[[1, 0, 2], [1, 0, 2]]",
        "flat.yaml": "[1, 0, 2]",
        "one.yaml": "[[1]]",
        "hollow.yaml": "[[], []]",
        "many.yaml": json.dumps(np.zeros((320, 320), int).tolist()),
        "many_more.yaml": json.dumps(np.zeros((500, 500), int).tolist()),
        "large.yaml": json.dumps(np.eye(20).tolist()),
        "words.npy": "not numpy",
    }
    for i in range(9):  # nine times itself, nine times over: 3,486,784,401 entries
        texts["laughs.yaml"] = f"[&a{i} {texts['laughs.yaml']}{f', *a{i}' * 8}]"
    for name, text in texts.items():
        (root / name).write_text(text)
    for name in ("empty.npy", "empty.yaml", "empty.json"):
        (root / name).touch()
    (root / "latin.yaml").write_bytes("# Größe\n[[1, 0], [0, 1]]".encode("latin-1"))
    (root / "binary.yaml").write_bytes(bytes(range(1, 32)))
    arrays = {
        "complex": np.eye(2, dtype=complex),
        "bool": np.eye(2, dtype=bool),
        "text": np.full((2, 2), "x"),
        "object": np.array([[1, None], [0, 1]], object),
        "date": np.zeros((2, 2), "datetime64[D]"),
        "struct": np.zeros((2, 2), [("a", "<f8")]),
        "nan": np.array([[1, np.nan], [0, 1]]),
        "many": np.zeros((400, 400)),
        "agents17": np.zeros((1,) * 17),
        "scalar": np.array(3.0),
        "cut": np.eye(2),
    }
    for name, array in arrays.items():
        np.save(root / f"{name}.npy", array)
    (root / "cut.npy").write_bytes((root / "cut.npy").read_bytes()[:-8])
    whole = io.BytesIO()
    claim = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(whole, claim)
    (root / "claim.npy").write_bytes(whole.getvalue())
    (root / "header.npy").write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': hello}")
    with zipfile.ZipFile(root / "zip.npy", "w") as archive:
        archive.writestr("a.npy", "x")
    np.savez(root / "game.npz", np.eye(2))
    for name in ("folder.npy", "folder.yaml"):
        (root / name).mkdir()
    for name in ("fifo.npy", "fifo.yaml"):
        os.mkfifo(root / name)
    (root / "zero.yaml").symlink_to("/dev/zero")
    (root / "loop.yaml").symlink_to("loop.yaml")
    return root


def _id(mistake: Mistake) -> str:
    return mistake[0] if len(mistake[0]) < 100 else f"{mistake[0][:80]}...{len(mistake[0])}"


@pytest.mark.parametrize("mistake", MISTAKES, ids=_id)
def test_a_mistake_gets_a_short_message_before_anything_compiles(
    mistake: Mistake, folder: Path, capsys, monkeypatch
) -> None:
    line, *says = mistake
    monkeypatch.chdir(folder)
    for module, name in ((execute, "open_program"), (questions, "answers")):
        monkeypatch.setattr(module, name, lambda *args: pytest.fail("it went on to compile"))
    before = sorted(folder.rglob("*"))
    assert main(shlex.split(line)) == 2
    out, message = capsys.readouterr()
    assert message.startswith("jaxvff: ") and out == ""
    for each in says:
        assert each in message
    assert message.count("\n") <= 2
    assert "Traceback" not in message
    assert sorted(folder.rglob("*")) == before


def test_the_table_is_long_and_nothing_is_in_it_twice() -> None:
    lines = [line for line, *_ in MISTAKES]
    assert len(set(lines)) == len(lines) >= 150


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("train lr=1e-3 lr=1e-4", "twice"),
        ("train total_steps=99999999999999999999", "2147483647"),
        (f"{FILE}self.yaml", "nested more than 16 deep"),
        ("stability lanes=100000000000", "1000000"),
    ],
)
def test_a_process_answers_in_seconds(line: str, says: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jaxvff", *shlex.split(line)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=60,  # a busy machine; a hang lasts for ever
        check=False,
    )
    assert done.returncode == 2
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == ""
