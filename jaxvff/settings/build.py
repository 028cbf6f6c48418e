"""The only place that turns a Config into parts: an environment, networks, a learner."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn

from jaxvff.core import options
from jaxvff.core.errors import check_name
from jaxvff.core.registry import load
from jaxvff.core.segments import cleaned, plain_codec, with_context
from jaxvff.core.types import Env, EnvSpec, HostEnv, Params, Revise
from jaxvff.envs import ENVS
from jaxvff.learning.learner import Learner, Parts
from jaxvff.learning.options import LEARNERS
from jaxvff.losses.contract import Loss, Model
from jaxvff.losses.options import BOOTSTRAPS, RETURNS
from jaxvff.methods.table import METHODS
from jaxvff.networks import utility
from jaxvff.networks.options import UTILITIES
from jaxvff.networks.utility import Network, Utility
from jaxvff.playing.explore import Explorer
from jaxvff.playing.options import EXPLORERS
from jaxvff.settings.config import Config
from jaxvff.settings.overrides import Override

# Parts.slots_at_once on a CPU: two segments of SMAX (docs/decisions.md).
CPU_SLOTS = 256
# Hidden units of one update that a core's cache has room for, and the most lanes that share it.
CPU_UNITS, CPU_LANES, OTHER_LANES = 2**16, 16, 64


def environment(asked: Mapping[str, Any]) -> Env | HostEnv:
    """The environment that `Config.env` asks for: its "kind", and that kind's options.

    Raises:
      UserError: an unknown kind or option, or a value out of its range.
    """
    rest = dict(asked)
    name = rest.pop("kind", None)
    check_name(name, ENVS, "env.kind")
    kind = ENVS[name]
    return kind.make(options.make(kind.options, rest, "env.", f"{name} environments"))


def as_typed(asked: Config, overrides: Iterable[Override]) -> Config:
    """A config whose environment has what was typed for it, where an option takes a text.

    Without knowing the option, `env.file=1e3` reads as a number.

    Args:
      asked: from settings.sweep.
      overrides: that it was made from.

    Raises:
      UserError: a value of the wrong type, or out of its range.
    """
    check_name(asked.env.get("kind"), ENVS, "env.kind")
    known = {f"env.{o.name}": o for o in options.options_of(ENVS[asked.env["kind"]].options)}
    read = {
        known[o.key].name: options.from_text(known[o.key], o.value, o.value_text, "env.")
        for o in overrides
        if o.key in known and not o.swept
    }
    texts = {name: value for name, value in read.items() if value is None or isinstance(value, str)}
    return dataclasses.replace(asked, env=asked.env | texts)


def idle(asked: Config) -> dict[str, str]:
    """The keys of an environment and a method that nothing reads, each with the reason."""
    out = options.idle(ENVS[asked.env["kind"]].options, asked.env, "env.")
    for kind in method_classes(asked.method["name"]):
        out |= options.idle(kind, asked.method, "method.")
    return out


def check_method(asked: Mapping[str, Any]) -> None:
    """Hold the options of a method against what its mixer and loss take.

    Args:
      asked: `Config.method`: "name", and options.

    Raises:
      UserError: an unknown method or option, or a value out of its range.
    """
    check_name(asked.get("name"), METHODS, "method")
    known = {o.name: o for kind in method_classes(asked["name"]) for o in options.options_of(kind)}
    given = {k: v for k, v in asked.items() if k != "name"}
    options.check_keys(given, known, "method.", str(asked["name"]))
    for key, value in given.items():
        options.check_value(known[key], value, "method.")


def mixer(asked: Mapping[str, Any], spec: EnvSpec, hidden_dim: int) -> nn.Module:
    """The mixer of a method, with its options.

    Args:
      asked: `Config.method`.
      spec: of the environment.
      hidden_dim: H, of the utility networks.
    """
    made = context(asked, spec)
    size = made.size if made is not None else 0
    parts = {"spec": spec, "hidden_dim": hidden_dim, "context_size": size}
    return _with_options(load(METHODS[asked["name"]].mixer), asked, **parts)


def context(asked: Mapping[str, Any], spec: EnvSpec) -> Any:
    """What the team draws for an episode, a networks.contexts.Context; None: nothing.

    Args:
      asked: `Config.method`.
      spec: of the environment.
    """
    reference = METHODS[asked["name"]].context
    return None if reference is None else _with_options(load(reference), asked, spec=spec)


def loss(asked: Mapping[str, Any]) -> Loss:
    """The loss of a method, with its options."""
    return _with_options(load(METHODS[asked["name"]].loss), asked)


def network(config: Config, spec: EnvSpec) -> Network:
    """The utility network that a config asks for.

    Raises:
      UserError: it looks at images, and the environment shows none.
    """
    head = load(METHODS[config.method["name"]].head)
    return utility.network(UTILITIES[config.utility], spec, config.hidden_dim, head, config.norm)


def model(config: Config, env: Env | HostEnv) -> Model:
    """The networks and target rules that a config asks for."""
    method = METHODS[config.method["name"]]
    made = context(config.method, env.spec)
    return Model(
        utility=Utility(
            network(config, env.spec),
            env.spec,
            config.shared,
            config.agent_id,
            config.last_action,
            context_size=made.size if made is not None else 0,
        ),
        mixer=mixer(config.method, env.spec, config.hidden_dim),
        bootstrap=BOOTSTRAPS[config.target],
        returns=RETURNS[config.returns],
        n_step=config.n_step,
        utility_sets=("utility", *method.other_utilities),
        context=made,
    )


def parts(config: Config, env: Env | HostEnv) -> Parts:
    """What a config's learner is made of."""
    codec = env.codec or plain_codec(env.spec)  # the latter keeps a context as it is
    if env.codec and METHODS[config.method["name"]].context:
        codec = with_context(codec)
    return Parts(
        model=model(config, env),
        loss=loss(config.method),
        memory=load(METHODS[config.method["name"]].memory)(config),
        codec=cleaned(codec),
        n_envs=config.n_envs,
        n_slots=config.segment_length,
    )


def learner(config: Config, env: Env | HostEnv, platform: str | None = None) -> Learner:
    """The learner that a config asks for, in the environment `env`.

    Args:
      config: what is trained.
      env: what is played.
      platform: of the devices that learn; None: not known, so that nothing is done for it.
    """
    slots_at_once = CPU_SLOTS if platform == "cpu" else None
    made = parts(config, env)._replace(slots_at_once=slots_at_once)
    return LEARNERS[config.learner](made, config)


def lanes_at_once(config: Config, env: Env | HostEnv, platform: str) -> int:
    """How many lanes a device vmaps at once: what the config says, or what is fast.

    Args:
      config: what is trained.
      env: what is played.
      platform: of the device.
    """
    if config.lanes_per_device is not None:
        return config.lanes_per_device
    if platform != "cpu":
        return OTHER_LANES
    if env.codec is not None and env.codec.merge is not None:
        return CPU_LANES  # a batch becomes a few plays
    replays = config.learner == "replay"
    n_segments = config.batch_size if replays else config.n_envs // config.minibatches
    slots = min(n_segments * config.segment_length, CPU_SLOTS)
    units = slots * env.spec.n_agents * config.hidden_dim
    return min(max(CPU_UNITS // units, 1), CPU_LANES)


def explorer(config: Config) -> Explorer:
    """How agents pick actions while experience is collected."""
    return EXPLORERS[config.explore]


def acting_on_search(config: Config, model: Model) -> Callable[[Params], Revise] | None:
    """Of acting parameters: what the team plays instead of what its agents pick; None: nothing."""
    if config.act_search == 0:
        return None
    revise = load(METHODS[config.method["name"]].act_on_search or "")
    return partial(revise, model, loss(config.method), share=config.act_search)


def method_classes(name: str) -> list[type]:
    """What has the options of a method: its mixer and its loss, and its context if it has one."""
    method = METHODS[name]
    references = (method.mixer, method.loss, method.context)
    return [load(reference) for reference in references if reference is not None]


def _with_options(kind: type, asked: Mapping[str, Any], **context: object) -> Any:
    """An instance of a part of a method: a user's options, what is fixed, what it has to know."""
    fields = {f.name for f in dataclasses.fields(kind)}
    given = {k: v for k, v in asked.items() if k != "name"}
    values = {**context, **METHODS[asked["name"]].fixed, **given}
    return kind(**{k: v for k, v in values.items() if k in fields})
