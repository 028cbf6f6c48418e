"""Command lines of tests, made of lists that share keys."""

from __future__ import annotations


def once(texts: list[str]) -> list[str]:
    """The last one of each key: a command line that has a key twice is refused."""
    return list({text.partition("=")[0]: text for text in texts}.values())
