"""Checks of options that several environments share."""

from __future__ import annotations

from typing import Any

from jaxvff.types import UserError


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """`value` of `env.<name>` if it is a whole number in [low, high], or a UserError."""
    good = isinstance(value, int) and not isinstance(value, bool) and value >= low
    if good and (high is None or value <= high):
        return value
    span = f"{low} or more" if high is None else f"{low} to {high}"
    raise UserError(f"env.{name}={value!r} must be a whole number, {span}; try {low}")
