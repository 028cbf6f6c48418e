"""Options of the targets and of the search; light to import."""

from __future__ import annotations

from dataclasses import dataclass

from jaxvff.core.options import option
from jaxvff.core.registry import Registry

# What is bootstrapped: (q_online [T, A, U], q_target [T, A, U], segment) -> joint action [T, A].
BOOTSTRAPS: Registry = Registry(
    {
        "sarsa": "jaxvff.losses.targets:sarsa",
        "max": "jaxvff.losses.targets:greedy_by_target",
        "double": "jaxvff.losses.targets:greedy_by_online",
        "search": "jaxvff.losses.targets:searched",
    }
)
# How far rewards are summed: (bootstrap, λ, n) -> targets [T].
RETURNS: Registry = Registry(
    {
        "td_lambda": "jaxvff.losses.targets:td_lambda_return",
        "n_step": "jaxvff.losses.targets:n_step_return",
        "one_step": "jaxvff.losses.targets:one_step_return",
    }
)


@dataclass(frozen=True)
class TargetOptions:
    """What a value learns to predict."""

    gamma: float = option(0.99, "discount", low=0, high=1, traced=True)
    td_lambda: float = option(
        0.6, "trace decay", low=0, high=1, traced=True, needs={"returns": ("td_lambda",)}
    )
    returns: str = option("td_lambda", "how far rewards are summed", names=RETURNS)
    n_step: int = option(
        3, "rewards before the bootstrap", low=1, high=1000, needs={"returns": ("n_step",)}
    )
    target: str = option(
        "double",
        "what is bootstrapped: sarsa: the action taken; max: greedy by the target network; double: "
        "greedy by the online network; search: the better of that and what a search found (ordered "
        "methods)",
        names=BOOTSTRAPS,
    )


@dataclass(frozen=True)
class SearchOptions:
    """The search of the ordered methods."""

    search_fraction: float = option(
        0.5,
        "of ordered methods: share of the sampled segments that an update searches",
        low=0,
        high=1,
        above=True,
    )
    act_search: float = option(
        0.0,
        "of ordered methods, on the device: share of steps in which the team plays what a search "
        "of the joint value finds",
        low=0,
        high=1,
    )
