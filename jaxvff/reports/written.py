"""The files of a run's results: tables, plots and marl_eval.json.

<run>/table.json       the record of every sweep value, and the machine; table_file.py reads it
<run>/table.png        true and learned payoffs         ) of matrix games
<run>/rates.png        of several sweep values          )
<run>/curves.png       learning curves; also in the folder of each job, if there are several
<run>/marl_eval.json   of episodes, for InstaDeep's marl-eval
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvff.core.files import write_json
from jaxvff.reports import marl_eval, plots, records
from jaxvff.reports.machine import machine
from jaxvff.reports.records import EpisodeRecord, Record
from jaxvff.runs.execute import Result
from jaxvff.runs.files import TABLE_FILE

TABLE_PLOT = "table.png"
RATES_PLOT, CURVES_PLOT = "rates.png", "curves.png"


def write(
    folder: Path, results: Sequence[Result], where: Mapping[str, Any] | None = None
) -> list[Record]:
    """Write the files of what was trained; nothing without results.

    Args:
      folder: the run folder.
      results: from execute, with the metrics files that it wrote.
      where: the machine that they were trained on; None: this one.

    Returns:
      The record of each result.
    """
    found: list[Record] = [records.of(result) for result in results]
    if not found:
        return found
    tables = [record.to_json() for record in found]
    write_json(folder / TABLE_FILE, {"machine": where or machine(), "results": tables})

    # Matrix games.
    games, _ = records.by_kind(found)
    if games:
        plots.learned_tables(games, folder / TABLE_PLOT)
    if len(games) > 1:
        plots.rates(games, folder / RATES_PLOT)

    # Curves: of all sweep values together, and of those of each job.
    curves = [
        records.curve(result.folder, record) for result, record in zip(results, found, strict=True)
    ]
    plots.learning_curves(curves, folder / CURVES_PLOT)
    for job_folder in {result.folder for result in results} - {folder}:
        of_job = [c for c, r in zip(curves, results, strict=True) if r.folder == job_folder]
        plots.learning_curves(of_job, job_folder / CURVES_PLOT)

    marl_eval.write([c for c in curves if isinstance(c.record, EpisodeRecord)], folder)
    return found
