"""What a process needs once before it trains or plays: JAX, set up as asked for."""

from __future__ import annotations

import sys

from jaxvff.settings.run_options import OutputOptions, RunOptions
from jaxvff.training.processes import Meeting, Place


def set_up(options: OutputOptions | None = None, meeting: Meeting | None = None) -> Place:
    """Import JAX, and set it up before it starts; one that is there stays as its user wants it.

    Args:
      options: where the compilation cache is; of a Config, also whether XLA is deterministic.
      meeting: of this process with others; None: it is alone.

    Returns:
      The place of this process among all.

    Raises:
      UserError: the environment sets JAX up so that no run would be right.
    """
    from jaxvff.api import switches

    was_there = "jax" in sys.modules
    if not was_there:
        switches.import_jax()
    if isinstance(options, RunOptions) and options.deterministic:
        switches.be_deterministic(was_there)

    from jaxvff.training import compilation_cache, sharding

    sharding.use_all_cores()
    compilation_cache.set_up(options or OutputOptions())
    place = meeting.join() if meeting else Place()
    switches.check_devices()
    return place
