"""What `diagnose` is asked of a trained run; light to import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxvff.core.options import check, from_text, option, options_of
from jaxvff.settings import overrides


@dataclass(frozen=True)
class DiagnosisOptions:
    """Which states are looked at, and how the best joint action is searched there."""

    states: str = option(
        "both",
        "those that greedy agents come to, those of uniformly random play, or both",
        names=("both", "greedy", "random"),
    )
    games: int = option(
        32,
        "games side by side, each for as many slots as the longest episode takes; an episode that "
        "ends sooner is followed by another",
        unit="games per seed",
        low=1,
        high=100_000,
    )
    max_enumerated: int = option(
        4096,
        "most joint actions that are all looked at; where there are more, coordinate ascent looks "
        "for the best",
        low=0,
        high=1_000_000,
    )
    restarts: int = option(
        16,
        "random joint actions that the ascents start from, beside the greedy one",
        low=0,
        high=1000,
    )
    sweeps: int = option(4, "turns of each agent in an ascent", low=1, high=1000)
    seed: int = option(0, "of the games and of the ascents", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        check(self)

    @property
    def policies(self) -> tuple[str, ...]:
        """Whose states are looked at."""
        return ("greedy", "random") if self.states == "both" else (self.states,)


KEYS = tuple(each.name for each in options_of(DiagnosisOptions))


def read(texts: Mapping[str, str]) -> DiagnosisOptions:
    """The options that were typed.

    Args:
      texts: of KEYS, those that were given.

    Raises:
      UserError: a value of the wrong type, or out of range.
    """
    known = {each.name: each for each in options_of(DiagnosisOptions)}
    given = overrides.parse(f"{key}={text}" for key, text in texts.items())
    values = {o.key: from_text(known[o.key], o.value, o.value_text) for o in given}
    return DiagnosisOptions(**values)  # type: ignore[arg-type]  # from_text has checked them
