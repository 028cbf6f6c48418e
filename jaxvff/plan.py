"""From overrides to groups of lanes: sweeps, and which values share a compiled program."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from jaxvff import config, train
from jaxvff.config import Config
from jaxvff.envs import ENVS
from jaxvff.options import bind_env
from jaxvff.types import Env, HostEnv, UserError

# Where results go, as if they went nowhere: it decides neither a number nor a program.
OUTPUT: dict[str, Any] = {"run_dir": None, "tensorboard": False, "wandb": None}


class Value(NamedTuple):
    """One value of a sweep (or the only one): its label, config and environment."""

    label: dict[str, Any]
    config: Config
    env: Env


class Group(NamedTuple):
    """Sweep values that run in one compiled program, each with the same number of seeds."""

    values: list[Value]

    @property
    def config(self) -> Config:
        """The config that all values share but for traced fields."""
        return self.values[0].config

    @property
    def n_lanes(self) -> int:
        """Sweep values times seeds."""
        return len(self.values) * self.config.seeds

    @property
    def name(self) -> str:
        """The method and environment kind, and the first label."""
        label = ",".join(f"{k}={v}" for k, v in self.values[0].label.items())
        return "_".join(filter(None, [self.config.method["name"], label])).replace("/", "-")

    def fingerprint(self) -> str:
        """Changes with anything that decides the numbers of a run, but for its length."""
        length: dict[str, Any] = {"total_steps": 2**40, "checkpoint_interval": 0, **OUTPUT}
        digest = hashlib.sha256()
        for value in self.values:
            digest.update(repr(dataclasses.replace(value.config, **length)).encode())
        for leaf in jax.tree.leaves(self.lanes()):
            digest.update(np.asarray(leaf).tobytes())
        return digest.hexdigest()

    def lanes(self) -> train.Lane:
        """What differs between lanes; values outside, seeds inside."""
        seeds = self.config.seeds
        hypers = [jax.tree.map(np.float32, value.config.hyper()) for value in self.values]
        firsts = [v.config.seed for v in self.values]
        params = [
            v.env.params_for(seed)
            for v, first in zip(self.values, firsts, strict=True)
            for seed in range(first, first + seeds)
        ]

        def stack(*leaves: Any) -> Any:
            return jnp.asarray(np.stack([np.asarray(x) for x in leaves]))

        first = [np.arange(first, first + seeds) for first in firsts]
        return train.Lane(
            hyper=jax.tree.map(lambda *x: jnp.repeat(stack(*x), seeds), *hypers),
            env_params=jax.tree.map(stack, *params),
            seed=jnp.asarray(np.concatenate(first).astype(np.uint32)),
        )


def plan(overrides: list[str]) -> list[Group]:
    """The groups that `overrides` ask for, `sweep.<key>=[...]` among them.

    Values of a sweep whose configs differ in traced fields only (types.Hyper, the payoffs) share
    a group, hence a compiled program and a vmap.

    Raises:
      UserError: anything wrong in the overrides; nothing has compiled.
    """
    fixed, sweeps = split_sweeps(overrides)
    grid = [
        dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values())
    ]
    base: dict[Any, dict[str, Any]] = {}
    groups: dict[Any, list[Value]] = {}
    for label in grid:
        composed = {k: v for k, v in label.items() if k in ("env", "method")}
        key = tuple(composed.items())
        if key not in base:  # Hydra composes slowly; what is no group is set on a copy
            base[key] = config.compose_dict([*fixed, *(f"{k}={v}" for k, v in composed.items())])
        values = copy.deepcopy(base[key])
        for name, setting in label.items():
            if name not in composed:
                _set(values, name, setting)
        one = config.build(values)
        value = Value(label, one, bind_env(one.env, ENVS))
        _check_env(one, value.env)
        groups.setdefault(_signature(value), []).append(value)
    return [Group(values) for values in groups.values()]


def split_sweeps(overrides: list[str]) -> tuple[list[str], dict[str, list]]:
    """Take the `sweep.<key>=[...]` out of the overrides, as lists by key."""
    fixed, sweeps = [], {}
    for text in overrides:
        if not text.startswith("sweep."):
            fixed.append(text)
            continue
        text = text.removeprefix("sweep.")
        try:
            override = OverridesParser.create().parse_override(text)
            values = override.value()
        except (HydraException, ValueError) as error:
            raise UserError(f"sweep.{text} cannot be read; write sweep.lr=[1e-3,1e-4]") from error
        if not isinstance(values, list) or not values:
            raise UserError(f"sweep.{text} needs a list of values, such as sweep.lr=[1e-3,1e-4]")
        sweeps[override.key_or_group] = values
    for name in ("seeds", *OUTPUT):
        if name in sweeps:
            raise UserError(f"sweep.{name} is no sweep; {name}= takes one value")
    for name in ("env", "method"):
        if bad := [v for v in sweeps.get(name, []) if not isinstance(v, str)]:
            raise UserError(f"sweep.{name}: {bad[0]!r} is no name; write sweep.{name}=[one,two]")
    if twice := {text.split("=", 1)[0] for text in fixed} & sweeps.keys():
        raise UserError(f"{min(twice)} is set and swept; keep {min(twice)}= or sweep.{min(twice)}=")
    return fixed, sweeps


def _set(values: dict[str, Any], key: str, setting: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise UserError(f"sweep.{key}: {part} has no parts")
    values[last] = setting


def _signature(value: Value) -> Any:
    """Equal for values that one program can run."""
    static = dataclasses.replace(value.config.static(), env={}, **OUTPUT)
    shapes = [(x.shape, str(x.dtype)) for x in jax.tree.leaves(value.env.params)]
    return repr((static, value.env.signature, shapes))


def _check_env(one: Config, env: Env | HostEnv) -> None:
    if one.act_search > 0 and isinstance(env, HostEnv):
        raise UserError(
            f"act_search={one.act_search} needs games on the device; {one.env['kind']} runs on the "
            "host and takes act_search=0"
        )
    longest = env.spec.episode_limit + 1
    if longest == 2 and one.segment_length != 2:
        raise UserError(
            f"segment_length={one.segment_length} must be 2 in a one-step game; raise n_envs to "
            "collect more plays at a time"
        )
    if one.segment_length < longest:
        raise UserError(
            f"segment_length={one.segment_length} cannot hold an episode of "
            f"{env.spec.episode_limit} steps; set segment_length={longest} or more"
        )
