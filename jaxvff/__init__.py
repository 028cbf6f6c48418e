"""Value-function factorisation for cooperative multi-agent Q-learning, as pure JAX functions.

The names below are imported when they are asked for: `import jaxvff` itself imports nothing.
docs/design.md has the map of the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaxvff.core.registry import load

if TYPE_CHECKING:
    from jaxvff.envs import ENVS
    from jaxvff.methods.table import METHODS
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
    "Program": "jaxvff.training.program:Program",
    "Watcher": "jaxvff.runs.execute:Watcher",
    "device_program": "jaxvff.training.program:device_program",
    "execute": "jaxvff.runs.execute:execute",
    "load_config": "jaxvff.settings.config:load",
    "new_run": "jaxvff.runs.folder:new_run",
    "old_run": "jaxvff.runs.folder:old_run",
    "plan": "jaxvff.runs.plan:plan",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return load(_PUBLIC[name])
    raise AttributeError(f"module 'jaxvff' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
