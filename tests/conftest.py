"""Settings for all tests, before JAX starts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Tests compile a hundred small programs and run each for a moment: half the time goes without
# LLVM's optimisation.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

# Tests compile what they test; tests/test_compilation_cache.py asks for the cache.
os.environ["JAXVFF_CACHE"] = "off"

# The training loop and evaluation ask for more (training/program.py): here not, but in tests that
# train for long and in the processes that tests start.
import jax

from jaxvff.training.program import CPU_COMPILER, EFFORT

USERS = {what: options[EFFORT] for what, options in CPU_COMPILER.items()}
for options in CPU_COMPILER.values():
    options[EFFORT] = 0

# Files whose tests start processes and wait for them, or take minutes: they go first, so that
# nobody waits for one of them at the end.
FIRST = ("test_launch", "test_docs", "test_wheel", "test_program", "test_drills",
         "test_shards", "test_processes", "test_run", "test_host", "test_learning",
         "test_parallel_learner")  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files; the tests of each stay in order."""
    items.sort(key=lambda item: item.path.stem not in FIRST)


@pytest.fixture
def compiled_as_for_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test that trains for long."""
    for what, options in CPU_COMPILER.items():
        monkeypatch.setitem(options, EFFORT, USERS[what])


@pytest.fixture(autouse=True)
def let_go_of_programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every compiled program takes some of the 65,530 memory maps that Linux gives a process, and
    without a free one the compiler crashes."""
    yield
    maps, slow = Path("/proc/self/maps"), request.node.get_closest_marker("slow")
    if slow and maps.exists() and maps.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
