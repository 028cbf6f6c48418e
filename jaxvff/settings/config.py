"""The configuration: the options of all components, composed from YAML groups by Hydra.

Light to import, so that a mistake is answered before JAX is there.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections import namedtuple
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose as compose_files
from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

import jaxvff.configs
from jaxvff.core import options
from jaxvff.core.errors import UserError, check_name, closest
from jaxvff.core.options import check, from_text, options_of, traced_names
from jaxvff.core.registry import is_reference
from jaxvff.envs import ENVS
from jaxvff.learning.options import LearningOptions
from jaxvff.losses.options import SearchOptions, TargetOptions
from jaxvff.methods.table import METHODS
from jaxvff.networks.options import UtilityOptions
from jaxvff.playing.options import CollectionOptions, ExplorerOptions
from jaxvff.settings.overrides import GROUPS, Override, parse
from jaxvff.settings.run_options import OutputOptions, RunOptions


@dataclass(frozen=True)
class Config(
    RunOptions,
    LearningOptions,
    TargetOptions,
    SearchOptions,
    CollectionOptions,
    ExplorerOptions,
    UtilityOptions,
    OutputOptions,
):
    """Everything that decides a run: the options of every component, and two free groups.

    It can be passed wherever a component's options are wanted.
    """

    env: dict[str, Any] = field(default_factory=dict)  # "kind", and the options of that kind
    method: dict[str, Any] = field(default_factory=dict)  # "name", and the options of that method

    def __post_init__(self) -> None:
        check(self)
        if "name" not in self.method:
            raise UserError(f"method has no name{closest('', METHODS)}")
        check_name(self.method["name"], METHODS, "method")
        self._check_sizes()
        if self.method["name"] in METHODS.own:  # nothing of somebody else's is imported here
            self.check_against_method()

    def _check_sizes(self) -> None:
        if self.seed + self.seeds > 2**32:
            raise UserError(
                f"seed={self.seed} and seeds={self.seeds} go beyond seed 2**32 - 1; lower one"
            )
        if self.total_steps < self.steps_per_iteration:
            raise UserError(
                f"total_steps={self.total_steps} is less than one collection, n_envs · "
                f"(segment_length - 1) = {self.steps_per_iteration} env steps; raise it"
            )
        if self.learner == "replay":
            self._check_replay()

    def _check_replay(self) -> None:
        buffer = f"buffer_size={self.buffer_size}"
        if self.batch_size > self.buffer_size:
            raise UserError(
                f"batch_size={self.batch_size} is larger than {buffer} can hold; lower the one or "
                "raise the other"
            )
        if self.learn_start > self.buffer_size:
            raise UserError(
                f"learn_start={self.learn_start} is never reached with {buffer}; lower the one or "
                "raise the other"
            )
        if self.n_envs > self.buffer_size:
            raise UserError(
                f"n_envs={self.n_envs} segments do not fit in {buffer}; lower the one or raise the "
                "other"
            )

    def check_against_method(self) -> None:
        """Hold what is asked of the method against what it can do.

        Raises:
          UserError: its joint value cannot be searched, or it cannot learn from a file.
        """
        self._check_offline()
        self._check_search()

    def _check_offline(self) -> None:
        """Recorded episodes were not played by who learns from them, and have no context."""
        if self.offline is None:
            return
        name = self.method["name"]
        for is_wrong, asked, instead in (
            (self.goes_on, f"learner={self.learner}", "learner=replay"),
            (METHODS[name].context, f"method={name}", "a method that draws nothing"),
            (self.act_search > 0, f"act_search={self.act_search}", "act_search=0"),
        ):
            if is_wrong:
                raise UserError(
                    f"{asked} needs games that are played while it learns; offline={self.offline} "
                    f"takes {instead}"
                )

    def _check_search(self) -> None:
        """A search needs a method whose joint value can be searched."""
        if METHODS[self.method["name"]].act_on_search:
            return
        for key, asked, instead in (
            ("target", self.target == "search", "target=double"),
            ("act_search", self.act_search > 0, "act_search=0"),
        ):
            if asked:
                able = ", ".join(n for n, m in METHODS.own_parts().items() if m.act_on_search)
                raise UserError(
                    f"{key}={getattr(self, key)} needs a method that searches, {able}; "
                    f"{self.method['name']} takes {instead}"
                )

    @property
    def n_iterations(self) -> int:
        """Collections in a whole run."""
        return self.total_steps // self.steps_per_iteration

    def iterations(self, steps: int) -> int:
        """Collections in `steps` env steps, at least one."""
        return max(1, steps // self.steps_per_iteration)

    @property
    def save_every(self) -> int:
        """Collections between two checkpoints; 0: there is only the last one."""
        return self.iterations(self.checkpoint_interval) if self.checkpoint_interval else 0

    def traced(self) -> Any:
        """The options that are traced, as a core.types.Traced of floats."""
        return _Traced(**{name: float(getattr(self, name)) for name in TRACED})

    def static(self) -> Config:
        """This config without what is traced and where results go: equal ones share a program."""
        plain = {o.name: o.default for o in options_of(Config) if o.about.traced}
        return dataclasses.replace(self, seed=0, **plain, **OUTPUTS)


# The components whose options a user sets by their plain names, in the order of the reference page.
COMPONENTS = tuple(
    component
    for base in Config.__bases__
    for component in (base.__bases__ if base is LearningOptions else (base,))
)
TRACED = traced_names(Config)
_Traced = namedtuple("Traced", TRACED)  # type: ignore[misc]
_OPTIONS = {o.name: o for o in options_of(Config)}
# Where results go, as if they went nowhere.
OUTPUTS: dict[str, Any] = {o.name: o.default for o in options_of(OutputOptions)}


def load(overrides: Iterable[str | Override]) -> Config:
    """The config that Hydra composes from jaxvff.configs, with the overrides put into it.

    Raises:
      UserError: an unknown key or group, a wrong type, or a value out of range.
    """
    given = parse(overrides)
    values = compose(names(given))
    put_all(values, given)
    return Config(**values)


def names(overrides: Iterable[Override]) -> dict[str, str]:
    """The names of GROUPS that overrides set."""
    return {o.key: str(o.value) for o in overrides if o.key in GROUPS and not o.swept}


def compose(names: Mapping[str, str]) -> dict[str, Any]:
    """The values of every option that Hydra composes from YAML files.

    Args:
      names: of each of GROUPS, such as {"env": "matrix/b"}; one that is missing has its default.

    Raises:
      UserError: an unknown name.
    """
    for group, name in names.items():
        if not is_reference(name) and name not in (known := config_names(group)):
            raise UserError(f"{group}={name} is unknown{closest(name, known)}")
    return copy.deepcopy(_composed(tuple(sorted(names.items()))))


@functools.lru_cache(maxsize=256)
def _composed(names: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    _register(name for _, name in names if is_reference(name))
    try:
        with initialize_config_module("jaxvff.configs", version_base="1.3"):
            asked = [f"{group}={_as_file(name)}" for group, name in names]
            composed = compose_files("train", overrides=asked)
        return OmegaConf.to_container(composed)  # type: ignore[return-value]
    finally:
        GlobalHydra.instance().clear()


def put_all(values: dict[str, Any], overrides: Iterable[Override]) -> None:
    """Put overrides, but for those of GROUPS and sweeps, into what `compose` returned."""
    for o in overrides:
        if not o.swept and o.key not in GROUPS:
            put(values, o.key, o.value, o.value_text)


def put(values: dict[str, Any], key: str, value: object, text: str | None = None) -> None:
    """Put one value, checked, into what `compose` returned.

    The options of an environment or a method are checked by what takes them (settings.build),
    because that imports JAX.

    Args:
      values: changed in place.
      key: such as "lr" or "env.game".
      value: as it reads without knowing the option.
      text: as it was typed; None: in a list, where only the value is known.

    Raises:
      UserError: an unknown key, a wrong type, or a value out of range.
    """
    first, *path = key.split(".")
    if first in GROUPS:
        for part, inner in zip([first, *path], path, strict=False):
            values = values.setdefault(part, {})
            if not isinstance(values, dict):
                raise UserError(f"{key}: {part} is one value and has no {inner}")
        values[path[-1]] = value
        return
    if first not in _OPTIONS:
        raise UserError(f"unknown key {key!r}{closest(key, [*_OPTIONS, *GROUPS])}")
    if path:
        raise UserError(f"{key}: {first} is one value and has no {path[0]}; write {first}=<value>")
    values[first] = from_text(_OPTIONS[first], value, text)


def idle(config: Config) -> dict[str, str]:
    """The keys that nothing reads in a run, each with the reason; those of GROUPS left out."""
    out = options.idle(Config, vars(config))
    name = config.method["name"]
    if name in METHODS.own and not METHODS[name].act_on_search:
        methods = METHODS.own_parts().items()
        able = " or ".join(f"method={n}" for n, method in methods if method.act_on_search)
        out["search_fraction"] = f"with method={name}; it needs {able}"
    if config.offline is not None:
        for o in options_of(ExplorerOptions):
            out[o.name] = "with offline=, where nobody explores; it needs offline=null"
    return out


def to_yaml(config: Config) -> str:
    """The config as YAML."""
    return OmegaConf.to_yaml(DictConfig(dataclasses.asdict(config)))


def config_names(group: str) -> list[str]:
    """The names that `<group>=` takes: the files of jaxvff.configs, and every method."""
    names = _files(group) | _without_file(group)
    return sorted(name for name in names if not name.endswith("base"))


def _files(group: str) -> set[str]:
    root = Path(jaxvff.configs.__file__).parent / group
    return {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml")}


def _without_file(group: str) -> set[str]:
    """The methods, or kinds of environments, that no file is about: they run on the defaults."""
    table: Collection[str] = METHODS if group == "method" else ENVS
    return set(table) - {name.split("/")[0] for name in _files(group)}


def _schema() -> DictConfig:
    """Config's fields and types; writable, since OmegaConf takes `frozen` to heart."""
    schema = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)
    return schema


def _register(references: Iterable[str]) -> None:
    """Let Hydra know what no file is about; `references`: package.module:name."""
    references, store = list(references), ConfigStore.instance()
    store.store(name="schema", node=_schema())
    for group, key in (("method", "name"), ("env", "kind")):
        for name in [*_without_file(group), *references]:
            node = {group: {key: name}}
            store.store(group=group, name=_as_file(name), node=node, package="_global_")


def _as_file(name: str) -> str:
    """What Hydra knows a name by; it takes a colon for its own."""
    return name.replace(":", "__")
