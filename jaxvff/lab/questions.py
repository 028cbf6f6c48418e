"""The questions of the lab, and how they are answered: two at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar, cast

import jax

from jaxvff.lab import barriers, basins, claims, escapes, phase, points, spectra, study
from jaxvff.lab.settings import StabilityOptions
from jaxvff.lab.study import Row, Study

P = ParamSpec("P")
T = TypeVar("T")
Answer = Row | list[Row]

QUESTIONS = ("points", "escapes", "spectra", "barriers", "phase", "basins", "claims")
CLAIM_QUESTIONS = ("points", "escapes", "claims")
# Questions that need nothing but the study.
INDEPENDENT: dict[str, Callable[[Study], Answer]] = {
    "escapes": escapes.answer,
    "spectra": spectra.answer,
    "barriers": barriers.answer,
    "phase": phase.answer,
}


def answers(options: StabilityOptions, only_claims: bool = False) -> Iterator[tuple[str, Answer]]:
    """The answer to each of QUESTIONS (or CLAIM_QUESTIONS), by name, as soon as it is there.

    Float64 throughout. Two questions are worked on at a time: most of the wait is compilation.
    """
    names = CLAIM_QUESTIONS if only_claims else QUESTIONS
    pool = ThreadPoolExecutor(2)
    try:
        if "basins" in names:
            flows = pool.submit(_in_float64, basins.random_flows, options)
        prepared = _in_float64(study.prepare, options)
        yield "points", points.answer(prepared)

        running = {
            name: pool.submit(_in_float64, answer, prepared)
            for name, answer in INDEPENDENT.items()
            if name in names
        }
        for name, future in running.items():
            yield name, future.result()

        ends = None
        if "basins" in names:
            ends = _in_float64(basins.answer, prepared, flows.result())
            yield "basins", ends
        left = cast(list[Row], running["escapes"].result())
        yield "claims", _in_float64(claims.answer, prepared, escapes=left, basins=ends)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _in_float64(f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    with jax.enable_x64(True):  # this holds for one thread
        return f(*args, **kwargs)
