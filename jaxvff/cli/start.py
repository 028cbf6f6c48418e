"""What comes between a command line that makes sense and its first result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from jaxvff.settings.run_options import OutputOptions


@contextmanager
def importing(options: OutputOptions | None = None) -> Iterator[None]:
    """Say that JAX and the game are being imported, and set JAX up before it starts."""
    from rich.console import Console

    with Console(stderr=True).status("importing JAX and what the command needs"):
        from jaxvff.training import compilation_cache, sharding

        sharding.use_all_cores()
        compilation_cache.set_up(options or OutputOptions())
        yield
