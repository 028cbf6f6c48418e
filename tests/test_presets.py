"""What `jaxvff reproduce` hands to the planner."""

from __future__ import annotations

import pytest

from jaxvff import presets
from jaxvff.types import UserError


def test_a_part_trains_only_the_methods_that_the_user_asked_for() -> None:
    whole = presets.overrides("beyond", [])
    assert [o for part in whole for o in part if o.startswith("sweep.method")] == [
        "sweep.method=[ordered_joint,ordered_nmqmix]",
        "sweep.method=[nmqmix,qtran,qplex,qmix,cw_qmix,ow_qmix,qatten,vdn,iql]",
    ]
    some = presets.overrides("beyond", ["sweep.method=[qmix,ordered_joint]", "seed=7"])
    shared = len(whole[0]) - len(["the methods", "seeds"])
    assert [part[shared - 1 :] for part in some] == [  # the user's seed, for the preset's
        ["sweep.method=[ordered_joint]", "seeds=512", "seed=7"],
        ["sweep.method=[qmix]", "seeds=128", "seed=7"],
    ]


def test_the_users_values_replace_those_of_all_parts() -> None:
    for part in presets.overrides("beyond", ["seeds=4"]):
        assert [o for o in part if o.startswith("seeds=")] == ["seeds=4"]


def test_a_method_that_no_part_has_is_refused() -> None:
    with pytest.raises(UserError, match=r"sweep.method='qmixx' is unknown; did you mean qmix\?"):
        presets.overrides("beyond", ["sweep.method=[qmixx]"])
