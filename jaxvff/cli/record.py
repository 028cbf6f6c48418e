"""`jaxvff record run=<folder> to=<file> episodes=<n>`: episodes to learn from elsewhere."""

from __future__ import annotations

from jaxvff.api import run as runs
from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.settings import overrides

NEEDED = ("run", "to", "episodes")
NUMBERS = ("episodes", "seed", "play_seed")  # whole ones


def run(args: list[str]) -> int:
    """Write episodes of one seed of a run."""
    rest, own = overrides.split(args, *NEEDED, "seed", "epsilon", "play_seed", "trust")
    if missing := [key for key in NEEDED if key not in own]:
        raise UserError(
            f"record needs {missing[0]}=; write jaxvff record run=<run folder> to=<new file>.npz "
            "episodes=1000"
        )
    for key in NUMBERS:
        if not own.get(key, "0").isdecimal():
            raise UserError(f"{key}={own[key]} must be a whole number, such as 0")
    try:
        epsilon = float(own.get("epsilon", "0"))
    except ValueError as error:
        raise UserError(f"epsilon={own['epsilon']} must be a number in [0, 1]") from error
    sweep = {o.key: o.value for o in overrides.parse(rest, typed=True)}
    trained = runs.load(own["run"], trust=overrides.flag(own, "trust"))
    with importing(trained.configs[0]):
        means = trained.record(
            own["to"],
            int(own["episodes"]),
            seed=int(own["seed"]) if "seed" in own else None,
            sweep=sweep,
            epsilon=epsilon,
            play_seed=int(own.get("play_seed", "0")),
        )
    said = ", ".join(f"{name} {mean:.4g}" for name, mean in means.items())
    print(f"{own['to']}: {own['episodes']} episodes; means: {said}")
    return 0
