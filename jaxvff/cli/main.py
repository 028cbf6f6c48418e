"""The command line's entry: which command, its help, and how mistakes are told.

It imports neither JAX nor a command before it has to: help and mistakes are answered at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

from jaxvff.core.errors import UserError
from jaxvff.core.registry import Registry

# Before JAX starts: quiet the warnings about accelerators that a CPU build does not have.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The arguments after the command -> the exit code
COMMANDS: Registry[Callable[[list[str]], int]] = Registry(
    {
        "train": "jaxvff.cli.train:run",
        "evaluate": "jaxvff.cli.evaluate:run",
        "reproduce": "jaxvff.cli.reproduce:run",
        "stability": "jaxvff.cli.stability:run",
        "bench": "jaxvff.cli.bench:run",
    }
)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 2 for a mistake in the arguments."""
    command, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
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
        return _fail(f"{bad[0]!r} is no key=value; see jaxvff {command} --help")
    try:
        return COMMANDS[command](rest)
    except UserError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("jaxvff: stopped; what was written is kept", file=sys.stderr)
        return 130
    except OSError as error:
        name = f" ({Path(error.filename)})" if error.filename else ""
        return _fail(f"{error.strerror or error}{name}; results written before are kept", code=1)


def _is_name(command: str, argument: str, rest: list[str]) -> bool:
    """Whether an argument without = is one: what to reproduce, or `stability claims`."""
    first = argument == rest[0]
    return first and (command == "reproduce" or (command, argument) == ("stability", "claims"))


def _fail(message: str, code: int = 2) -> int:
    print(f"jaxvff: {message}", file=sys.stderr)
    return code
