"""Recording episodes of a trained run, to learn from them elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.api.policies import choose
from jaxvff.core.errors import UserError
from jaxvff.core.types import Array, HostEnv, Tree
from jaxvff.playing import evaluate, rollout
from jaxvff.playing.explore import epsilon_greedy
from jaxvff.runs import episodes as files
from jaxvff.runs import folder as runs
from jaxvff.runs import learned
from jaxvff.runs.plan import Job

AT_ONCE = 256  # episodes that are played side by side


def record(
    folder: Path,
    jobs: Sequence[Job],
    to: Path,
    *,
    n_episodes: int,
    seed: int | None,
    sweep: Mapping[str, Any],
    epsilon: float,
    play_seed: int,
) -> dict[str, float]:
    """Play with the agents of one seed, and write the episodes; see runs/episodes.py.

    Args:
      folder: of the run.
      jobs: of the run.
      to: the new file.
      n_episodes: how many.
      seed: of the run; None: the first.
      sweep: of a sweep, the value.
      epsilon: share of uniformly random actions; 0: greedy.
      play_seed: of the games and of the random actions.

    Returns:
      The mean return, length and results.

    Raises:
      UserError: games on the host, no such seed or value, no checkpoint, or the file exists.
    """
    if n_episodes < 1 or not 0 <= epsilon <= 1:
        raise UserError(f"episodes={n_episodes} must be 1 or more, and epsilon={epsilon} in [0, 1]")
    if to.exists():
        raise UserError(f"to={to} exists; name a new file")
    chosen = choose(folder, jobs, seed, sweep)
    job, value = jobs[chosen.job], chosen.value
    env = value.env
    if isinstance(env, HostEnv):
        raise UserError(
            f"{value.config.env['kind']} runs on the host, and episodes are recorded of games on "
            "the device; export the policy and play with it (jaxvff export)"
        )
    with learned.open_program(job) as program:
        trained = learned.newest(runs.job_folder(folder, jobs, chosen.job), job, program)
        if trained is None:
            raise learned.none_yet(folder)
        model = program.learner.model
        acting = program.learner.acting(trained.carry.state.learner)
        params, env_params = jax.tree.map(
            lambda x: x[chosen.lane], (dict(acting), trained.lane.env_params)
        )

    def act(key: Array, q: Array, avail: Array) -> Array:
        return epsilon_greedy(key, q, avail, jnp.array(epsilon))

    def play(params: Tree, env_params: Tree, keys: Array) -> Tree:
        draw = evaluate.drawing(model, params, greedy=True)
        utilities = params["utility"]
        player = rollout.Player(env, model.utility, act, utilities, env_params, draw=draw)
        return jax.vmap(lambda key: rollout.whole_episode(player, key))(keys)

    compiled = jax.jit(play)
    keys = jax.random.split(jax.random.key(play_seed), n_episodes)
    parts = [
        jax.device_get(compiled(params, env_params, keys[i : i + AT_ONCE]))
        for i in range(0, n_episodes, AT_ONCE)
    ]
    segments, ended = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    ends = {"return": ended.return_, "length": ended.length, **ended.results}
    about = {
        "method": job.config.method["name"],
        "env": value.config.env,
        "seed": chosen.seed,
        "sweep": value.label,
        "env_steps": int(trained.carry.state.env_steps[chosen.lane]),
        "epsilon": epsilon,
        "play_seed": play_seed,
        "actions": env.action_names,
        "observation": env.obs_parts,
        "versions": {name: metadata.version(name) for name in ("jaxvff", "jax")},
    }
    files.save(to, segments, ends, about)
    return {name: float(np.mean(x)) for name, x in ends.items()}
