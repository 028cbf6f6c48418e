"""Messages about seeds that stopped because a number was not finite."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from jaxvff.runs.execute import by_value
from jaxvff.runs.plan import Job


def stops(
    job: Job, metrics: dict[str, np.ndarray], reported: set[tuple[str, int]]
) -> Iterator[str]:
    """A line for each seed that stopped and was not reported before.

    Args:
      job: the job in training.
      metrics: of a report, with `stopped_at` `[K]`: env steps, or -1 where a seed has not stopped.
      reported: sweep values and seeds that have had their line; those of new lines are added.
    """
    rest = "the others go on" if np.any(metrics["stopped_at"] < 0) else "none goes on"
    for value, of_value in by_value(job, metrics):
        sweep = ", ".join(f"{k}={v}" for k, v in value.label.items())
        for seed, at in zip(value.seeds, of_value["stopped_at"], strict=True):
            if at < 0 or (sweep, seed) in reported:
                continue
            reported.add((sweep, seed))
            yield (
                f"seed {seed}{sweep and ' of ' + sweep} stopped at env step {at:,}: a reward, an "
                f"observation or the loss was not finite; {rest}"
            )
