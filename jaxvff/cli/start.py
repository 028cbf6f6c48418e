"""What comes between a command line that makes sense and its first result."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxvff.settings.run_options import OutputOptions


@contextmanager
def importing(options: OutputOptions | None = None) -> Iterator[None]:
    """Say that JAX and the game are being imported, and set JAX up before it starts.

    Raises:
      UserError: the environment sets JAX up so that no run would be right.
    """
    from rich.console import Console

    from jaxvff.cli import switches

    with Console(stderr=True).status("importing JAX and what the command needs"):
        if "jax" not in sys.modules:  # in a notebook it is there, as its user wants it
            switches.import_jax()

        from jaxvff.training import compilation_cache, sharding

        sharding.use_all_cores()
        compilation_cache.set_up(options or OutputOptions())
        switches.check_devices()
        yield
