"""What comes between a command line that makes sense and its first result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxvff.api import start
from jaxvff.settings.run_options import OutputOptions


@contextmanager
def importing(options: OutputOptions | None = None) -> Iterator[None]:
    """Say that JAX and the game are being imported, and set JAX up before it starts.

    Raises:
      UserError: the environment sets JAX up so that no run would be right.
    """
    from rich.console import Console

    with Console(stderr=True).status("importing JAX and what the command needs"):
        start.set_up(options)
        yield
