"""`jaxvff reproduce <name>`: a table or figure of the paper, or of ours."""

from __future__ import annotations

from jaxvff.cli.train import OWN, begin
from jaxvff.core.errors import check_name
from jaxvff.settings import overrides, presets


def run(args: list[str]) -> int:
    """Train the parts of a preset, and show what came out."""
    name, rest = (args[0], args[1:]) if args else ("nothing", [])
    check_name(name, presets.names(), "reproduce")
    texts, own = overrides.split(rest, *OWN)
    given = overrides.parse(texts, typed=True)
    parts = [] if "resume" in own else presets.overrides(name, given)
    return begin(f"reproduce {name}", parts, given, own)
