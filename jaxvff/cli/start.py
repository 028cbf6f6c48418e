"""What comes between a command line that makes sense and its first result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxvff.api import start
from jaxvff.settings.run_options import OutputOptions
from jaxvff.training.processes import Meeting, Place


@contextmanager
def importing(
    options: OutputOptions | None = None, meeting: Meeting | None = None
) -> Iterator[Place]:
    """Say that JAX and the game are being imported, and set JAX up before it starts.

    Args:
      options: as start.set_up takes them.
      meeting: of this process with others; None: it is alone.

    Returns:
      A context with the place of this process.

    Raises:
      UserError: the environment sets JAX up so that no run would be right.
    """
    from rich.console import Console

    with Console(stderr=True).status("importing JAX and what the command needs"):
        yield start.set_up(options, meeting)
