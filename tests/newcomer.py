"""What a new user does, in one process that has the package and nothing of the checkout.

python newcomer.py           train, load, play, export, act with NumPy alone
python newcomer.py further   then resume, begin with that policy, battles, the stability lab
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import numpy as np

import jaxvff
from jaxvff.cli.main import main

assert "site-packages" in jaxvff.__file__, "this is the checkout's"
TINY = {"seeds": 2, "hidden_dim": 8, "batch_size": 4, "learn_start": 4, "buffer_size": 16,
        "eval_episodes": 2}  # fmt: skip

jaxvff.train(method="qmix", env="matrix/a", total_steps=40, eval_interval=20, run_dir="a", **TINY)
run = jaxvff.load("a")
assert run.complete
assert np.isfinite(run.evaluate()[0].test_return).all()
policy = run.policy(seed=1)
obs = np.tile([1.0, 0.0], (3, 2, 1))
policy.reset(3)
action = policy.act(obs)
jaxvff.save_policy(policy, "policy")

sys.path.insert(0, "policy")
from act import Team  # noqa: E402

team = Team("policy")
team.reset(3)
assert (team.act(obs) == action).all()

if sys.argv[1:] == ["further"]:
    assert jaxvff.train(resume="a", total_steps=60).complete
    short = {**TINY, "total_steps": 40}
    jaxvff.train(method="qmix", env="matrix/a", init_from="policy", run_dir="b", **short)
    battles = {"env": "smax/3m", "learner": "replay", "n_envs": 2, "segment_length": 32,
               "env.time_limit": 31, "total_steps": 248, "eval_interval": 124}  # fmt: skip
    won = jaxvff.train(method="vdn", run_dir="smax", **TINY, **battles)
    assert "test_win_rate" in won.results.columns
    lab = ["points=4", "starts=1", "lanes=4", "updates=20", "time=2", "temperatures=[1]"]
    assert main(["stability", "game=a", *lab, "run_dir=lab"]) == 0
    assert Path("lab").exists()
print("jax", metadata.version("jax"))
