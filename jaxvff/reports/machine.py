"""Where figures come from: versions, devices, and the memory that this process took."""

from __future__ import annotations

import sys

import jax

import jaxvff


def machine() -> dict[str, str | int | None]:
    """Versions, devices, and the peak memory of this process in MB (None: unknown)."""
    return {
        "jaxvff": jaxvff.__version__,
        "jax": jax.__version__,
        "python": sys.version.split()[0],
        "device": jax.local_devices()[0].device_kind,
        "n_devices": jax.local_device_count(),
        "peak_rss_mb": _peak_rss_mb(),
    }


def _peak_rss_mb() -> int | None:
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform == "linux" else 1024**2))  # kB on Linux, else bytes
