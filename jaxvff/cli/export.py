"""`jaxvff export run=<folder> to=<folder>`: the agents of a seed, as files of their own."""

from __future__ import annotations

from pathlib import Path

from jaxvff.api import run as runs
from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.settings import overrides


def run(args: list[str]) -> int:
    """Write the policy of one seed of a run."""
    rest, own = overrides.split(args, "run", "to", "seed", "trust")
    if missing := [key for key in ("run", "to") if key not in own]:
        raise UserError(
            f"export needs {missing[0]}=; write jaxvff export run=<run folder> to=<new folder>"
        )
    seed = own.get("seed")
    if seed is not None and not seed.isdecimal():
        raise UserError(f"seed={seed} must be a whole number, such as 0")
    sweep = {o.key: o.value for o in overrides.parse(rest, typed=True)}
    trained = runs.load(own["run"], trust=overrides.flag(own, "trust"))
    with importing(trained.configs[0]):
        from jaxvff.policies import files

        policy = trained.policy(None if seed is None else int(seed), sweep)
    for path in files.save_policy(policy, Path(own["to"])):
        print(path)
    return 0
