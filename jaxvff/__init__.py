"""Value-function factorisation for cooperative multi-agent Q-learning, as pure JAX functions.

The names below are imported when they are asked for: `import jaxvff` itself imports nothing.
docs/design.md has the map of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxvff.core.registry import load as _imported

if TYPE_CHECKING:
    from jaxvff.api.lists import list_envs, list_methods
    from jaxvff.api.run import Run, load
    from jaxvff.api.training import train
    from jaxvff.core.errors import UserError
    from jaxvff.envs import ENVS
    from jaxvff.methods.table import METHODS
    from jaxvff.policies.files import load_policy, save_policy
    from jaxvff.policies.policy import Policy
    from jaxvff.runs.execute import Watcher, execute
    from jaxvff.runs.folder import new_run, old_run
    from jaxvff.runs.plan import Job, plan
    from jaxvff.settings.config import Config
    from jaxvff.settings.config import load as load_config
    from jaxvff.training.program import Program, device_program

__version__ = "0.1.0"

_PUBLIC = {
    "Config": "jaxvff.settings.config:Config",
    "ENVS": "jaxvff.envs:ENVS",
    "Job": "jaxvff.runs.plan:Job",
    "METHODS": "jaxvff.methods.table:METHODS",
    "Policy": "jaxvff.policies.policy:Policy",
    "Program": "jaxvff.training.program:Program",
    "Run": "jaxvff.api.run:Run",
    "UserError": "jaxvff.core.errors:UserError",
    "Watcher": "jaxvff.runs.execute:Watcher",
    "device_program": "jaxvff.training.program:device_program",
    "execute": "jaxvff.runs.execute:execute",
    "list_envs": "jaxvff.api.lists:list_envs",
    "list_methods": "jaxvff.api.lists:list_methods",
    "load": "jaxvff.api.run:load",
    "load_config": "jaxvff.settings.config:load",
    "load_policy": "jaxvff.policies.files:load_policy",
    "new_run": "jaxvff.runs.folder:new_run",
    "old_run": "jaxvff.runs.folder:old_run",
    "plan": "jaxvff.runs.plan:plan",
    "save_policy": "jaxvff.policies.files:save_policy",
    "train": "jaxvff.api.training:train",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return _imported(_PUBLIC[name])
    raise AttributeError(f"module 'jaxvff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
