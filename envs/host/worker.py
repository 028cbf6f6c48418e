"""A worker: several games in two groups, stepped whenever its pool says so.

Its pool writes a byte, the group that is to step, and reads a line: empty, or JSON with what went
wrong. It may write the next byte before it has read the line.
Episodes are staged in shared memory (shared.py); the pool takes them when they are whole.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from typing import Any

from . import game, shared
from .game import Crashed, Missing, Outcome, Spec

START = Outcome(0.0, False, False)  # of a reset


def main(text: str) -> None:
    """Answer a pool until it goes away; `text` is JSON, see jaxvff/host/process.py."""
    order = json.loads(text)
    if order.get("only_spec"):
        print(json.dumps(_spec_or_error(order)), flush=True)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pool's to answer
    threading.Thread(target=_end_with, args=(order["lifeline"],), daemon=True).start()
    answer = os.fdopen(order["answer"], "w", buffering=1)
    try:
        team = _Team(order)
        answer.write("\n")
        with os.fdopen(order["go"], "rb", buffering=0) as go:
            for group in iter(lambda: go.read(1), b""):
                rejected = team.step(group[0])
                answer.write((json.dumps({"rejected": rejected}) if rejected else "") + "\n")
        team.close()
    except BrokenPipeError:
        return  # the pool is gone, and nobody is left to tell
    except BaseException as error:
        answer.write(json.dumps({"failed": _told(error)}) + "\n")
        raise


def _spec_or_error(order: dict[str, Any]) -> dict[str, Any]:
    """What the game says of itself. Games print, so stdout is theirs only on stderr."""
    out, sys.stdout = sys.stdout, sys.stderr
    try:
        one = game.make(order["game"], order["options"], order["seeds"][0])
        spec = one.spec._asdict()
        one.close()
    except Missing as error:
        return {"missing": str(error)}
    except Exception as error:
        return {"failed": _told(error)}
    finally:
        sys.stdout = out
    return {"spec": spec}


def _told(error: BaseException) -> str:
    """An error in a line, with the place where it happened."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _end_with(lifeline: int) -> None:
    """End this process, and all that its game started, when the pool's process ends."""
    os.read(lifeline, 1)  # nothing is ever written: this returns when the other end is closed
    os.killpg(0, signal.SIGKILL)


class _Team:
    """The games of one worker: rows `first`, `first + 1`, ... of the shared arrays."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._spec = Spec(**order["spec"])
        self._spec = self._spec._replace(results=tuple(self._spec.results))
        self._at = shared.arrays(self._spec, order["n_games"], order["memory"])
        self._first = order["first"]
        self._games = [game.make(order["game"], order["options"], seed) for seed in order["seeds"]]
        for row, one in enumerate(self._games, self._first):
            if one.spec != self._spec:
                raise Crashed(f"the game says {one.spec}, expected {self._spec}")
            self._begin(row, one)

    def step(self, group: int) -> list[str]:
        """Step a group, the even or the odd games, or begin their next episodes.

        Returns what was wrong with the episodes that it gave up.
        """
        rejected = []
        for row, one in enumerate(self._games, self._first):
            if row % 2 != group or not self._at.active[row]:
                continue
            if self._at.ended[row]:
                self._begin(row, one)
            else:
                wrong = self._advance(row, one)
                if wrong:
                    rejected.append(f"game {row}, {wrong}")
                    self._begin(row, one)
        return rejected

    def close(self) -> None:
        """End the games."""
        for one in self._games:
            one.close()

    def _begin(self, row: int, one: game.Game) -> None:
        view = one.reset()
        wrong = game.problem(self._spec, view, START)
        if wrong:  # a game that cannot even begin is beyond repair
            raise Crashed(f"game {row}, step 0: {wrong}")
        self._at.slot[row] = 0
        self._show(row, 0, view)
        self._at.ended[row] = self._at.terminated[row] = False

    def _advance(self, row: int, one: game.Game) -> str:
        at, slot = self._at, int(self._at.slot[row])
        view, outcome = one.step(at.action[row, slot].copy())
        wrong = game.problem(self._spec, view, outcome)
        if wrong:
            return f"step {slot + 1}: {wrong}"
        at.reward[row, slot] = outcome.reward
        self._show(row, slot + 1, view)
        at.slot[row] = slot + 1
        late = slot + 1 >= self._spec.episode_limit
        at.terminated[row] = outcome.terminated
        at.ended[row] = outcome.terminated or outcome.truncated or late
        at.results[row] = [outcome.results.get(name, 0.0) for name in self._spec.results]
        return ""

    def _show(self, row: int, slot: int, view: game.View) -> None:
        at = self._at
        at.obs[row, slot], at.state[row, slot], at.avail[row, slot] = view
        at.reward[row, slot] = 0.0
