"""Any JaxMARL environment with discrete actions and one reward for the team."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import UserError, check_name
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Env, EnvKind, EnvParams, EnvSpec, EnvState, Outcome, View
from jaxvff.envs import jaxmarl_render

# The team reward of all agents' rewards [A]; "shared" is what they all get.
TEAM_REWARDS = {"shared": lambda r: r[0], "sum": jnp.sum, "mean": jnp.mean}
CHECK_ENVS, CHECK_STEPS = 64, 25  # of the random play that tells whether rewards are shared


def quiet_import() -> ModuleType:
    """The package jaxmarl, without what it prints when it is first imported.

    One of its modules sets sys.stdout and sys.stderr back to the process's own, hence all four.
    """
    names = ("stdout", "stderr", "__stdout__", "__stderr__")
    before = {name: getattr(sys, name) for name in names}
    try:
        for name in names:
            setattr(sys, name, io.StringIO())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import jaxmarl
    finally:
        for name, stream in before.items():
            setattr(sys, name, stream)
    return jaxmarl


def import_alone(name: str) -> None:
    """Import a module without the `__init__` of the packages around it.

    JaxMARL's imports all its environments, which takes 2.4 s where SMAX alone takes 0.3 s. The
    packages stay importable: whoever asks for them later gets them whole.

    Args:
      name: of the module, such as "jaxmarl.environments.smax".
    """
    parts = name.split(".")
    around = [".".join(parts[:i]) for i in range(1, len(parts))]
    bare = [package for package in around if package not in sys.modules]
    try:
        for package in bare:
            module, spec = ModuleType(package), importlib.util.find_spec(package)
            if spec is None or spec.submodule_search_locations is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
            module.__path__ = list(spec.submodule_search_locations)
            sys.modules[package] = module
        importlib.import_module(name)
    finally:
        for package in bare:
            sys.modules.pop(package, None)


@dataclass(frozen=True, kw_only=True)
class TeamOptions:
    """What the rewards of several agents become, and how long an episode is."""

    max_steps: int | None = option(
        None,
        "longest episode, cut there; null: the environment's own max_steps",
        unit="env steps",
        low=1,
    )
    team_reward: str = option(
        "shared",
        "the team's reward: the one that all agents share, or the sum or mean of theirs",
        names=TEAM_REWARDS,
    )
    reward_scale: float = option(1.0, "factor on all rewards", low=0, above=True)

    def __post_init__(self) -> None:
        check(self, "env.")


@dataclass(frozen=True, kw_only=True)
class Options(TeamOptions):
    """Which environment, and what its agents' rewards become."""

    name: str = option(MISSING, "the environment, as in jaxmarl.make")
    options: Mapping[str, Any] | None = option(
        None, "its keyword arguments; overcooked takes the name of a layout"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name, sorted(quiet_import().registered_envs), "env.name")
        if "SMAX" in self.name:
            raise UserError(
                f"env.name={self.name!r} has environments of its own; use env=smax/<map>"
            )


def make(options: Options) -> Env:
    """An environment of JaxMARL behind `Env`.

    Raises:
      UserError: options that the environment does not take, or what `adapted` raises.
    """
    about = ("jaxmarl", options.name, repr(options.options or {}))
    render = jaxmarl_render.renderer(options.name)
    return adapted(_make_game(options), f"env.name={options.name}", about, options, render)


def adapted(game: Any, name: str, about: object, options: TeamOptions, render: Any = None) -> Env:
    """An environment with JaxMARL's interface behind `Env`.

    Observations and action sets are padded to the largest of all agents. The state is what all
    agents observe, as in JaxMARL's own Q-learning baselines.

    Args:
      game: the environment.
      name: what the user chose it by, for messages.
      about: what its functions depend on.
      options: what is made of its rewards and of its length.
      render: (game, states, the .gif to write, how it ended); None: it cannot be drawn.

    Raises:
      UserError: continuous actions, no length, or rewards that differ between agents although
        `team_reward` says that they are shared.
    """
    spec = _spec(game, name, options.max_steps)
    if options.team_reward == "shared" and (example := _unequal_rewards(game, spec)):
        raise UserError(
            f"{name}: rewards differ between agents ({example}); the methods here "
            "need one reward for the team: set env.team_reward=sum (or mean)"
        )
    return _env(game, spec, about, options, render)


KIND = EnvKind(Options, make)


def _make_game(options: Options) -> Any:
    """JaxMARL's environment."""
    name, arguments = options.name, dict(options.options or {})
    if "layout" in arguments:
        layouts = _layouts(name)
        check_name(arguments["layout"], layouts, "env.options.layout")
        arguments["layout"] = layouts[arguments["layout"]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # overcooked points to its v2
            return quiet_import().make(name, **arguments)
    except (TypeError, ValueError, AssertionError, ImportError, UnboundLocalError) as error:
        raise UserError(f"env.name={name} cannot be made: {error}") from error


def _layouts(name: str) -> dict[str, Any]:
    if name == "overcooked_v2":
        from jaxmarl.environments.overcooked_v2 import overcooked_v2_layouts

        return overcooked_v2_layouts
    from jaxmarl.environments.overcooked import overcooked_layouts

    return overcooked_layouts


def _spec(game: Any, name: str, max_steps: int | None) -> EnvSpec:
    spaces = [game.action_space(agent) for agent in game.agents]
    if any(not hasattr(space, "n") for space in spaces):
        raise UserError(f"{name} has continuous actions; value factorisation needs discrete ones")
    limit = getattr(game, "max_steps", None) if max_steps is None else max_steps - 1
    if not isinstance(limit, int | np.integer):
        raise UserError(
            f"{name} does not say how long its episodes are; set env.max_steps=<env steps>, where "
            "they are to be cut"
        )
    shapes = jax.eval_shape(lambda key: game.reset(key)[0], jax.random.key(0))
    seen = {shapes[agent].shape for agent in game.agents}
    obs_size = max(int(np.prod(shape)) for shape in seen)
    is_image = len(seen) == 1 and len(min(seen)) == 3
    n_agents = len(game.agents)
    return EnvSpec(
        n_agents=n_agents,
        n_actions=max(space.n for space in spaces),
        obs_size=obs_size,
        state_size=n_agents * obs_size,
        # MPE's clock is compared before it moves: its episodes are a step longer than max_steps.
        episode_limit=int(limit) + 1,
        agent_state_size=obs_size,
        obs_shape=min(seen) if is_image else (),
    )


def _unequal_rewards(game: Any, spec: EnvSpec) -> str:
    """Two agents whose rewards differ in random play, for a message; empty if none were seen."""

    def play(key: Array) -> Array:
        reset_key, key = jax.random.split(key)
        n_actions = jnp.array([game.action_space(agent).n for agent in game.agents])

        def step(state: EnvState, key: Array) -> tuple[EnvState, Array]:
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (spec.n_agents,), 0, n_actions)
            joint = dict(zip(game.agents, action, strict=True))
            _, state, reward, _, _ = game.step(step_key, state, joint)
            return state, jnp.stack([reward[agent] for agent in game.agents])

        state = game.reset(reset_key)[1]
        return jax.lax.scan(step, state, jax.random.split(key, CHECK_STEPS))[1]

    keys = jax.random.split(jax.random.key(0), CHECK_ENVS)
    rewards = np.asarray(jax.jit(jax.vmap(play))(keys)).reshape(-1, spec.n_agents)
    unequal = np.argwhere(~np.isclose(rewards, rewards[:, :1]))
    if not len(unequal):
        return ""
    row, agent = unequal[0]
    first, second = game.agents[0], game.agents[agent]
    return f"{first}: {rewards[row, 0]:g}, {second}: {rewards[row, agent]:g}"


def _env(game: Any, spec: EnvSpec, about: object, options: TeamOptions, render: Any) -> Env:
    """Functions of JaxMARL's environment.

    Their state is `(JaxMARL's state, padded observations [A, O], env steps so far)`: JaxMARL
    computes observations in its step, and `observe` returns them.
    """
    agents, limit, cut = game.agents, getattr(game, "max_steps", None), options.max_steps
    own_actions = np.array([game.action_space(agent).n for agent in agents])
    exists = np.arange(spec.n_actions) < own_actions[:, None]  # [A, U]; the others are padding
    team_reward, scale = TEAM_REWARDS[options.team_reward], float(options.reward_scale)
    # JaxMARL's base class declares get_avail_actions and returns None: look at what overrides it.
    tells_available = any("get_avail_actions" in vars(owner) for owner in type(game).__mro__[:-2])

    def padded(obs: dict[str, Array]) -> Array:
        flat = [obs[agent].astype(jnp.float32).reshape(-1) for agent in agents]
        return jnp.stack([jnp.pad(x, (0, spec.obs_size - len(x))) for x in flat])

    Now = tuple[EnvState, Array, Array]

    def reset(key: Array, params: EnvParams) -> Now:
        obs, state = game.reset(key)
        return state, padded(obs), jnp.zeros((), jnp.int32)

    def step(key: Array, now: Now, action: Array, params: EnvParams) -> tuple[Now, Outcome]:
        joint = dict(zip(agents, action, strict=True))
        obs, state, reward, done, _ = game.step_env(key, now[0], joint)
        rewards = jnp.stack([reward[agent].reshape(()) for agent in agents])
        over = done["__all__"].reshape(())
        n_steps = now[2] + 1
        late = over & (state.step >= int(limit)) if limit is not None else jnp.zeros((), bool)
        outcome = Outcome(
            reward=scale * team_reward(rewards).astype(jnp.float32),
            terminated=over & ~late,
            truncated=late if cut is None else late | (~over & (n_steps >= cut)),
        )
        return (state, padded(obs), n_steps), outcome

    def observe(now: Now, params: EnvParams) -> View:
        state, obs, _ = now
        avail = jnp.asarray(exists)
        if tells_available:
            told = game.get_avail_actions(state)
            rows = [jnp.pad(told[x], (0, spec.n_actions - len(told[x]))) for x in agents]
            avail = avail & (jnp.stack(rows) > 0)
        return View(obs, obs.reshape(-1), avail)

    return Env(
        spec=spec,
        params=(),
        reset=reset,
        step=step,
        observe=observe,
        signature=(about, options.team_reward, scale, cut),
        render=render and partial(render, game),
    )
