"""The configuration: a typed schema with ranges, composed from YAML groups by Hydra."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import jaxvff.configs
from jaxvff.bonus import BONUSES
from jaxvff.explore import EXPLORERS
from jaxvff.methods import METHODS
from jaxvff.nets import UTILITIES
from jaxvff.options import check_method, choose, closest
from jaxvff.replay import REPLAYS
from jaxvff.targets import BOOTSTRAPS, RETURNS
from jaxvff.types import Hyper, UserError

OPTIMIZER_NAMES = ("adam", "rmsprop", "radam", "sgd")


def within(default: Any, low: float, high: float = math.inf, *, open_: bool = False) -> Any:
    """A field whose value lies in [low, high], or in (low, high] if `open_`."""
    return field(default=default, metadata={"range": (low, high, open_)})


def one_of(default: str, names: Any) -> Any:
    """A field whose value is a name in a table."""
    return field(default=default, metadata={"names": tuple(names)})


@dataclass(frozen=True)
class Config:
    """Everything that decides a run. Fields that are in types.Hyper may be swept in one program."""

    env: dict[str, Any] = field(default_factory=dict)  # kind, and the options of that kind
    method: dict[str, Any] = field(default_factory=dict)  # name, and the options of that method
    # Seeds: seed, seed + 1, ... seed + seeds - 1, trained side by side.
    seeds: int = within(32, 1)
    seed: int = within(0, 0, 2**32 - 1)
    total_steps: int = within(10_000, 1)  # env steps per seed
    eval_interval: int = within(500, 1)  # env steps between reports, greedy evaluation included
    eval_episodes: int = within(32, 1)  # greedy episodes per report and seed
    checkpoint_interval: int = within(0, 0)  # env steps; 0 = at the end and at Ctrl-C only
    # Learning
    lr: float = within(1e-3, 0)
    lr_final: float = within(1.0, 0, 1)  # share of lr that is left after lr_steps; linear
    lr_steps: int = within(1_000_000, 1)  # env steps
    gamma: float = within(0.99, 0, 1)
    td_lambda: float = within(0.6, 0, 1)  # trace decay of returns=td_lambda
    returns: str = one_of("td_lambda", RETURNS)
    n_step: int = within(3, 1, 1000)  # of returns=n_step
    target: str = one_of("double", BOOTSTRAPS)
    target_interval: int = within(200, 1)  # updates between target syncs
    target_tau: float = within(1.0, 0, 1, open_=True)  # 1 = copy; less = soft sync
    optimizer: str = one_of("adam", OPTIMIZER_NAMES)
    grad_clip: float = within(10.0, 0, open_=True)  # largest global norm of the gradient
    batch_size: int = within(128, 1)  # segments
    buffer_size: int = within(5000, 1)  # segments
    learn_start: int = within(128, 1)  # segments in replay before the first update
    updates: int = within(1, 1)  # gradient steps after each collection
    search_fraction: float = within(0.5, 0, 1, open_=True)  # share of sampled segments searched
    replay: str = one_of("uniform", REPLAYS)
    priority_exponent: float = within(0.6, 0, 1)  # of replay=prioritised
    importance_exponent: float = within(0.4, 0, 1)  # of replay=prioritised
    # Collection
    n_envs: int = within(1, 1)  # environments per seed
    segment_length: int = within(2, 2)  # slots; an episode of L steps takes L + 1
    explore: str = one_of("epsilon_greedy", EXPLORERS)
    epsilon_start: float = within(1.0, 0, 1)
    epsilon_end: float = within(0.05, 0, 1)
    epsilon_steps: int = within(5_000, 1)  # env steps from start to end, linear
    temperature: float = within(1.0, 0, open_=True)  # of explore=softmax
    act_search: float = within(0.0, 0, 1)  # share of steps that play what a search finds
    bonus: str = one_of("none", BONUSES)  # exploration bonus, added when segments are sampled
    bonus_beta: float = within(0.1, 0)  # its factor; the bonus is in standard deviations
    rnd_dim: int = within(64, 1)  # width of RND's networks
    rnd_lr: float = within(1e-4, 0)  # learning rate of RND's predictor
    # Networks
    utility: str = one_of("gru", UTILITIES)
    hidden_dim: int = within(64, 1)
    shared: bool = True  # one set of utility parameters for all agents
    agent_id: bool = True  # one-hot agent id among the inputs
    last_action: bool = True  # previous action among the inputs
    init_scale: float = within(1.0, 0, open_=True)  # factor on all initial parameters
    # Execution
    lanes_per_device: int = within(64, 1)  # lanes vmapped at once; more run in turns
    run_dir: str | None = None  # folder of the results; null: runs/<date>_<method>
    tensorboard: bool = False  # event files, a folder per sweep value and seed
    wandb: str | None = None  # project of Weights & Biases, a run per seed; null: off

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            check_field(f, getattr(self, f.name))
        check_method(self.method)
        self._check_search()
        if self.batch_size > self.buffer_size:
            raise UserError(
                f"batch_size={self.batch_size} is larger than buffer_size={self.buffer_size} can "
                "hold; lower the one or raise the other"
            )
        if self.learn_start > self.buffer_size:
            raise UserError(
                f"learn_start={self.learn_start} is never reached with "
                f"buffer_size={self.buffer_size}; lower the one or raise the other"
            )
        if self.n_envs > self.buffer_size:
            raise UserError(
                f"n_envs={self.n_envs} segments do not fit in buffer_size={self.buffer_size}"
            )
        if self.seed + self.seeds > 2**32:
            raise UserError(
                f"seed={self.seed} and seeds={self.seeds} go beyond seed 2**32 - 1; lower one"
            )
        if self.total_steps < self.steps_per_iteration:
            raise UserError(
                f"total_steps={self.total_steps} is less than one collection, n_envs · "
                f"(segment_length - 1) = {self.steps_per_iteration} env steps; raise it"
            )

    def _check_search(self) -> None:
        if METHODS[self.method["name"]].searches:
            return
        for key, asked, instead in (
            ("target", self.target == "search", "target=double"),
            ("act_search", self.act_search > 0, "act_search=0"),
        ):
            if asked:
                able = ", ".join(name for name, method in METHODS.items() if method.searches)
                raise UserError(
                    f"{key}={getattr(self, key)} needs a method that searches, {able}; "
                    f"{self.method['name']} takes {instead}"
                )

    @property
    def steps_per_iteration(self) -> int:
        """Env steps of one collection (an upper bound where episodes are short)."""
        return self.n_envs * (self.segment_length - 1)

    @property
    def n_iterations(self) -> int:
        """Collections in a whole run."""
        return self.total_steps // self.steps_per_iteration

    @property
    def first_learning_iteration(self) -> int:
        """Iterations before the replay holds `learn_start` segments."""
        return -(-self.learn_start // self.n_envs) - 1

    def iterations(self, steps: int) -> int:
        """Collections in `steps` env steps, at least one."""
        return max(1, steps // self.steps_per_iteration)

    def hyper(self) -> Hyper:
        """The fields that are traced."""
        return Hyper(**{name: float(getattr(self, name)) for name in Hyper._fields})

    def static(self) -> Config:
        """This config without its traced fields: equal ones share one compiled program."""
        defaults: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(self)}
        return dataclasses.replace(self, seed=0, **{name: defaults[name] for name in Hyper._fields})


def load(overrides: list[str]) -> Config:
    """The config that Hydra composes from jaxvff.configs and `overrides`.

    Raises:
      UserError: an unknown key or group, a wrong type, or a value out of range.
    """
    return build(compose_dict(overrides))


def compose_dict(overrides: list[str]) -> dict[str, Any]:
    """Compose, and return plain containers; keys and types are checked, ranges are not."""
    _register()
    # Free options are checked by what takes them, so Hydra is told to accept any ("++").
    for text in overrides:
        _check_override(text)
    overrides = [f"++{o}" if o.startswith(("env.", "method.")) else o for o in overrides]
    try:
        with initialize_config_module("jaxvff.configs", version_base="1.3"):
            composed = compose("train", overrides=overrides)
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
    names = _files(group) | (METHODS.keys() if group == "method" else set())
    return sorted(name for name in names if not name.endswith("base"))


def _files(group: str) -> set[str]:
    root = Path(jaxvff.configs.__file__).parent / group
    return {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.yaml")}


def _schema() -> DictConfig:
    """Config's fields and types; writable, since OmegaConf takes `frozen` to heart."""
    schema = OmegaConf.structured(Config)
    OmegaConf.set_readonly(schema, False)
    return schema


def _register() -> None:
    store = ConfigStore.instance()
    store.store(name="schema", node=_schema())
    for name in METHODS.keys() - _files("method"):  # no file of its own: runs on the defaults
        node = {"method": {"name": name}}
        store.store(group="method", name=name, node=node, package="_global_")


def _check_override(text: str) -> None:
    """What Hydra's grammar accepts and we do not, and a clearer word for what it does not."""
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException as error:
        raise UserError(f"{text!r} cannot be read; write key=value, a list as [1,2]") from error
    key, value = override.key_or_group, override.value()
    if not key.strip(".") or key.endswith("."):
        raise UserError(f"{text!r} has no key; write key=value")
    if override.is_sweep_override():
        raise UserError(f"{text!r} has several values; write sweep.{key}=[...]")
    if key in ("env", "method") and not isinstance(value, str):
        raise UserError(f"{text!r} takes one name; to train several: sweep.{key}=[...]")


def check_field(f: dataclasses.Field, value: Any) -> None:
    """Raise a UserError if a field's value is out of its range or no name of its table."""
    if names := f.metadata.get("names"):
        choose(value, names, f.name)
    if limits := f.metadata.get("range"):
        low, high, open_ = limits
        above = value > low if open_ else value >= low  # False for NaN, too
        if not (above and value <= high and (math.isfinite(value) or isinstance(value, int))):
            left = "(" if open_ else "["
            right = "∞)" if high == math.inf else f"{high:g}]"
            raise UserError(
                f"{f.name}={value} is out of range; expected a value in {left}{low:g}, {right}, "
                f"such as {f.default}"
            )


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
    for group in ("env", "method"):
        if f"'{group}/" in first and "find" in first.lower():
            name = first.split(f"'{group}/", 1)[1].split("'")[0]
            return f"{group}={name} is unknown{closest(name, config_names(group))}"
    if key in fields:
        default = getattr(Config, key, None)
        return f"{key}: {first}; its default is {default}"
    return first
