"""marl_eval.json: the evaluations of a run, in the layout that InstaDeep's marl-eval reads.

{environment: {task: {algorithm: {seed_<n>: {step_<k>: {...}, ..., absolute_metrics: {...}}}}}}

Source: https://github.com/instadeepai/marl-eval, "Data Structure for Raw Experiment data", which
wants one value per metric where it is a mean over episodes, as ours are. Its names of
environments and tasks are lower case. Differs from what its own logger writes: no `elapsed_time`,
which nothing of it reads and its check of a file (DiagnoseData) calls invalid.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jaxvff import show
from jaxvff.log import write_json

FILE = "marl_eval.json"
METRICS = {"return": "test_return", "win_rate": "test_win_rate"}  # theirs -> ours

Curve = tuple[dict[str, Any], list[dict[str, Any]]]  # a record of show.py, its lines


def write(curves: list[Curve], folder: Path) -> None:
    """One file for all sweep values of a run."""
    if any(lines for _, lines in curves):
        write_json(folder / FILE, document(curves))


def document(curves: list[Curve]) -> dict[str, Any]:
    """The whole file.

    A seed that stopped is left out, since marl-eval reads no null: table.json counts those. It
    also asks for the same number of seeds and of evaluations everywhere, and says where not.
    """
    out: dict[str, Any] = {}
    for record, lines in curves:
        env, task = record["env"]["kind"], show.task(record["env"]).lower()
        algorithm = ", ".join(filter(None, [show.algorithm(record), show.label(record["sweep"])]))
        seeds = {f"seed_{seed}": one_seed(lines, i) for i, seed in enumerate(record["seed"])}
        if kept := {name: steps for name, steps in seeds.items() if steps}:
            out.setdefault(env, {}).setdefault(task, {})[algorithm] = kept
    return out


def one_seed(lines: list[dict[str, Any]], i: int) -> dict[str, Any]:
    """The evaluations of the i-th seed; nothing if a value is missing.

    `absolute_metrics` are those of the last evaluation. Differs from marl-eval's protocol, which
    plays ten times the episodes with the best policy of the run: we keep no policy but the last.
    """
    measured = {k: key for k, key in METRICS.items() if any(_known(line, key) for line in lines)}
    steps: dict[str, Any] = {}
    for k, line in enumerate(lines):
        values = {name: [line[key][i]] for name, key in measured.items()}
        if [None] in values.values():
            return {}
        steps[f"step_{k}"] = {
            "step_count": line.get("env_steps", [line["step"]] * len(line["seed"]))[i],
            **values,
        }
    return steps | {"absolute_metrics": values} if steps else {}


def _known(line: dict[str, Any], key: str) -> bool:
    return any(x is not None for x in line.get(key, []))
