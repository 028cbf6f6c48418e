"""Options of the utility networks; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.registry import Registry

UTILITIES: Registry = Registry(
    {
        "mlp": "jaxvff.networks.utility:Mlp",
        "gru": "jaxvff.networks.utility:Gru",
        "cnn": "jaxvff.networks.utility:Cnn",
    }
)
NORMS = ("none", "layer")


@dataclass(frozen=True)
class UtilityOptions:
    """The network that turns what an agent sees into values of its own actions."""

    utility: str = option(
        "gru", "utility network; matrix games: mlp; images, as of overcooked: cnn", names=UTILITIES
    )
    norm: str = option(
        "none",
        "normalisation before each ReLU, none or layer; learner=parallel learns sooner with layer",
        names=NORMS,
    )
    hidden_dim: int = option(64, "width of the utility network", low=1, high=MAX_WIDTH)
    shared: bool = option(True, "one set of parameters for all agents")
    agent_id: bool = option(True, "one-hot agent id among the inputs")
    last_action: bool = option(
        True, "the agent's previous action among the inputs; matrix games: false"
    )
    init_scale: float = option(
        1.0, "factor on all initial parameters", low=0, above=True, high=1e6, traced=True
    )
