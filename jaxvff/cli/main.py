"""The command line's entry: which command, its help, and how mistakes are told.

It imports neither JAX nor a command before it has to: help and mistakes are answered at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable

from jaxvff.core.errors import UserError
from jaxvff.core.registry import Registry

DEBUG = "--debug"  # anywhere on the command line: tracebacks on the screen

# The arguments after the command -> the exit code
COMMANDS: Registry[Callable[[list[str]], int]] = Registry(
    {
        "train": "jaxvff.cli.train:run",
        "evaluate": "jaxvff.cli.evaluate:run",
        "diagnose": "jaxvff.cli.diagnose:run",
        "export": "jaxvff.cli.export:run",
        "record": "jaxvff.cli.record:run",
        "reproduce": "jaxvff.cli.reproduce:run",
        "stability": "jaxvff.cli.stability:run",
        "bench": "jaxvff.cli.bench:run",
        "compile": "jaxvff.cli.compile:run",
        "plan": "jaxvff.cli.plan:run",
        "work": "jaxvff.cli.work:run",
        "status": "jaxvff.cli.status:run",
        "merge": "jaxvff.cli.merge:run",
        "launch": "jaxvff.cli.launch:run",
        "report": "jaxvff.cli.report:run",
    }
)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 2 for a mistake in the arguments.

    Args:
      argv: what the user typed after `jaxvff`; None: what this process was started with.

    Raises:
      Exception: a fault of ours, which `program` tells.
    """
    given = sys.argv[1:] if argv is None else argv
    command, *rest = [a for a in given if a != DEBUG] or ["--help"]
    if command == "--version":
        from jaxvff import __version__

        print(__version__)
        return 0
    asks_for_help = any(a in ("-h", "--help") for a in rest)
    if command in ("-h", "--help", "help") or (command in COMMANDS and asks_for_help):
        from jaxvff.cli import help_texts

        print(help_texts.of(command), end="")
        return 0
    if command not in COMMANDS:
        return _fail(f"unknown command {command!r}; choose one of {', '.join(COMMANDS)}")
    if bad := [a for a in rest if "=" not in a and not _is_name(command, a, rest)]:
        if bad[0] in ("-m", "--multirun"):
            from jaxvff.settings.overrides import NO_LAUNCHERS

            return _fail(f"{bad[0]}: {NO_LAUNCHERS}")
        return _fail(f"{bad[0]!r} is no key=value; see jaxvff {command} --help")
    try:
        return COMMANDS[command](rest)
    except KeyboardInterrupt:  # in a notebook: `program` leaves in another way
        return _fail("stopped; what was written is kept", code=130)
    except (UserError, OSError) as error:
        if DEBUG in given:
            traceback.print_exc()
        if isinstance(error, UserError):
            return _fail(str(error))
        name = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        kept = "; ".join(getattr(error, "__notes__", ())) or "results written before are kept"
        return _fail(f"{error.strerror or error}{name}; {kept}", code=1)


# What may stand before the key=value of a command: one of these names, or any text (a folder)
_NAMES: dict[str, tuple[tuple[str, ...], ...]] = {
    "reproduce": ((),),
    "stability": (("claims",),),
    "plan": (("train", "reproduce"), ()),
    "work": ((),),
    "status": ((),),
    "merge": ((),),
    "launch": ((),),
}


def _is_name(command: str, argument: str, rest: list[str]) -> bool:
    """Whether an argument without = is one: what to reproduce, or `stability claims`."""
    if command == "report":  # any number of run folders
        return True
    places = _NAMES.get(command, ())
    if (command, rest[0]) == ("plan", "train"):
        places = places[:1]
    before = zip(rest, places, strict=False)
    return any(text == argument and (not names or text in names) for text, names in before)


def _fail(message: str, code: int = 2) -> int:
    print(f"jaxvff: {message}", file=sys.stderr)
    return code
