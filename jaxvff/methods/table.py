"""The methods by name. A new mixer is one file in jaxvff/mixers and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from jaxvff.core.errors import UserError
from jaxvff.core.registry import OpenRegistry


class JointValue(NamedTuple):
    """A joint value of a method, which its greedy joint action should maximise."""

    name: str
    head: str | None = None  # the mixer's method of one step; None: its __call__
    utilities: str = "utility"  # the set of utility parameters that it takes in
    of_acting: bool = True  # it is a function of the utilities that act: ∂Q/∂Q_i says something


class Method(NamedTuple):
    """A mixer with its loss, and what else a method needs.

    Every part is a reference `package.module:name` (jaxvff.core.registry), so that this table
    imports nothing. The fields of the mixer and of the loss that are options (jaxvff.core.options)
    are set by a user with `method.<option>=`.
    """

    mixer: str  # a flax module from a JointStep to Q_tot; takes `spec`, maybe `hidden_dim`
    loss: str = "jaxvff.losses.td:Td"  # a dataclass that is called with a LossInput
    fixed: Mapping[str, object] = MappingProxyType({})  # fields that make the method what it is
    other_utilities: tuple[str, ...] = ()  # further sets of utility parameters, which do not act
    head: str = "jaxvff.networks.heads:attached"  # of the utility networks
    # What the team draws for an episode, a networks.contexts.Context; None: nothing. Its options
    # are set like those of the mixer.
    context: str | None = None
    # SearchOptions -> what the method remembers of every segment in replay
    memory: str = "jaxvff.losses.contract:no_memory"
    # (Model, loss, params, share of the steps) -> a Revise: what the team does instead of what its
    # agents picked, for a method whose joint value can be searched; None: it cannot
    act_on_search: str | None = None
    # What `diagnose` holds the greedy joint action against, the one that acts first; none: no agent
    # knows a value of the team
    joint_values: tuple[JointValue, ...] = (JointValue("Q_tot"),)


_JOINT = "jaxvff.mixers.joint"
_ORDERED = "jaxvff.losses.ordered"
_ELITES, _SEARCH = f"{_ORDERED}.elites:memory", f"{_ORDERED}.behaviour:act_on_search"
_QMIX, _WQMIX = "jaxvff.mixers.qmix:Qmix", "jaxvff.mixers.wqmix:Wqmix"
_WQMIX_LOSS = "jaxvff.losses.wqmix:WqmixLoss"
_WITH_CENTRAL = (
    JointValue("Q_tot"),
    JointValue("Q_central", head="central", utilities="central", of_acting=False),
)

METHODS: OpenRegistry[Method] = OpenRegistry(
    {
        "iql": Method(
            "jaxvff.mixers.iql:Iql", "jaxvff.losses.independent:IndependentTd", joint_values=()
        ),
        "vdn": Method("jaxvff.mixers.vdn:Vdn"),
        "qmix": Method(_QMIX),
        "nmqmix": Method("jaxvff.mixers.qmix:NmQmix"),
        "qatten": Method("jaxvff.mixers.qatten:Qatten"),
        "qplex": Method("jaxvff.mixers.qplex:Qplex"),
        "qtran": Method(
            "jaxvff.mixers.qtran:Qtran",
            "jaxvff.losses.qtran:QtranLoss",
            joint_values=(JointValue("Q_jt", of_acting=False),),
        ),
        "cw_qmix": Method(
            _WQMIX, _WQMIX_LOSS, {"optimistic": False}, ("central",), joint_values=_WITH_CENTRAL
        ),
        "ow_qmix": Method(
            _WQMIX, _WQMIX_LOSS, {"optimistic": True}, ("central",), joint_values=_WITH_CENTRAL
        ),
        "pow_qmix": Method(
            "jaxvff.mixers.pow_qmix:PowQmix",
            "jaxvff.losses.pow_qmix:PowQmixLoss",
            other_utilities=("central",),
            joint_values=_WITH_CENTRAL,
        ),
        "resq": Method(
            "jaxvff.mixers.resq:Resq",
            "jaxvff.losses.resq:ResqLoss",
            other_utilities=("central", "residual"),
            joint_values=_WITH_CENTRAL,
        ),
        "qfix": Method("jaxvff.mixers.qfix:Qfix"),
        "maven": Method(
            "jaxvff.mixers.maven:Maven",
            "jaxvff.losses.maven:MavenLoss",
            head="jaxvff.networks.heads:by_latent",
            context="jaxvff.networks.contexts:LatentPolicy",
        ),
        "uneven": Method(
            "jaxvff.mixers.vdn:Vdn",
            "jaxvff.losses.uneven:UnevenLoss",
            head="jaxvff.networks.heads:successor",
            context="jaxvff.networks.contexts:RelatedTasks",
        ),
        "ordered_nmqmix": Method(
            f"{_JOINT}:QmixWithJoint",
            f"{_ORDERED}.losses:OrderedNmqmix",
            memory=_ELITES,
            act_on_search=_SEARCH,
            joint_values=(
                JointValue("Q_tot"),
                JointValue("Q_joint", head="joint_value", of_acting=False),
            ),
        ),
        "ordered_joint": Method(
            f"{_JOINT}:Joint",
            f"{_ORDERED}.losses:OrderedJoint",
            head="jaxvff.networks.heads:detached",
            memory=_ELITES,
            act_on_search=_SEARCH,
            joint_values=(JointValue("Q_joint", of_acting=False),),
        ),
    },
    "jaxvff.methods",
    adapted="jaxvff.methods.table:_method",
)


def _method(reference: str, found: object) -> Method:
    """What somebody else's row refers to: a Method, or a mixer, which is trained by TD errors."""
    if isinstance(found, Method):
        return found
    if isinstance(found, type) and "spec" in getattr(found, "__dataclass_fields__", {}):
        return Method(mixer=reference)
    raise UserError(
        f"method={reference} is no method: it must be a flax module with a field `spec`, from a "
        "JointStep to Q_tot, or a jaxvff.methods.table.Method (docs/plug-ins.md)"
    )
