"""Any JaxMARL environment with discrete actions and one reward for the team."""

from __future__ import annotations

import difflib
import io
import sys
import warnings
from functools import partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.envs import jaxmarl_render
from jaxvff.types import Array, Env, EnvSpec, Outcome, UserError, View


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


TEAM_REWARDS = ("shared", "sum", "mean")
CHECK_ENVS, CHECK_STEPS = 64, 25  # random play that looks whether rewards are shared


def make(
    *,
    name: str,
    options: dict[str, Any] | None = None,
    team_reward: str = "shared",
    reward_scale: float = 1.0,
) -> Env:
    """An environment of JaxMARL behind `Env`.

    Observations and action sets are padded to the largest of all agents. The state is what all
    agents observe, as in JaxMARL's own Q-learning baselines.

    Args:
      name: as in jaxmarl.make.
      options: its keyword arguments; `layout` of overcooked is a name.
      team_reward: "shared" wants equal rewards for all agents; "sum" and "mean" make one of them.
      reward_scale: factor on all rewards.

    Raises:
      UserError: an unknown name or option, continuous actions, or rewards that differ.
    """
    jaxmarl = quiet_import()
    known = sorted(jaxmarl.registered_envs)
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.3)
        raise UserError(f"env.name={name!r} is unknown; choose one of {', '.join(near or known)}")
    if "SMAX" in name:
        raise UserError(f"env.name={name!r} has environments of its own; use env=smax/<map>")
    if team_reward not in TEAM_REWARDS:
        raise UserError(f"env.team_reward={team_reward!r}; choose one of {', '.join(TEAM_REWARDS)}")
    if not isinstance(reward_scale, int | float) or not 0 < reward_scale < np.inf:
        raise UserError(f"env.reward_scale={reward_scale!r} must be above 0 and finite")
    game = _game(jaxmarl, name, dict(options or {}))
    spec = _spec(game, name)
    if team_reward == "shared" and (differing := _differing(game, spec)):
        raise UserError(
            f"env.name={name}: rewards differ between agents ({differing}); the methods here need "
            "one reward for the team: set env.team_reward=sum (or mean)"
        )
    return _env(game, spec, name, options or {}, team_reward, float(reward_scale))


def _game(jaxmarl: ModuleType, name: str, options: dict[str, Any]) -> Any:
    if "layout" in options:
        layouts = _layouts(name)
        if options["layout"] not in layouts:
            raise UserError(
                f"env.options.layout={options['layout']!r} is unknown; choose one of "
                f"{', '.join(layouts)}"
            )
        options["layout"] = layouts[options["layout"]]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # overcooked points to its v2
            return jaxmarl.make(name, **options)
    except (TypeError, ValueError, AssertionError, ImportError, UnboundLocalError) as error:
        raise UserError(f"env.name={name} cannot be made: {error}") from error


def _layouts(name: str) -> dict[str, Any]:
    if name == "overcooked_v2":
        from jaxmarl.environments.overcooked_v2 import overcooked_v2_layouts

        return overcooked_v2_layouts
    from jaxmarl.environments.overcooked import overcooked_layouts

    return overcooked_layouts


def _spec(game: Any, name: str) -> EnvSpec:
    spaces = [game.action_space(agent) for agent in game.agents]
    if any(not hasattr(space, "n") for space in spaces):
        raise UserError(
            f"env.name={name} has continuous actions; value factorisation needs discrete ones"
        )
    limit = getattr(game, "max_steps", None)
    if not isinstance(limit, int | np.integer):
        raise UserError(f"env.name={name} has no max_steps: how long its episodes are is unknown")
    sizes = jax.eval_shape(lambda k: game.reset(k)[0], jax.random.key(0))
    largest = max(int(np.prod(sizes[agent].shape)) for agent in game.agents)
    n = len(game.agents)
    # MPE's clock is compared before it moves: its episodes are a step longer than max_steps.
    return EnvSpec(n, max(s.n for s in spaces), largest, n * largest, int(limit) + 1, largest)


def _differing(game: Any, spec: EnvSpec) -> str:
    """Two agents whose rewards differ in random play, or nothing."""

    def play(key: Array) -> Array:
        reset_key, key = jax.random.split(key)
        limits = jnp.array([game.action_space(agent).n for agent in game.agents])

        def step(state: Any, key: Array) -> tuple[Any, Array]:
            action_key, step_key = jax.random.split(key)
            action = jax.random.randint(action_key, (spec.n_agents,), 0, limits)
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


def _env(
    game: Any, spec: EnvSpec, name: str, options: dict[str, Any], team: str, scale: float
) -> Env:
    agents = game.agents
    sizes = np.array([game.action_space(agent).n for agent in agents])
    padding = np.arange(spec.n_actions) < sizes[:, None]
    limit = int(game.max_steps)
    merge = {"shared": lambda r: r[0], "sum": jnp.sum, "mean": jnp.mean}[team]
    # The base class declares it and returns None.
    masked = "get_avail_actions" in {k for c in type(game).__mro__[:-2] for k in vars(c)}

    def stacked(obs: dict[str, Array]) -> Array:
        flat = [obs[agent].astype(jnp.float32).reshape(-1) for agent in agents]
        return jnp.stack([jnp.pad(x, (0, spec.obs_size - len(x))) for x in flat])

    def reset(key: Array, params: Any) -> tuple[Any, Array]:
        obs, state = game.reset(key)
        return state, stacked(obs)

    def step(key: Array, now: Any, action: Array, params: Any) -> tuple[Any, Outcome]:
        joint = dict(zip(agents, action, strict=True))
        obs, state, reward, done, _ = game.step_env(key, now[0], joint)
        rewards = jnp.stack([reward[agent].reshape(()) for agent in agents])
        over = done["__all__"].reshape(())
        late = over & (state.step >= limit)
        outcome = Outcome(
            reward=scale * merge(rewards).astype(jnp.float32),
            terminated=over & ~late,
            truncated=late,
        )
        return (state, stacked(obs)), outcome

    def observe(now: Any, params: Any) -> View:
        state, obs = now
        avail = jnp.asarray(padding)
        if masked:
            legal = game.get_avail_actions(state)
            rows = [jnp.pad(legal[x], (0, spec.n_actions - len(legal[x]))) for x in agents]
            avail = avail & (jnp.stack(rows) > 0)
        return View(obs, obs.reshape(-1), avail)

    signature = ("jaxmarl", name, repr(options), team, scale)
    render = jaxmarl_render.renderer(name)
    return Env(spec, (), reset, step, observe, signature, render=render and partial(render, game))
