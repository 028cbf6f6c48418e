"""Value-function factorisation for cooperative multi-agent Q-learning, as pure JAX functions."""

__version__ = "0.1.0"
