"""Pictures of a report, with their data as CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class File(NamedTuple):
    """A CSV of a picture, to be saved."""

    what: str
    name: str
    uri: str
    # Of single seeds: the style of each curve in it, from which the page draws them; else empty.
    styles: str = ""


class Picture(NamedTuple):
    """A picture with its data."""

    title: str
    note: str
    svg: str
    files: list[File]


def file(
    what: str,
    name: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    styles: str = "",
) -> File:
    """A CSV as a data URI; what is not finite is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_plain(x) for x in row] for row in rows)
    slug = re.sub(r"[^\w.-]+", "-", name).strip("-")
    text = out.getvalue()
    for character in '%\n #"':  # by hand: urllib's quote takes seconds for megabytes
        text = text.replace(character, f"%{ord(character):02X}")
    return File(what, f"{slug}.csv", f"data:text/csv;charset=utf-8,{text}", styles)


def texts(numbers: np.ndarray) -> list[str]:
    """Numbers as `file` writes them, many at once; what is not finite is empty."""
    found = ("%.5g " * len(numbers) % tuple(numbers.tolist())).split()
    return found if np.isfinite(numbers).all() else [t if t[-1] not in "nf" else "" for t in found]


def _plain(x: object) -> object:
    if not isinstance(x, float):
        return x
    return f"{x:.5g}" if math.isfinite(x) else ""
