"""Results and curves as columns, a row per seed: arrays, or a pandas DataFrame."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.reports.records import Line, Record, task

if TYPE_CHECKING:
    import pandas


class Columns(Mapping[str, np.ndarray]):
    """Columns of one length, by name; what a row does not have is NaN (or "" of a text)."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """`rows`: the value of each column."""
        self.n_rows = len(rows)
        names = dict.fromkeys(name for row in rows for name in row)
        self._columns = {name: _column([row.get(name) for row in rows]) for name in names}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"Columns({self.n_rows} rows: {', '.join(self)})"

    def to_pandas(self) -> pandas.DataFrame:
        """The same as a DataFrame.

        Raises:
          UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UserError(
                "to_pandas needs pandas, which is not installed: pip install pandas; without it, "
                "columns are NumPy arrays: run.curves['test_return']"
            ) from error
        return pandas.DataFrame(self._columns)


class Results(Sequence[Record]):
    """The records of a run, one per sweep value; printed as the tables of the command line."""

    def __init__(self, records: Iterable[Record]) -> None:
        """`records`: of each sweep value."""
        self._records = tuple(records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, index: int | slice) -> Record | tuple[Record, ...]:
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)

    @property
    def columns(self) -> Columns:
        """A row per seed of every sweep value, with its scores."""
        return Columns([row for record in self for row in _rows(record)])

    def to_pandas(self) -> pandas.DataFrame:
        """`columns` as a DataFrame; see Columns.to_pandas."""
        return self.columns.to_pandas()

    def __repr__(self) -> str:
        return self._printed("text")

    def _repr_html_(self) -> str:
        return self._printed("html")

    def _printed(self, form: str) -> str:
        from rich.console import Console

        from jaxvff.reports import tables

        console = Console(file=io.StringIO(), record=True, width=100, force_jupyter=False)
        tables.print_results(console, self)
        if form == "text":
            return console.export_text()
        return console.export_html(inline_styles=True, code_format="<pre>{code}</pre>")


def curves(lines: Iterable[Line]) -> Columns:
    """Every report of every seed.

    Args:
      lines: of metrics.jsonl.
    """
    return Columns([row for line in lines for row in _reported(line)])


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    about = {"method": record.method, "env": record.env["kind"], "task": task(record.env)}
    own = {"stopped_at": record.stopped_at, "test_return": record.test_return}
    scores = own | record.per_seed
    for i, seed in enumerate(record.seed):
        of_seed = {name: values[i] for name, values in scores.items()}
        yield {**about, **_swept(record.sweep), "seed": seed, "steps": record.steps, **of_seed}


def _reported(line: Line) -> Iterator[dict[str, Any]]:
    own = {"step", "sweep", "seed"}
    values = {name: value for name, value in line.items() if name not in own}
    for i, seed in enumerate(line["seed"]):
        of_seed = {k: v[i] if isinstance(v, list) else v for k, v in values.items()}
        yield {"step": line["step"], **_swept(line["sweep"]), "seed": seed, **of_seed}


def _swept(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a sweep that go into a cell."""
    plain = (str, int, float, bool)
    return {k: v if isinstance(v, plain) else str(v) for k, v in sweep.items()}


def _column(values: list[Any]) -> np.ndarray:
    if any(isinstance(v, str) for v in values):
        return np.array(["" if v is None else str(v) for v in values], dtype=object)
    return np.array([np.nan if v is None else v for v in values])
