"""`jaxvff plan train ...` and `jaxvff plan reproduce <name> ...`: a run for several workers."""

from __future__ import annotations

import shlex
from pathlib import Path

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError, check_name
from jaxvff.settings import overrides, presets, sweep
from jaxvff.settings.overrides import Override

COMMANDS = ("train", "reproduce")  # that can be planned


def run(args: list[str]) -> int:
    """Plan what `train` or `reproduce` would train here, and train nothing."""
    command, rest = (args[0], args[1:]) if args else ("nothing", [])
    check_name(command, COMMANDS, "plan")
    if command == "reproduce":
        name, rest = (rest[0], rest[1:]) if rest else ("nothing", [])
        check_name(name, presets.names(), "reproduce")
    texts, own = overrides.split(rest, "shards")
    given = overrides.parse(texts, typed=True)
    n_shards = whole_number("shards", own.get("shards"))
    parts = presets.overrides(name, given) if command == "reproduce" else [given]
    command = f"reproduce {name}" if command == "reproduce" else command
    return _plan(command, parts, n_shards)


def _plan(command: str, parts: list[list[Override]], n_shards: int) -> int:
    # Before JAX is there: mistakes are answered at once.
    configs = sweep.configs(parts)
    with importing(configs[0]):
        from jaxvff.runs import folder as runs
        from jaxvff.runs import memory, shards, trust

        folder, jobs = runs.new_run(*parts, command=command, elsewhere=True)
    try:
        plan = shards.make(folder, jobs, n_shards)
    except UserError:
        _remove(folder)
        raise
    lanes = sum(job.n_lanes for job in jobs)
    most = max(shard.n_lanes for shard in plan.shards)
    print(f"{len(plan.shards)} shards of at most {most} lanes, {lanes} lanes in all: {folder}")
    largest = {s.job: s for s in sorted(plan.shards, key=lambda s: s.n_lanes)}
    print(memory.describe(memory.largest([s.of(jobs) for s in largest.values()])), "(a shard)")
    if any(config.checkpoint_interval == 0 for config in configs):
        print(
            "checkpoint_interval=0: a shard whose worker is killed begins anew; set it to lose less"
        )
    named = any(name for config in configs for name in trust.names_code(config))
    quoted = shlex.quote(str(folder)) + " trust=true" * named
    print(
        f"on every machine: jaxvff work {quoted}; or start workers: jaxvff launch {quoted} on=..."
    )
    print(f"at the end: jaxvff merge {quoted}")
    return 0


def whole_number(key: str, text: str | None) -> int:
    """The value of a key that has to be there, at least 1.

    Raises:
      UserError: it is missing, or no such number.
    """
    if text is None or not text.isdecimal() or int(text) < 1:
        said = f"{key}={text}" if text is not None else f"{key}= is missing and"
        raise UserError(f"{said} must be a whole number of 1 or more; write {key}=64")
    return int(text)


def _remove(folder: Path) -> None:
    """Take back a folder that was made a moment ago for a plan that cannot be."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
