"""Options say once what they are: checks, help, the reference page and traced names follow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from jaxvff.core import options
from jaxvff.core.errors import UserError
from jaxvff.core.options import option, options_of
from jaxvff.core.registry import Registry
from jaxvff.envs import ENVS
from jaxvff.runs.plan import plan
from jaxvff.settings import build, config, overrides, reference, sweep
from jaxvff.settings.config import COMPONENTS, TRACED, Config

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, kw_only=True)
class Example:
    """Options of every kind."""

    count: int = option(3, "a whole number", unit="eggs", low=1, high=9)
    share: float = option(0.5, "a number", low=0, above=True, high=1, traced=True)
    on: bool = option(True, "a switch")
    name: str = option("a", "a choice", names=("a", "b"))
    limit: int | None = option(None, "a whole number or nothing", low=0)
    extra: dict[str, int] | None = option(None, "what else there is")
    height: float = option(0.0, "any number that is finite")

    def __post_init__(self) -> None:
        options.check(self, "x.")


def test_values_that_fit_are_taken() -> None:
    assert Example().count == 3
    taken = Example(count=9, share=1, on=False, name="b", limit=0)
    assert (taken.share, taken.limit) == (1, 0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": 0}, r"x.count=0 is out of range; expected a value in \[1, 9\], such as 3"),
        ({"count": 10}, r"x.count=10 is out of range"),
        ({"count": 2.0}, r"x.count=2.0 must be a whole number in \[1, 9\], such as 2"),
        ({"count": True}, "x.count=true must be a whole number"),
        ({"count": None}, "x.count=null must be a whole number"),
        ({"share": 0}, r"x.share=0 is out of range; expected a value in \(0, 1\]"),
        ({"share": float("nan")}, "x.share=nan is out of range"),
        ({"share": float("inf")}, "x.share=inf is out of range"),
        ({"share": "half"}, "x.share='half' must be a number"),
        ({"on": 1}, "x.on=1 must be true or false"),
        ({"name": "c"}, "x.name='c' is unknown; choose one of a, b"),
        ({"limit": -1}, "x.limit=-1 is out of range"),
        ({"limit": "no"}, "x.limit='no' must be a whole number"),
        ({"extra": 3}, "x.extra=3 must be a mapping"),
        ({"height": float("nan")}, r"x.height=nan is out of range; expected a value in \[-3.4"),
    ],
)
def test_values_that_do_not_fit_are_named_with_a_remedy(given: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Example(**given)


def test_an_unknown_option_gets_the_closest_name() -> None:
    with pytest.raises(UserError, match=r"x\.cuont is no option of examples; did you mean count"):
        options.make(Example, {"cuont": 3}, "x.", "examples")
    assert options.make(Example, {"count": 4}, "x.", "examples").count == 4


def test_a_required_option_that_is_not_set_is_named() -> None:
    with pytest.raises(UserError, match=r"env\.entry is not set"):
        options.make(ENVS["custom"].options, {"time_limit": 5}, "env.", "custom environments")


def test_traced_options_are_those_that_say_so() -> None:
    assert options.traced_names(Example) == ("share",)
    asked = config.load(["lr=0.25"])
    assert set(asked.traced()._fields) == set(TRACED)
    assert asked.traced().lr == 0.25
    assert {o.name for o in options_of(Config) if o.about.traced} == set(TRACED)
    # Equal but for traced options and outputs: one program.
    other = config.load(["lr=0.5", "epsilon_end=0.9", "run_dir=elsewhere"])
    assert asked.static() == other.static() != config.load(["batch_size=64"]).static()


def test_every_option_says_what_it_does_and_how_large_it_may_be() -> None:
    kinds = [*COMPONENTS, *(ENVS[name].options for name in ENVS)]
    for each in (o for kind in kinds for o in options_of(kind)):
        assert each.about.help, each.name
        number = each.kind in (int, float)
        assert each.about.interval or each.about.names or not number, f"{each.name} has no range"


def test_the_reference_page_is_made_from_the_options_as_they_are() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    remedy = "python -m jaxvff.settings.reference > docs/configuration.md"
    assert page == reference.page(), f"docs/configuration.md is stale: {remedy}"


def test_a_registry_lists_without_importing_and_imports_on_demand() -> None:
    table: Registry = Registry({"sum": "math:fsum", "missing": "no_such_module:thing"})
    assert list(table) == ["sum", "missing"]
    assert "missing" in table
    assert table["sum"]([0.1] * 10) == 1.0
    with pytest.raises(ModuleNotFoundError):
        table["missing"]
    with pytest.raises(KeyError):
        table["other"]


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("run_dir=007", "007"), ("run_dir=1e3", "1e3"), ("run_dir=12", "12"), ("run_dir=1_0", "1_0"),
        ("run_dir=größe", "größe"), ("run_dir=a=1", "a=1"), ("run_dir=a b #c", "a b #c"),
        ("run_dir=~/r", "~/r"), ("run_dir=r(1)", "r(1)"), ("run_dir='a,b'", "a,b"),
        ("run_dir=nan", "nan"), ("run_dir='null'", "null"), ("run_dir=null", None),
        ("wandb=12", "12"), ("wandb=project", "project"), ("wandb=false", None),
        ("wandb=False", None), ("wandb=None", None), ("wandb=none", None), ("wandb=null", None),
        ('wandb=""', None), ("lr=1", 1.0), ("lr=1e-3", 0.001), ("seeds=3", 3), ("shared=False", False),
    ],
)  # fmt: skip
def test_what_was_typed_is_what_its_option_takes(typed: str, value: object) -> None:
    name = typed.partition("=")[0]
    got = getattr(config.load([typed]), name)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("typed", ["007", "1e3", "12", "größe.yaml", "g=1.yaml", "a b #1.yaml"])
def test_the_path_of_an_environment_is_taken_as_it_was_typed(typed: str) -> None:
    given = overrides.parse(["env=matrix/file", f"env.file={typed}"])
    assert build.as_typed(config.load(given), given).env == {"kind": "matrix", "file": typed}


def test_payoffs_are_read_from_a_path_with_strange_characters(tmp_path: Path) -> None:
    for name in ("größe.yaml", "g=1.yaml", "a #b.yaml", "UPPER.YML"):
        (tmp_path / name).write_text("[[1e3, -0.5], [+2, .5]]")
        (job,) = plan(["env=matrix/file", f"env.file={tmp_path / name}"])
        assert np.asarray(job.env.params).tolist() == [[1000, -0.5], [2, 0.5]]


def test_an_option_is_idle_where_what_it_needs_is_another_value() -> None:
    idle = config.idle(config.load([]))
    assert idle["n_step"] == "with returns=td_lambda; it needs returns=n_step"
    assert idle["lr_steps"] == "with lr_final=1; it needs another lr_final than 1"
    assert {"priority_exponent", "rnd_lr", "temperature", "search_fraction"} <= idle.keys()
    assert not {"td_lambda", "epsilon_end", "lr"} & idle.keys()
    texts = ["returns=n_step", "lr_final=0.5", "replay=prioritised", "bonus=rnd", "explore=softmax",
             "method=ordered_joint"]  # fmt: skip
    idle = config.idle(config.load(texts))
    parallel = {"epochs", "minibatches", "burn_in"}
    epsilon = {"epsilon_start", "epsilon_end", "epsilon_steps"}
    assert idle.keys() == {"td_lambda", "reset_interval", *epsilon, *parallel}


def test_an_option_has_to_be_read_by_one_value_of_a_sweep_not_by_all() -> None:
    for texts in (
        ["sweep.returns=[td_lambda,n_step]", "n_step=5"],
        ["sweep.lr_final=[1.0,0.1]", "lr_steps=1000"],
        ["sweep.method=[qmix,ordered_joint]", "search_fraction=0.3"],
        ["sweep.env=[matrix/a,matrix/random]", "env.n_actions=4"],
    ):
        plan(overrides.parse(texts, typed=True))
    with pytest.raises(UserError, match="does nothing"):
        plan(overrides.parse(["sweep.env=[matrix/a,matrix/b]", "env.n_actions=4"], typed=True))


def test_only_what_the_command_line_has_must_be_read_and_single() -> None:
    """Files, earlier sittings and Python may set what another value of theirs leaves idle."""
    assert config.load(["lr=1e-3", "lr=1e-4", "n_step=5"]).lr == 1e-4
    with pytest.raises(UserError, match="given twice"):
        overrides.parse(["lr=1e-3", "lr=1e-4"], typed=True)


def test_an_override_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["lr=1e-2", "sweep.gamma=[0.9,0.99]", "method=qmix"]
    given = overrides.parse(texts)
    assert [(o.key, o.value, o.swept) for o in given] == [
        ("lr", 0.01, False), ("gamma", [0.9, 0.99], True), ("method", "qmix", False),
    ]  # fmt: skip
    assert [o.text for o in given] == texts
    monkeypatch.setattr(overrides, "_parsed", lambda text: pytest.fail("it was read again"))
    assert overrides.parse(given) == given
    values = sweep.expand(given)
    assert [one.label for one in values] == [{"gamma": 0.9}, {"gamma": 0.99}]
    assert [one.config.gamma for one in values] == [0.9, 0.99]
    assert {one.config.lr for one in values} == {0.01}
