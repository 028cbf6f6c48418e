"""A worker: several games in two groups, stepped whenever its pool says so.

Its pool writes a byte, the group that is to step or BEGIN_ANEW, and reads a line: empty, or JSON
with what went wrong. It may write the next byte before it has read the line.
Episodes are staged in shared memory (shared.py); the pool takes them when they are whole.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from . import shared
from .game import (
    Crashed,
    Game,
    Missing,
    Outcome,
    Refused,
    Spec,
    View,
    described,
    make,
    problem,
)

BEGIN_ANEW = 2  # instead of a group: all games begin anew, with the seeds that the pool has written
AT_RESET = Outcome(0.0, terminated=False, truncated=False)  # what a reset brings


def main(text: str) -> None:
    """Answer a pool until it goes away, or say how large a game is.

    Args:
      text: the order, as JSON; see `Worker` in jaxvff/playing/host/process.py.
    """
    order = json.loads(text)
    # Not stdout: games print there.
    answer = os.fdopen(order["answer"], "w", buffering=1)
    if order.get("only_spec"):
        answer.write(json.dumps(_spec_or_error(order)) + "\n")
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to answer
    threading.Thread(target=_end_with_pool, args=(order["lifeline"],), daemon=True).start()
    try:
        games = _Games(order)
        answer.write("\n")
        with os.fdopen(order["go"], "rb", buffering=0) as go:
            for group in iter(lambda: go.read(1), b""):
                rejected = games.begin_anew() if group[0] == BEGIN_ANEW else games.step(group[0])
                answer.write((json.dumps({"rejected": rejected}) if rejected else "") + "\n")
        games.close()
    except BrokenPipeError:
        return  # the pool is gone, and nothing is left to read an answer
    except BaseException as error:
        answer.write(json.dumps({"failed": described(error)}) + "\n")
        raise


def _spec_or_error(order: dict[str, Any]) -> dict[str, Any]:
    """The sizes of a game, or why it cannot be made."""
    try:
        game = make(order["game"], order["options"], order["seeds"][0])
        spec = game.spec._asdict()
        game.close()
    except Missing as error:
        return {"missing": str(error)}
    except Refused as error:
        return {"refused": str(error)}
    except (Exception, SystemExit) as error:
        return {"failed": described(error)}
    return {"spec": spec}


def _end_with_pool(lifeline: int) -> None:
    """End this process, and all that its games started, when the pool's process ends."""
    os.read(lifeline, 1)  # nothing is ever written: this returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


class _Games:
    """The games of one worker: rows `first`, `first + 1`, ... of the shared arrays."""

    def __init__(self, order: dict[str, Any]) -> None:
        spec = Spec(**order["spec"])
        self._spec = spec._replace(results=tuple(spec.results))  # JSON makes it a list
        self._at = shared.arrays(self._spec, order["n_games"], order["memory"])
        self._first = order["first"]
        self._games = [make(order["game"], order["options"], seed) for seed in order["seeds"]]
        for row, game in self._rows():
            if game.spec != self._spec:
                raise Crashed(
                    f"the game says {game.spec}, expected {self._spec} as in the first one; its"
                    " sizes must not depend on its seed"
                )
            self._begin(row, game)

    def begin_anew(self) -> list[str]:
        """Begin an episode in every game, as games that are made with the pool's seeds would."""
        for row, game in self._rows():
            game.reseed(int(self._at.seed[row]))
        for row, game in self._rows():
            self._begin(row, game)
        return []

    def step(self, group: int) -> list[str]:
        """Step a group, the even or the odd rows, or begin the next episode where one has ended.

        Returns:
          What was wrong with the episodes that were given up, a line each.
        """
        rejected = []
        for row, game in self._rows():
            if row % 2 != group or not self._at.active[row]:
                continue
            if self._at.ended[row]:
                self._begin(row, game)
                continue
            wrong = self._advance(row, game)
            if wrong:
                rejected.append(f"game {row}, {wrong}")
                self._begin(row, game)
        return rejected

    def close(self) -> None:
        """End the games."""
        for game in self._games:
            game.close()

    def _rows(self) -> Iterator[tuple[int, Game]]:
        """The games with their rows of the shared arrays."""
        return enumerate(self._games, self._first)

    def _begin(self, row: int, game: Game) -> None:
        """Begin an episode."""
        view = game.reset()
        wrong = problem(self._spec, view, AT_RESET)
        if wrong:  # a game that cannot even begin is beyond repair
            raise Crashed(f"game {row}, step 0: {wrong}")
        self._at.slot[row] = 0
        self._write(row, 0, view)
        self._at.ended[row] = self._at.terminated[row] = False

    def _advance(self, row: int, game: Game) -> str:
        """Take one step; returns what is wrong with it, empty: nothing."""
        at, slot = self._at, int(self._at.slot[row])
        view, outcome = game.step(at.action[row, slot].copy())
        wrong = problem(self._spec, view, outcome)
        if wrong:
            return f"step {slot + 1}: {wrong}"
        at.reward[row, slot] = outcome.reward
        self._write(row, slot + 1, view)
        at.slot[row] = slot + 1
        late = slot + 1 >= self._spec.episode_limit
        at.terminated[row] = outcome.terminated
        at.ended[row] = outcome.terminated or outcome.truncated or late
        at.results[row] = [outcome.results.get(name, 0.0) for name in self._spec.results]
        return ""

    def _write(self, row: int, slot: int, view: View) -> None:
        """Stage what a game shows."""
        at = self._at
        at.obs[row, slot], at.state[row, slot], at.avail[row, slot] = view
        at.reward[row, slot] = 0.0
