"""`jaxvff report <run> ... out=<folder>`: a page about runs, also while they go on."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

from jaxvff.core.errors import UserError

if TYPE_CHECKING:
    from jaxvff.reports.page import Wish

KEYS = ("out", "curves", "score", "watch", "port", "every")
DEFAULTS = {"out": "report", "watch": "false", "port": "8000", "every": "5"}
LARGEST_PORT, LONGEST_S = 65535, 3600


def run(args: list[str]) -> int:
    """Write the page, and with watch=true serve and renew it until Ctrl-C."""
    # Its products are small: a thread for each core takes longer to wake up than to compute.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    paths, own = arguments(args)
    from jaxvff.reports import page

    wish = page.Wish(
        metrics=tuple(name for name in own.get("curves", "").split(",") if name),
        score=own.get("score"),
    )
    out = Path(own["out"])
    if own["watch"] == "true":
        return _watch(paths, out, wish, port=int(own["port"]), every_s=float(own["every"]))
    gc.disable()  # each collection would walk through all numbers that were read
    print(page.write(paths, out, wish))
    return 0


def arguments(args: list[str]) -> tuple[list[Path], dict[str, str]]:
    """The runs, and the values of KEYS with their defaults.

    Raises:
      UserError: there is no run, one is not there, or a key has no sensible value.
    """
    from jaxvff.settings import overrides

    rest, given = overrides.split(args, *KEYS)
    if not rest:
        keys = "=, ".join(KEYS)
        raise UserError(f"report takes run folders or files of records, and {keys}=")
    for text in sorted(rest, key=lambda text: "=" not in text):  # mistyped keys first
        if not Path(text).exists():
            keys = f"; a key is one of {'=, '.join(KEYS)}=" if "=" in text else ""
            raise UserError(f"{text} does not exist; name a run folder, such as runs/mine{keys}")
    own = DEFAULTS | given
    overrides.flag(own, "watch")
    if Path(own["out"]).is_file():
        raise UserError(f"out={own['out']} is a file; name a folder")
    _check_numbers(own, given)
    return [Path(text) for text in rest], own


def _check_numbers(own: dict[str, str], given: dict[str, str]) -> None:
    """Refuse a port or an interval that is none, or that nothing reads."""
    for key, low, high in (("port", 0, LARGEST_PORT), ("every", 1, LONGEST_S)):
        if own["watch"] == "false" and key in given:
            raise UserError(f"{key}={given[key]} does nothing without watch=true")
        text = own[key]
        if not text.isdecimal() or not low <= int(text) <= high:
            raise UserError(
                f"{key}={text} must be a whole number from {low} to {high}, such as {DEFAULTS[key]}"
            )


def _watch(paths: list[Path], out: Path, wish: Wish, *, port: int, every_s: float) -> int:
    """Serve the page on this machine alone, and make it anew when a run has reported.

    It ends with Ctrl-C, at any moment: the page in the folder is whole, and asks for no newer one.
    """
    from jaxvff.reports import page, serving

    shown = ""

    def write() -> None:
        nonlocal shown
        found = page.gather(paths, wish)
        page.save(page.html(found), out)
        shown = page.html(found, renews=True)

    seen = serving.state(paths)
    write()
    with serving.served(lambda: shown, port) as address:
        print(
            f"{address} shows {out / page.FILE}, renewed as runs go on; Ctrl-C ends it", flush=True
        )
        serving.renew(paths, every_s, write, seen=seen)
    return 0
