"""What a process needs once before it trains or plays: JAX, set up as asked for."""

from __future__ import annotations

import sys

from jaxvff.settings.run_options import OutputOptions


def set_up(options: OutputOptions | None = None) -> None:
    """Import JAX, and set it up before it starts; one that is there stays as its user wants it.

    Raises:
      UserError: the environment sets JAX up so that no run would be right.
    """
    from jaxvff.api import switches

    if "jax" not in sys.modules:
        switches.import_jax()

    from jaxvff.training import compilation_cache, sharding

    sharding.use_all_cores()
    compilation_cache.set_up(options or OutputOptions())
    switches.check_devices()
