"""Settings for all tests, before JAX starts."""

from __future__ import annotations

import os

# Tests compile a hundred small programs and run each for a moment: half the time goes without
# LLVM's optimisation. The training loop asks for its own level (training/program.py) and keeps it.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

# Tests compile what they test; tests/test_compilation_cache.py asks for the cache.
os.environ["JAXVFF_CACHE"] = "off"
