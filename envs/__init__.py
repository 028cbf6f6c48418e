"""Environments by name.

A new one is a module in this folder and a row in ENVS. A row names the module's `KIND`: the options
that the environment takes, and the function that makes it from them.

A row is imported when it is asked for. To list the names therefore needs neither JAX nor any game,
and a game that is not installed affects no other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxvff.core.registry import OpenRegistry

if TYPE_CHECKING:
    from jaxvff.core.types import EnvKind

ENVS: OpenRegistry[EnvKind] = OpenRegistry(
    {
        # On the device, as JAX functions.
        "matrix": "jaxvff.envs.matrix:KIND",
        "contextual": "jaxvff.envs.contextual:KIND",
        "matrix_steps": "jaxvff.envs.matrix_steps:KIND",
        "predator_prey": "jaxvff.envs.predator_prey:KIND",
        "foraging": "jaxvff.envs.foraging:KIND",
        "smax": "jaxvff.envs.smax:KIND",
        "jaxmarl": "jaxvff.envs.jaxmarl:KIND",
        # On the host, in worker processes.
        "grf": "jaxvff.envs.grf:KIND",
        "smac": "jaxvff.envs.smac:KIND",
        "smacv2": "jaxvff.envs.smacv2:KIND",
        "smaclite": "jaxvff.envs.smaclite:KIND",
        "custom": "jaxvff.envs.custom:KIND",
    },
    "jaxvff.envs",
    adapted="jaxvff.envs.plugged:kind",
)
