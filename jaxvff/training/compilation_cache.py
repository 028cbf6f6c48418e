"""JAX's persistent compilation cache: a program that was compiled before starts at once.

On by default, in the user's cache folder. `compilation_cache=false` switches it off for a run, and
JAXVFF_CACHE=off for all; JAXVFF_CACHE=<folder> puts it elsewhere. Whoever has set
JAX_COMPILATION_CACHE_DIR has decided already, and nothing is changed.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib
import platformdirs

from jaxvff.settings.run_options import OutputOptions

VARIABLE = "JAXVFF_CACHE"
MAX_BYTES = 2 * 10**9  # the least recently used programs go first
MIN_COMPILE_S = 0.2  # programs that compile faster are not kept


def set_up(options: OutputOptions) -> Path | None:
    """Switch the cache on, unless somebody has switched it off; its folder.

    Several runs may share it: JAX writes an entry under a lock, and whole.
    """
    where = os.environ.get(VARIABLE, "")
    if not options.compilation_cache or where == "off":
        return None
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return None
    folder = Path(where or platformdirs.user_cache_dir("jaxvff")) / _machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
    except OSError:  # a home that cannot be written to: everything works, and compiles anew
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_S)
    return folder


def _machine() -> str:
    """Programs are compiled for one kind of processor: a home may be shared by several."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else [platform.processor()]
    said = [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    kind = hashlib.sha256("\n".join(sorted(set(said))).encode()).hexdigest()[:8]
    return f"{platform.machine()}-{kind}-jaxlib-{jaxlib.__version__}"
