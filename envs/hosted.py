"""Games on the host, from the outside: their options, and how a worker is asked for their sizes.

A row of ENVS is a function of the game's own options. `hosted` adds those of the workers.
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxvff.envs import grf_render
from jaxvff.types import Crew, EnvSpec, HostEnv, UserError

HERE = Path(__file__).parent / "host"
PROBE_TIMEOUT_S = 300.0  # for a game to say how large it is


# One thread a worker: the games share the cores, their matrix products must not.
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def command(python: str, order: dict[str, Any]) -> list[str]:
    """How a worker is started; its interpreter needs NumPy and the game, not jaxvff."""
    return [python, str(HERE), json.dumps(order)]


def environment() -> dict[str, str]:
    """The environment variables of a worker."""
    return {**os.environ, **ONE_THREAD}


def crew(
    *,
    python: str | None = None,
    workers: int | None = None,
    step_timeout: float = 120.0,
    max_restarts: int = 10,
    restart_minutes: float = 10.0,
) -> Crew:
    """The options that all games on the host share.

    Args:
      python: interpreter of the workers, with NumPy and the game; None: this one.
      workers: processes; None: one per core.
      step_timeout: seconds that a step may take.
      max_restarts: lost workers and rejected episodes that a run survives ...
      restart_minutes: ... within so many minutes.

    Raises:
      UserError: a value out of its range.
    """
    interpreter = shutil.which(python or sys.executable)
    if interpreter is None:
        raise UserError(f"env.python={python!r} is no program; give the path of an interpreter")
    for name, value, low in (("workers", workers, 1), ("max_restarts", max_restarts, 0)):
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (whole and value >= low):
            raise UserError(f"env.{name}={value!r} must be a whole number of at least {low}")
    for name, seconds in (("step_timeout", step_timeout), ("restart_minutes", restart_minutes)):
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not (number and 0 < seconds < float("inf")):
            raise UserError(f"env.{name}={seconds!r} must be a positive number")
    return Crew(interpreter, workers, float(step_timeout), max_restarts, float(restart_minutes))


def hosted(make: Callable[..., HostEnv]) -> Callable[..., HostEnv]:
    """`make(crew, **own options)` -> a row of ENVS, which takes the options of `crew` as well."""
    own = list(inspect.signature(make).parameters.values())[1:]
    shared = inspect.signature(crew).parameters

    def row(**options: Any) -> HostEnv:
        mine = {k: v for k, v in options.items() if k not in shared}
        return make(crew(**{k: v for k, v in options.items() if k in shared}), **mine)

    row.__doc__ = make.__doc__
    row.__signature__ = inspect.Signature([*own, *shared.values()])  # type: ignore[attr-defined]
    return row


def host_env(game: str, options: dict[str, Any], team: Crew) -> HostEnv:
    """A game of envs/host with its sizes, which a worker is asked for.

    Raises:
      UserError: the game is not installed, or refuses its options.
    """
    said = json.loads(_ask(game, json.dumps(options), team.python))
    if "missing" in said:
        raise UserError(f"{game} cannot be played by {team.python}: {said['missing']}")
    if "failed" in said:
        raise UserError(f"{game} with {options} cannot be made: {said['failed']}")
    sizes = dict(said["spec"])
    results = tuple(sizes.pop("results"))
    signature = (game, json.dumps(options, sort_keys=True), team)
    return HostEnv(EnvSpec(**sizes), results, game, options, team, signature)


@functools.lru_cache(maxsize=64)
def _ask(game: str, options: str, python: str) -> str:
    """What a worker says of a game: the last line that it prints."""
    order = {"only_spec": True, "game": game, "options": json.loads(options), "seeds": [0]}
    try:
        done = subprocess.run(
            command(python, order),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S,
            env=environment(), check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UserError(f"{game} did not start within {PROBE_TIMEOUT_S:g} s") from error
    lines = done.stdout.strip().splitlines()
    return lines[-1] if lines else json.dumps({"failed": done.stderr.strip()[-2000:]})


@hosted
def grf(
    team: Crew,
    *,
    scenario: str = "academy_3_vs_1_with_keeper",
    representation: str = "relative",
    rewards: str = "cds",
    time_limit: int | None = 150,
    n_agents: int | None = None,
) -> HostEnv:
    """Google Research Football (gfootball 2.10.2); the left team is ours.

    Args:
      team: the workers.
      scenario: a name in gfootball/scenarios.
      representation: "relative", the compact observations of CDS (Li et al., 2021), or
        "simple115v2", gfootball's.
      rewards: "scoring" (+1 a goal, -1 a goal against), "scoring,checkpoints" (also gfootball's
        tenths on the way to the goal, averaged over the players), or "cds": 100 for a goal, -1 for
        any other end, and an end when the ball or one of ours is behind the halfway line.
      time_limit: steps; None: the scenario's own.
      n_agents: players; None: all but the keeper.

    Raises:
      UserError: a bad option, or gfootball is not there; it says how to install it.
    """
    options = {
        "scenario": scenario, "representation": representation, "rewards": rewards,
        "time_limit": time_limit, "n_agents": n_agents,
    }  # fmt: skip
    env = host_env("grf", options, team)
    draw = functools.partial(grf_render.render, representation, env.spec.n_agents)
    return env._replace(render=draw)


@hosted
def smac(team: Crew, *, map: str = "3s_vs_5z", options: dict[str, Any] | None = None) -> HostEnv:
    """SMAC: StarCraft II against its built-in AI, through oxwhirl's `smac`.

    Args:
      team: the workers.
      map: a name of SMAC's registry, whose time limit holds.
      options: of its StarCraft2Env, such as {difficulty: "7"}.

    Raises:
      UserError: a bad option, or smac is not there; it says how to install it.
    """
    return host_env("smac", {"map_name": map, **(options or {})}, team)


@hosted
def smacv2(
    team: Crew,
    *,
    race: str = "terran",
    n_units: int = 5,
    n_enemies: int = 5,
    options: dict[str, Any] | None = None,
) -> HostEnv:
    """SMACv2: random teams and start positions, through oxwhirl's `smacv2`.

    Args:
      team: the workers.
      race: terran, protoss or zerg: the mixes of units of SMACv2's own configurations.
      n_units: ours.
      n_enemies: theirs.
      options: of its StarCraft2Env.

    Raises:
      UserError: a bad option, or smacv2 is not there; it says how to install it.
    """
    mix = {"race": race, "n_units": n_units, "n_enemies": n_enemies}
    return host_env("smacv2", {**mix, **(options or {})}, team)


@hosted
def smaclite(team: Crew, *, map: str = "2s3z", time_limit: int = 120) -> HostEnv:
    """SMAClite: SMAC's battles without StarCraft II (Michalski et al., 2023).

    Args:
      team: the workers.
      map: a name of its registry.
      time_limit: steps; SMAClite has none of its own.

    Raises:
      UserError: a bad option, or smaclite is not there; it says how to install it.
    """
    return host_env("smaclite", {"map": map, "time_limit": time_limit}, team)


@hosted
def custom(
    team: Crew,
    *,
    entry: str,
    time_limit: int,
    api: str = "pettingzoo",
    kwargs: dict[str, Any] | None = None,
) -> HostEnv:
    """A multi-agent environment of the user's, by its import path.

    Args:
      team: the workers.
      entry: `package.module:function`, which makes it.
      time_limit: steps; longer episodes are truncated.
      api: "pettingzoo" (its parallel API) or "gymnasium" (tuples of spaces, an entry an agent).
      kwargs: of the function.

    Raises:
      UserError: a bad option, or the environment cannot be made.
    """
    options = {"entry": entry, "time_limit": time_limit, "api": api, "kwargs": kwargs or {}}
    return host_env("custom", options, team)
