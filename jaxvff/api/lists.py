"""What can be chosen."""

from __future__ import annotations

from jaxvff.settings.config import config_names


def list_methods() -> list[str]:
    """The names that `method=` takes."""
    return config_names("method")


def list_envs() -> list[str]:
    """The names that `env=` takes."""
    return config_names("env")
