"""Environments of other packages, by `env=package.module:name` or by an entry point."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax

from jaxvff.core.errors import UserError
from jaxvff.core.options import check, option
from jaxvff.core.types import Array, Env, EnvKind, EnvState, HostEnv
from jaxvff.envs.jaxmarl import TeamOptions, adapted

TEAM_FIELDS = tuple(f.name for f in dataclasses.fields(TeamOptions))


def kind(reference: str, found: object) -> EnvKind:
    """The kind of environment that a reference leads to.

    Args:
      reference: `package.module:name`.
      found: an EnvKind; a class with JaxMARL's interface, or with gymnax's, whose only agent is
        then the team; or a function of such arguments as `env.<argument>=` can set, which makes an
        Env, a HostEnv or an instance of such a class.

    Raises:
      UserError: it is none of these.
    """
    if isinstance(found, EnvKind):
        return found
    if not callable(found):
        raise UserError(
            f"env={reference} is no environment: it must be a jaxvff.core.types.EnvKind, a class "
            "like JaxMARL's or gymnax's, or a function that makes an Env (docs/plug-ins.md)"
        )
    a_class = isinstance(found, type) and hasattr(found, "step_env")
    options = _options(reference, found, TeamOptions if a_class else None)

    def make(given: Any) -> Env | HostEnv:
        return _made(reference, found, given)

    return EnvKind(options, make)


def _options(reference: str, found: Callable, base: type | None) -> type:
    """The arguments of a function or class as options, after those of `base`."""

    def check_all(self: object) -> None:
        check(self, "env.")

    taken = () if base is None else TEAM_FIELDS
    fields = [
        (name, annotation, _option(default, f"argument of {reference}"))
        for name, annotation, default in _arguments(found)
        if name not in taken
    ]
    return dataclasses.make_dataclass(
        "Options",
        fields,
        bases=() if base is None else (base,),
        namespace={"__post_init__": check_all, "__doc__": f"The arguments of {reference}."},
        frozen=True,
        kw_only=True,
    )


def _option(default: object, text: str) -> Any:
    """An option; arrays and other mutable defaults are handed on as they are."""
    if default is dataclasses.MISSING or isinstance(default, (list, dict, Hashable)):
        return option(default, text)
    metadata = option(None, text).metadata
    return dataclasses.field(default_factory=lambda: default, metadata=metadata)


def _arguments(found: Callable) -> Iterator[tuple[str, object, object]]:
    """Name, type and default of each argument that has a name."""
    try:
        parameters = inspect.signature(found, eval_str=True).parameters
    except NameError:  # an annotation that is there for a type checker only
        parameters = inspect.signature(found).parameters
    for name, each in parameters.items():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        known = isinstance(each.annotation, type) and each.annotation is not each.empty
        default = dataclasses.MISSING if each.default is each.empty else each.default
        yield name, each.annotation if known else object, default


def _made(reference: str, found: Callable, given: Any) -> Env | HostEnv:
    """The environment with a user's options."""
    values = vars(given)
    team = {name: values[name] for name in TEAM_FIELDS if isinstance(given, TeamOptions)}
    own = [name for name, _, _ in _arguments(found)]
    # A class may have an argument of a name that TeamOptions has; unset, it keeps its own default.
    arguments = {name: values[name] for name in own if name not in team or team[name] is not None}
    try:
        made = found(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"env={reference} cannot be made: {error}") from error
    if isinstance(made, (Env, HostEnv)):
        return made
    if not hasattr(made, "step_env"):
        raise UserError(
            f"env={reference} made a {type(made).__name__}; it must make a jaxvff.core.types.Env "
            "or HostEnv, or an environment like JaxMARL's or gymnax's (docs/plug-ins.md)"
        )
    game = made if hasattr(made, "agents") else OneAgent(made)
    about = (reference, repr(arguments))
    return adapted(game, f"env={reference}", about, TeamOptions(**team))


class OneAgent:
    """A gymnax environment with JaxMARL's interface: its agent is a team of one."""

    agents = ("agent_0",)

    def __init__(self, game: Any) -> None:
        """`game`: with its default parameters."""
        self._game, self._params = game, game.default_params
        self.max_steps = getattr(self._params, "max_steps_in_episode", None)

    def action_space(self, agent: str) -> Any:
        """The actions, `n` of them."""
        return self._game.action_space(self._params)

    def reset(self, key: Array) -> tuple[dict[str, Array], EnvState]:
        """What the agent sees, and the state."""
        obs, state = self._game.reset(key, self._params)
        return {"agent_0": obs}, Clocked(state)

    def step_env(self, key: Array, state: Clocked, action: dict[str, Array]) -> tuple[Any, ...]:
        """A step that does not reset itself."""
        obs, inner, reward, done, info = self._game.step_env(
            key, state.inner, action["agent_0"], self._params
        )
        return {"agent_0": obs}, Clocked(inner), {"agent_0": reward}, {"__all__": done}, info

    step = step_env  # what looks for unequal rewards plays on after an end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Clocked:
    """A state of gymnax, whose clock has JaxMARL's name."""

    inner: EnvState

    @property
    def step(self) -> Array:
        """Env steps of the episode."""
        return self.inner.time
