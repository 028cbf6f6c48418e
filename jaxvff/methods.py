"""The methods, by name. A new mixer is one file in jaxvff/mixers and one row here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn

from jaxvff import losses, ordering
from jaxvff.mixers.iql import Iql
from jaxvff.mixers.joint import Joint, JudgedQmix
from jaxvff.mixers.qatten import Qatten
from jaxvff.mixers.qmix import Qmix
from jaxvff.mixers.qplex import Qplex
from jaxvff.mixers.qtran import Qtran
from jaxvff.mixers.vdn import Vdn
from jaxvff.mixers.wqmix import Wqmix


class Method(NamedTuple):
    """A mixer with its loss.

    `mixer` takes the EnvSpec as `spec`, may take `hidden_dim` (of the utilities), and its other
    fields are options that a user sets with `method.<field>=`; so are the arguments of a loss
    factory. `fixed` holds what makes the method and is no option.
    """

    mixer: type[nn.Module]
    loss: Callable[..., Any] = losses.td
    loss_options: bool = False  # `loss` is a factory: called with options, it returns the loss
    fixed: Mapping[str, Any] = MappingProxyType({})
    central: bool = False  # a second set of utilities, parameters "central"
    searches: bool = False  # the loss searches for joint actions, and replay remembers them
    detached: bool = False  # utilities are layers of their own, see nets.action_values


METHODS: dict[str, Method] = {
    "iql": Method(Iql, losses.independent_td),
    "vdn": Method(Vdn),
    "qmix": Method(Qmix, fixed={"monotonic": True}),
    "nmqmix": Method(Qmix, fixed={"monotonic": False}),
    "qatten": Method(Qatten),
    "qplex": Method(Qplex),
    "qtran": Method(Qtran, losses.qtran, loss_options=True),
    "cw_qmix": Method(Wqmix, losses.wqmix, True, {"optimistic": False}, central=True),
    "ow_qmix": Method(Wqmix, losses.wqmix, True, {"optimistic": True}, central=True),
    "ordered_nmqmix": Method(JudgedQmix, ordering.nmqmix, True, searches=True),
    "ordered_joint": Method(Joint, ordering.joint, True, searches=True, detached=True),
}
