"""marl_eval.json: the evaluations of a run, in the layout that InstaDeep's marl-eval reads.

{environment: {task: {algorithm: {seed_<n>: {step_<k>: {...}, ..., absolute_metrics: {...}}}}}}

Source: https://github.com/instadeepai/marl-eval, "Data Structure for Raw Experiment data". It
wants one value per metric where the metric is a mean over episodes, as ours are. Its names of
environments and tasks are lower case.

Differs from what marl-eval's own logger writes: there is no `elapsed_time`. Nothing in marl-eval
reads it, and its check of a file (DiagnoseData) calls it invalid.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxvff.core.files import write_json
from jaxvff.reports.records import Curve, Line, env_steps, measured

FILE = "marl_eval.json"
METRICS = {"return": "test_return", "win_rate": "test_win_rate"}  # marl-eval's name -> ours

Steps = dict[str, dict[str, Any]]  # of one seed: step_<k> and absolute_metrics


def write(curves: Sequence[Curve], folder: Path) -> None:
    """Write one file for all sweep values of a run; nothing if none has been evaluated."""
    if any(curve.lines for curve in curves):
        write_json(folder / FILE, document(curves))


def document(curves: Sequence[Curve]) -> dict[str, Any]:
    """The whole file.

    A seed that stopped is left out, since marl-eval reads no null; table.json counts those seeds.
    marl-eval expects the same number of seeds and of evaluations everywhere. It reports where
    they differ.
    """
    out: dict[str, Any] = {}
    for record, lines in curves:
        seeds = {f"seed_{seed}": seed_steps(lines, i) for i, seed in enumerate(record.seed)}
        if complete := {name: steps for name, steps in seeds.items() if steps}:
            algorithm = ", ".join(filter(None, [record.algorithm, record.label]))
            tasks = out.setdefault(record.env["kind"], {})
            tasks.setdefault(record.task.lower(), {})[algorithm] = complete
    return out


def seed_steps(lines: Sequence[Line], i: int) -> Steps:
    """The evaluations of the i-th seed; empty if a value is missing.

    `absolute_metrics` are those of the last evaluation. Differs from marl-eval's protocol, which
    plays ten times the episodes with the best policy of the run: a run keeps its last policy only.
    """
    names = {k: name for k, name in METRICS.items() if any(measured(x, name) for x in lines)}
    values = [{k: [line[name][i]] for k, name in names.items()} for line in lines]
    if not values or any([None] in of_line.values() for of_line in values):
        return {}
    steps: Steps = {
        f"step_{k}": {"step_count": env_steps(line)[i], **of_line}
        for k, (line, of_line) in enumerate(zip(lines, values, strict=True))
    }
    return steps | {"absolute_metrics": values[-1]}
