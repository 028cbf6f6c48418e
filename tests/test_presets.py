"""What `jaxvff reproduce` hands to the planner."""

from __future__ import annotations

from pathlib import Path

import pytest

from jaxvff.core.errors import UserError
from jaxvff.methods.table import METHODS
from jaxvff.settings import overrides, presets, sweep
from jaxvff.settings.overrides import Override


def test_a_part_trains_only_the_methods_that_the_user_asked_for() -> None:
    def methods(parts: list[list[Override]]) -> list[str]:
        return [o.text for part in parts for o in part if o.swept and o.key == "method"]

    kinds = (
        "ordered_joint",
        "ordered_nmqmix",
        "nmqmix,qtran,qplex,qmix,cw_qmix,ow_qmix,qatten,vdn,iql,resq,qfix,pow_qmix",
    )
    whole = presets.overrides("beyond", [])
    assert methods(whole) == [f"sweep.method=[{kind}]" for kind in kinds for _ in range(3)]
    some = presets.overrides("beyond", ["sweep.method=[qmix,ordered_joint]", "seed=7"])
    assert methods(some) == ["sweep.method=[ordered_joint]"] * 3 + ["sweep.method=[qmix]"] * 3
    for mine, all_of_it in zip(some, whole[:3] + whole[6:], strict=True):
        same = [o for o in all_of_it if o.key not in ("method", "seed")]
        assert [o for o in mine[:-1] if o.key != "method"] == same
        assert mine[-1].text == "seed=7"  # the user's, for the preset's
    assert (
        methods(presets.overrides("beyond", ["sweep.method=[qmix]"])) == ["sweep.method=[qmix]"] * 3
    )


def test_the_users_values_replace_those_of_all_parts() -> None:
    for part in presets.overrides("beyond", ["seeds=4"]):
        assert [o.text for o in part if o.key == "seeds"] == ["seeds=4"]


def test_a_key_of_the_users_has_to_be_read_by_one_part_not_by_all() -> None:
    given = overrides.parse(["search_fraction=0.3"], typed=True)
    parts = presets.overrides("beyond", given)
    typed = [[o.typed for o in part if o.key == "search_fraction"] for part in parts]
    assert typed == [[True]] * 6 + [[False]] * 3  # the ordered methods search, the others do not
    for part in parts:
        sweep.expand(part)
    with pytest.raises(UserError, match=r"search_fraction=0\.3 does nothing"):
        presets.overrides("beyond", overrides.parse(["sweep.method=[vdn]"], typed=True) + given)


def test_a_method_that_no_part_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"sweep.method='qmixx' is unknown; did you mean qmix\?"):
        presets.overrides("beyond", ["sweep.method=[qmixx]"])


@pytest.mark.slow
def test_only_methods_that_search_are_asked_to_bootstrap_on_what_they_find() -> None:
    asked = [
        part
        for name in presets.names()
        for part in presets.overrides(name, [])
        if any(o.text == "target=search" for o in part)
    ]
    assert len(asked) >= 2  # SMAX and predator-prey
    for part in asked:
        (methods,) = (o.value for o in part if o.swept and o.key == "method")
        assert all(METHODS[name].act_on_search for name in methods)


def test_the_hours_of_a_preset_follow_from_the_seconds_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes share as many cores as divide them evenly."""
    (tmp_path / "mine.yaml").write_text(
        "overrides: [seeds=4, total_steps=9000000, 'sweep.env=[matrix/a]', 'sweep.method=[vdn]']\n"
        "core_seconds: {vdn: {matrix/a: 200}}\n"
    )
    monkeypatch.setattr(presets, "FOLDER", tmp_path)
    monkeypatch.setattr(presets, "cores", lambda: 3)

    def hours(*texts: str) -> float | None:
        return presets.hours("mine", presets.overrides("mine", texts))

    assert hours() == pytest.approx(4 * 9 * 200 / 2 / 3600)
    assert hours("seeds=3") == pytest.approx(3 * 9 * 200 / 3 / 3600)
    assert hours("sweep.method=[vdn,qmix]") is None  # of one of them nothing is on record


@pytest.mark.parametrize(
    ("name", "least", "most"),  # hours; 24: a night
    [("smax", 1, 24), ("smax_suite", 1, 24), ("football_ladder", 0.2, 1), ("football", 24, 168)],
)
def test_the_long_presets_say_how_long_they_take(
    name: str, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presets, "cores", lambda: 2)
    hours = presets.hours(name, presets.overrides(name, []))
    assert hours is not None
    assert least < hours < most
