"""What the environment asks of JAX: refused where it breaks a run or changes its numbers."""

from __future__ import annotations

import os
import subprocess
import sys

from jaxvff.core.errors import UserError

# Settings of JAX, also environment variables in capitals -> the value that jaxvff is made for.
# With another one it fails, or the same seeds give other results.
NEEDED = {
    "jax_enable_x64": "False",
    "jax_disable_jit": "False",
    "jax_no_tracing": "False",
    "jax_no_execution": "False",
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": "True",
    "jax_random_seed_offset": "0",
    "jax_high_dynamic_range_gumbel": "False",
    "jax_debug_key_reuse": "False",
    "jax_transfer_guard": "allow",
    "jax_transfer_guard_host_to_device": "allow",
    "jax_transfer_guard_device_to_host": "allow",
    "jax_transfer_guard_device_to_device": "allow",
}
PLACES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "CUDA_VISIBLE_DEVICES")  # where JAX is to run
DETERMINISTIC = "--xla_gpu_deterministic_ops=true"
READ_FLAGS = "from jaxlib import xla_client; xla_client.CompileOptions()"


def import_jax() -> None:
    """Import JAX as the environment sets it up.

    Raises:
      UserError: a variable that JAX does not take, or with which no run would be right.
    """
    if os.environ.get("XLA_FLAGS"):
        _check_xla_flags(os.environ["XLA_FLAGS"])
    try:
        import jax
    except ValueError as error:  # it names the variable and the value
        raise UserError(f"JAX does not start: {error}; unset the environment variable") from error
    for name, needed in NEEDED.items():
        is_set = getattr(jax.config, name, None)
        is_set = getattr(is_set, "value", is_set)  # of an enum
        if is_set is not None and str(is_set) != needed:
            variable = name.upper()
            raise UserError(
                f"{variable}={os.environ.get(variable, is_set)} is set, and jaxvff needs {needed}: "
                f"it would fail or compute other numbers; unset {variable}"
            )


def be_deterministic(started: bool) -> None:
    """Have XLA take only operations on a GPU whose sums have a fixed order.

    Args:
      started: JAX was imported before, and may have read its flags.

    Raises:
      UserError: it was, without this flag.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if DETERMINISTIC in flags.split():
        return
    if started:
        raise UserError(
            "deterministic=true has to be said before JAX starts, and it has been imported; "
            f"restart with XLA_FLAGS={DETERMINISTIC} set, or use the command line"
        )
    os.environ["XLA_FLAGS"] = f"{flags} {DETERMINISTIC}".strip()


def check_devices() -> None:
    """Start JAX's devices.

    Raises:
      UserError: the environment asks for some that are not there.
    """
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that there is a GPU for cuda
        asked = " ".join(f"{name}={os.environ[name]}" for name in PLACES if name in os.environ)
        said = next(iter(str(error).splitlines()), "there is none of that kind")
        remedy = f"unset {asked.split('=')[0]}, or" if asked else "To use the processor:"
        raise UserError(
            f"{asked or 'JAX'} gives no device: {said}; {remedy} set JAX_PLATFORMS=cpu"
        ) from error


def _check_xla_flags(flags: str) -> None:
    """XLA ends the process at a flag that it does not know: so another process reads them first."""
    done = subprocess.run([sys.executable, "-c", READ_FLAGS], capture_output=True, text=True)
    # A traceback: this jaxlib cannot be asked in this way.
    if done.returncode == 0 or "Traceback" in done.stderr:
        return
    said = [line.partition("] ")[2] for line in done.stderr.splitlines() if "] " in line]
    raise UserError(
        f"XLA_FLAGS={flags!r} cannot be read by XLA{': ' + said[0].rstrip('.') if said else ''}; "
        "correct it or unset XLA_FLAGS"
    )
