"""Free options of methods and environments, checked against what they accept."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn

from jaxvff.losses import Loss
from jaxvff.methods import METHODS, Method
from jaxvff.types import Env, EnvSpec, UserError


def choose(value: Any, names: Iterable[str], what: str) -> Any:
    """`value`, or a UserError that lists the names and the closest one."""
    names = list(names)
    if value in names:
        return value
    raise UserError(f"{what}={value!r} is unknown{closest(value, names)}")


def closest(value: Any, names: list[str]) -> str:
    """The remedy for an unknown name: the nearest one, or all of them."""
    if not names:
        return "; it takes none"
    near = difflib.get_close_matches(str(value), names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; choose one of {', '.join(names)}"


def bind_mixer(options: Mapping[str, Any], spec: EnvSpec, hidden_dim: int) -> nn.Module:
    """The mixer of `options["name"]`, with its options."""
    method, chosen, _ = _split(options)
    context = {"spec": spec, "hidden_dim": hidden_dim}
    known = {k: v for k, v in context.items() if k in _mixer_fields(method)}
    fixed = {k: v for k, v in method.fixed.items() if k in _mixer_fields(method)}
    return method.mixer(**known, **fixed, **chosen)


def bind_loss(options: Mapping[str, Any]) -> Loss:
    """The loss of `options["name"]`, with its options."""
    method, _, chosen = _split(options)
    if not method.loss_options:
        return method.loss
    fixed = {k: v for k, v in method.fixed.items() if k in _loss_fields(method)}
    return method.loss(**fixed, **chosen)


def check_method(options: Mapping[str, Any]) -> None:
    """Raise a UserError for an unknown method, or an option that it does not take."""
    if "name" not in options:
        raise UserError(f"method has no name{closest('', list(METHODS))}")
    _split(options)


def bind_env(
    options: Mapping[str, Any], envs: Mapping[str, Callable[[], Callable[..., Env]]]
) -> Env:
    """The environment of `options["kind"]`, with its options; factories check their values."""
    rest = dict(options)
    kind = choose(rest.pop("kind", None), envs, "env.kind")
    make = envs[kind]()
    known = list(inspect.signature(make).parameters)
    for key in rest:
        if key not in known:
            raise UserError(f"env.{key} is no option of {kind} environments{closest(key, known)}")
    return make(**rest)


def _split(options: Mapping[str, Any]) -> tuple[Method, dict[str, Any], dict[str, Any]]:
    """The method, the options of its mixer, the options of its loss; all checked."""
    rest = dict(options)
    method = METHODS[choose(rest.pop("name"), METHODS, "method")]
    mixer_fields, loss_fields = _mixer_fields(method), _loss_fields(method)
    free = {**mixer_fields, **loss_fields}
    for taken in ("spec", "hidden_dim", *method.fixed):
        free.pop(taken, None)
    for key, value in rest.items():
        if key not in free:
            raise UserError(
                f"method.{key} is no option of {options['name']}{closest(key, [*free])}"
            )
        _check_number(f"method.{key}", value, free[key])
    mixer = {k: v for k, v in rest.items() if k in mixer_fields}
    return method, mixer, {k: v for k, v in rest.items() if k not in mixer}


def _check_number(key: str, value: Any, default: Any) -> None:
    wanted = (int, float) if isinstance(default, float) else type(default)
    if not isinstance(value, wanted) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise UserError(f"{key}={value!r} must be of type {type(default).__name__}, like {default}")
    if isinstance(default, (int, float)) and not isinstance(default, bool) and not value > 0:
        raise UserError(f"{key}={value} must be above 0; its default is {default}")


def _mixer_fields(method: Method) -> dict[str, Any]:
    skip = ("parent", "name")  # flax's own
    return {f.name: f.default for f in dataclasses.fields(method.mixer) if f.name not in skip}


def _loss_fields(method: Method) -> dict[str, Any]:
    if not method.loss_options:
        return {}
    return {p.name: p.default for p in inspect.signature(method.loss).parameters.values()}
