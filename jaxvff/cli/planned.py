"""What the commands on a plan have in common: its folder, their own keys, its jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from jaxvff.cli.start import importing
from jaxvff.core.errors import UserError
from jaxvff.runs import run_file, shards, trust
from jaxvff.runs.shards import Plan
from jaxvff.settings import overrides, sweep
from jaxvff.training.processes import Meeting, Place

if TYPE_CHECKING:
    from jaxvff.runs.plan import Job


class Planned(NamedTuple):
    """A plan with its jobs."""

    folder: Path
    plan: Plan
    command: str  # that it is of
    jobs: Sequence[Job]
    place: Place  # of this process


def arguments(args: list[str], command: str, keys: Sequence[str]) -> tuple[Path, dict[str, str]]:
    """The folder, and the values of a command's own keys.

    Raises:
      UserError: there is no folder, or another key.
    """
    rest, own = overrides.split(args[1:], *keys)
    if not args or rest:
        wrong = f"; {rest[0]} is none of them" if rest else ""
        takes = ", ".join(f"{key}=" for key in keys) or "no keys"
        raise UserError(f"{command} takes the folder of a plan, and {takes}{wrong}")
    return Path(args[0]), own


@contextmanager
def opened(folder: Path, trusted: bool, meeting: Meeting | None = None) -> Iterator[Planned]:
    """A plan, with JAX imported; refused where this machine would compute other numbers.

    Args:
      folder: of the plan.
      trusted: whether it may name code.
      meeting: of this process with others; None: it is alone.

    Raises:
      UserError: it is no plan, was changed, is of other versions, or names code.
    """
    plan = shards.read(folder)
    shards.check_versions(folder, plan.versions)
    command, parts = run_file.read(folder)
    configs = sweep.configs(parts)
    with importing(configs[0], meeting) as place:
        if not trusted:
            trust.check(folder, configs)

        from jaxvff.runs import folder as runs

        jobs = runs.old_run(folder)[1]
    yield Planned(folder, plan, command, jobs, place)


def same_plan(folder: Path, plan: Plan, wanted: str | None) -> None:
    """Refuse another plan than the one that was launched.

    Raises:
      UserError: it is another one.
    """
    if wanted is not None and wanted != plan.id:
        raise UserError(
            f"{folder.resolve()} is not what was launched: plan {wanted} there and {plan.id} here; "
            "the folder has to be one that all machines share"
        )
