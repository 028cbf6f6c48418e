"""The process around a command: its signals, its output, and faults that nobody expected.

`jaxvff.cli.main.main` is the command alone: for tests and notebooks, whose process it leaves alone.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from jaxvff.cli import signals


def program() -> NoReturn:
    """`jaxvff` and `python -m jaxvff`; exits with the code of the command."""
    signals.leave_on_signals()  # first of all: the imports below take a while

    from jaxvff.cli import streams

    streams.keep_output_going()
    # Plots are drawn into files. A notebook's processes inherit a backend that may not be there.
    os.environ["MPLBACKEND"] = "Agg"
    # The log of a fault has all frames, and no note of JAX's that some were left out.
    os.environ.setdefault("JAX_TRACEBACK_FILTERING", "off")
    # Quiet the warnings about accelerators that a CPU build does not have.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

    from jaxvff.cli import faults
    from jaxvff.cli.main import main

    in_threads = faults.of_threads(sys.argv[1:])
    try:
        code = main()
    except Exception as error:
        code = faults.tell(error, sys.argv[1:])
    if code == 0:  # otherwise whoever waited for the thread has told it
        for thread_error in in_threads:
            code = faults.tell(thread_error, sys.argv[1:])
    gc.freeze()  # at its end Python would look through all that is left: .6 s after a large report
    sys.exit(code)
