"""What `jaxvff reproduce` hands to the planner."""

from __future__ import annotations

import pytest
import yaml

from jaxvff import presets
from jaxvff.methods import METHODS
from jaxvff.types import UserError


def test_a_part_trains_only_the_methods_that_the_user_asked_for() -> None:
    def methods(parts: list[list[str]]) -> list[str]:
        return [o for part in parts for o in part if o.startswith("sweep.method")]

    kinds = (
        "ordered_joint",
        "ordered_nmqmix",
        "nmqmix,qtran,qplex,qmix,cw_qmix,ow_qmix,qatten,vdn,iql",
    )
    whole = presets.overrides("beyond", [])
    assert methods(whole) == [f"sweep.method=[{kind}]" for kind in kinds for _ in range(3)]
    some = presets.overrides("beyond", ["sweep.method=[qmix,ordered_joint]", "seed=7"])
    assert methods(some) == ["sweep.method=[ordered_joint]"] * 3 + ["sweep.method=[qmix]"] * 3
    for mine, all_of_it in zip(some, whole[:3] + whole[6:], strict=True):
        same = [o for o in all_of_it if not o.startswith(("sweep.method", "seed="))]
        assert [o for o in mine[:-1] if not o.startswith("sweep.method")] == same
        assert mine[-1] == "seed=7"  # the user's, for the preset's
    assert (
        methods(presets.overrides("beyond", ["sweep.method=[qmix]"])) == ["sweep.method=[qmix]"] * 3
    )


def test_the_users_values_replace_those_of_all_parts() -> None:
    for part in presets.overrides("beyond", ["seeds=4"]):
        assert [o for o in part if o.startswith("seeds=")] == ["seeds=4"]


def test_a_method_that_no_part_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"sweep.method='qmixx' is unknown; did you mean qmix\?"):
        presets.overrides("beyond", ["sweep.method=[qmixx]"])


def test_only_methods_that_search_are_asked_to_bootstrap_on_what_they_find() -> None:
    asked = [
        part
        for name in presets.names()
        for part in presets.overrides(name, [])
        if "target=search" in part
    ]
    assert len(asked) >= 2  # SMAX and predator-prey
    for part in asked:
        (methods,) = (o.removeprefix(presets.SWEPT) for o in part if o.startswith(presets.SWEPT))
        assert all(METHODS[name].searches for name in yaml.safe_load(methods))
