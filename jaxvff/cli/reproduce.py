"""`jaxvff reproduce <name>`: a table or figure of the paper, or of ours."""

from __future__ import annotations

from jaxvff.cli.train import OWN, begin
from jaxvff.core.errors import check_name
from jaxvff.core.machine import cores
from jaxvff.settings import overrides, presets


def run(args: list[str]) -> int:
    """Train the parts of a preset, and show what came out."""
    name, rest = (args[0], args[1:]) if args else ("nothing", [])
    check_name(name, presets.names(), "reproduce")
    texts, own = overrides.split(rest, *OWN)
    given = overrides.parse(texts, typed=True)
    parts = [] if "resume" in own else presets.overrides(name, given)
    if parts and (hours := presets.hours(name, parts)):
        print(
            f"time: about {hours:.2g} h on this machine's CPU ({cores()} cores), by what is on "
            f"record in configs/reproduce/{name}.yaml"
        )
    return begin(f"reproduce {name}", parts, given, own)
