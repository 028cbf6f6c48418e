"""Value-function factorisation for cooperative multi-agent Q-learning, as pure JAX functions.

Import what you need from its modules (docs/design.md has the map); this one stays light.
"""

__all__ = ["__version__"]
__version__ = "0.1.0"
