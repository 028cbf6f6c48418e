"""From overrides to jobs: sweeps, and which of their values share a compiled program."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.options import options_of
from jaxvff.core.types import Array, Env, HostEnv, Tree
from jaxvff.runs import episodes, inputs
from jaxvff.runs.episodes import Recorded
from jaxvff.runs.start import Start
from jaxvff.settings import build
from jaxvff.settings.config import OUTPUTS, Config
from jaxvff.settings.overrides import Override, check_read, parse
from jaxvff.settings.sweep import expand
from jaxvff.training.lanes import Lane

NOT_IN_FINGERPRINT = {"total_steps", "checkpoint_interval", *OUTPUTS}
DEFAULTS = {option.name: option.default for option in options_of(Config)}


class SweepValue(NamedTuple):
    """One value of a sweep (or the only one): its label, config and environment."""

    label: dict[str, Any]  # the swept keys with their values
    config: Config
    env: Env | HostEnv
    start: Start | None = None  # what its seeds begin with (runs/warm_start.py); None: fresh
    recorded: Recorded | None = None  # what it learns from; None: what it plays

    @property
    def seeds(self) -> range:
        """The numbers of its seeds."""
        return range(self.config.seed, self.config.seed + self.config.seeds)

    def of_seeds(self, first: int, n: int) -> SweepValue:
        """The same value with `n` of its seeds, from the one that is number `first` on."""
        config = dataclasses.replace(self.config, seed=self.config.seed + first, seeds=n)
        return self._replace(config=config)


class Job(NamedTuple):
    """Sweep values that run in one compiled program, each with the same number of seeds."""

    values: list[SweepValue]

    @property
    def config(self) -> Config:
        """The config that all values share but for traced options."""
        return self.values[0].config

    @property
    def env(self) -> Env | HostEnv:
        """The environment that all values share but for its params."""
        return self.values[0].env

    @property
    def n_lanes(self) -> int:
        """Sweep values times seeds."""
        return len(self.values) * self.config.seeds

    @property
    def name(self) -> str:
        """The method and the first label."""
        label = ",".join(f"{k}={v}" for k, v in self.values[0].label.items())
        return "_".join(filter(None, [self.config.method["name"], label])).replace("/", "-")

    def fingerprint(self) -> str:
        """Changes with anything that decides the numbers of a run, but for its length.

        Values that are the default are left out: an option that is new in a later version changes
        nothing.
        """
        digest = hashlib.sha256()
        for value in self.values:
            fields = {f.name: getattr(value.config, f.name) for f in dataclasses.fields(Config)}
            decide = {
                k: v
                for k, v in fields.items()
                if k not in NOT_IN_FINGERPRINT and (k not in DEFAULTS or v != DEFAULTS[k])
            }
            digest.update(repr(sorted(decide.items())).encode())
        for leaf in jax.tree.leaves(self.lanes()):
            digest.update(np.asarray(leaf).tobytes())
        for value in self.values:
            digest.update(b"" if value.start is None else value.start.digest())
            digest.update(b"" if value.recorded is None else value.recorded.digest)
        return digest.hexdigest()

    def lanes(self) -> Lane:
        """What differs between lanes; values outside, seeds inside."""
        traced = [jax.tree.map(np.float32, value.config.traced()) for value in self.values]
        params = [value.env.params_for(seed) for value in self.values for seed in value.seeds]
        seeds = [np.arange(value.seeds.start, value.seeds.stop) for value in self.values]
        return Lane(
            traced=jax.tree.map(lambda *x: jnp.repeat(_stack(*x), self.config.seeds), *traced),
            env_params=jax.tree.map(_stack, *params),
            seed=jnp.asarray(np.concatenate(seeds).astype(np.uint32)),
        )


def _stack(*leaves: Tree) -> Array:
    return jnp.asarray(np.stack([np.asarray(x) for x in leaves]))


def plan(overrides: Iterable[str | Override], kept: Path | None = None) -> list[Job]:
    """The jobs that `overrides` ask for, `sweep.<key>=[...]` among them.

    Values of a sweep whose configs differ in traced options only (and in the params of their
    environments, such as payoffs) share a job, hence a compiled program and a vmap.

    Args:
      overrides: parsed or not.
      kept: where a run keeps copies of the files that it reads (runs/inputs.py).

    Raises:
      UserError: anything wrong in the overrides; nothing has compiled.
    """
    given = parse(overrides)
    values = [
        _sweep_value(label, build.as_typed(asked, given), kept) for label, asked in expand(given)
    ]
    check_read(given, [build.idle(value.config) for value in values])
    jobs: dict[str, list[SweepValue]] = {}
    for value in values:
        jobs.setdefault(signature(value), []).append(value)
    return [Job(values) for values in jobs.values()]


def _sweep_value(label: dict[str, Any], asked: Config, kept: Path | None) -> SweepValue:
    build.check_method(asked.method)
    asked.check_against_method()
    env = asked.env if kept is None else inputs.kept(asked.env, kept)
    value = SweepValue(label, asked, build.environment(env))
    _check_env(asked, value.env)
    if asked.offline is None:
        return value
    path = asked.offline if kept is None else inputs.kept_file(asked.offline, kept)
    return value._replace(recorded=episodes.read(Path(path), value.env, asked.segment_length))


def signature(value: SweepValue) -> str:
    """Equal for values that one program can run."""
    static = dataclasses.replace(value.config.static(), env={})
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(value.env.params)]
    return repr((static, value.env.signature, shapes))


def _check_env(asked: Config, env: Env | HostEnv) -> None:
    if asked.act_search > 0 and isinstance(env, HostEnv):
        raise UserError(
            f"act_search={asked.act_search} needs games on the device; {asked.env['kind']} runs on "
            "the host and takes act_search=0"
        )
    if asked.offline is not None and isinstance(env, HostEnv):
        raise UserError(
            f"offline={asked.offline} needs an environment on the device; {asked.env['kind']} runs "
            "on the host and takes offline=null"
        )
    build.network(asked, env.spec)  # refuses one for images where there are none
    longest = env.spec.episode_limit + 1
    if longest == 2 and asked.segment_length != 2:
        raise UserError(
            f"segment_length={asked.segment_length} must be 2 in a one-step game; raise n_envs to "
            "collect more plays at a time"
        )
    goes_on = asked.goes_on and not isinstance(env, HostEnv)
    if asked.segment_length < longest and not goes_on:
        raise UserError(
            f"segment_length={asked.segment_length} cannot hold an episode of "
            f"{env.spec.episode_limit} steps; set segment_length={longest} or more"
            + " (on the device, learner=parallel needs no whole episodes)"
            * asked.goes_on
        )
