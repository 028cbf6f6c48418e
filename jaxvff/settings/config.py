"""The configuration: the options of all components, composed from YAML groups by Hydra.

Light to import, so that a mistake is answered before JAX is there.
"""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import jaxvff.configs
from jaxvff.core.errors import UserError, check_name, closest
from jaxvff.core.options import check, options_of, traced_names
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
        self._check_search()

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
            raise UserError(f"n_envs={self.n_envs} segments do not fit in {buffer}")

    def _check_search(self) -> None:
        """A search needs a method whose joint value can be searched."""
        if METHODS[self.method["name"]].act_on_search:
            return
        for key, asked, instead in (
            ("target", self.target == "search", "target=double"),
            ("act_search", self.act_search > 0, "act_search=0"),
        ):
            if asked:
                able = ", ".join(name for name, method in METHODS.items() if method.act_on_search)
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
# Where results go, as if they went nowhere.
OUTPUTS: dict[str, Any] = {o.name: o.default for o in options_of(OutputOptions)}


def load(overrides: Iterable[str | Override]) -> Config:
    """The config that Hydra composes from jaxvff.configs and the overrides.

    Raises:
      UserError: an unknown key or group, a wrong type, or a value out of range.
    """
    return build(compose_dict(overrides))


def compose_dict(overrides: Iterable[str | Override]) -> dict[str, Any]:
    """Compose, and return plain containers; keys and types are checked, ranges are not."""
    _register()
    # Free options are checked by what takes them, so Hydra is told to accept any ("++").
    texts = [
        f"++{o.text}" if o.key.startswith(tuple(f"{g}." for g in GROUPS)) else o.text
        for o in parse(overrides)
    ]
    try:
        with initialize_config_module("jaxvff.configs", version_base="1.3"):
            composed = compose("train", overrides=texts)
        return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UserError(_explain(error)) from error
    finally:
        GlobalHydra.instance().clear()


def build(values: dict[str, Any]) -> Config:
    """A Config from plain containers, checked in full."""
    try:
        merged = OmegaConf.merge(_schema(), values)
        return Config(**OmegaConf.to_container(merged))  # type: ignore[arg-type]
    except OmegaConfBaseException as error:
        raise UserError(_explain(error)) from error


def to_yaml(config: Config) -> str:
    """The config as YAML that `build` reads back."""
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


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=_schema())
    for group, key in (("method", "name"), ("env", "kind")):
        for name in _without_file(group):
            node = {group: {key: name}}
            store.store(group=group, name=name, node=node, package="_global_")


def _explain(error: Exception) -> str:
    """One line for a Hydra or OmegaConf error: the value, the expectation, the remedy."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    first = str(cause).strip().splitlines()[0]
    key = getattr(cause, "full_key", None) or getattr(cause, "key", None)
    fields = [f.name for f in dataclasses.fields(Config)]
    if key and str(key).split(".")[0] not in fields:
        return f"unknown key {key!r}{closest(key, fields)}"
    for group in GROUPS:
        if f"'{group}/" in first and "find" in first.lower():
            name = first.split(f"'{group}/", 1)[1].split("'")[0]
            return f"{group}={name} is unknown{closest(name, config_names(group))}"
    if key in fields:
        return f"{key}: {first}; its default is {getattr(Config, key, None)}"
    return first
