"""What a file of recorded episodes has to hold, checked before anything learns from it.

A mistake here would not be seen: a loss of wrong slots is a number, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec

SHAPES = {  # of the fields, N episodes and T slots
    "obs": "NTAO",
    "state": "NTS",
    "avail": "NTAU",
    "action": "NTA",
    "reward": "NT",
    "terminated": "NT",
    "is_first": "NT",
    "mask": "NT",
}
# NumPy's kinds: f float, i and u integers, b bool
KINDS = {"obs": "fiub", "state": "fiub", "action": "iu", "reward": "fiu"}
IN_WORDS = {"fiub": "numbers or bool", "iu": "integers", "fiu": "numbers", "b": "bool"}


def check(path: Path, arrays: Mapping[str, np.ndarray], spec: EnvSpec, n_slots: int) -> None:
    """Refuse what is not whole episodes of an environment.

    Args:
      path: of the file, for the message.
      arrays: the fields of SHAPES.
      spec: of the environment.
      n_slots: `segment_length`.

    Raises:
      UserError: the first thing that is wrong: an array's type or shape, a number that is not
        finite, an episode that is not one, or that does not fit.
    """
    _check_arrays(path, arrays, spec)
    for name in ("obs", "state", "reward"):
        _none(path, ~np.isfinite(arrays[name]), f"{name} is not finite", "remove that episode")
    action, avail = arrays["action"].astype(np.int64), arrays["avail"]
    _none(
        path, (action < 0) | (action >= spec.n_actions),
        f"action is none of 0 to {spec.n_actions - 1}", "take episodes of this environment",
    )  # fmt: skip
    _check_episodes(path, arrays)

    shown = _shown(arrays["mask"])[..., None]  # slots that an episode has
    _none(
        path, shown & ~avail.any(axis=-1),
        "avail has no action for an agent", "give each at least one in every slot of an episode",
    )  # fmt: skip
    taken = np.take_along_axis(avail, action[..., None], axis=-1)[..., 0]
    _none(
        path, arrays["mask"][..., None] & ~taken,
        "action is one that avail forbids", "mend avail, or remove that episode",
    )  # fmt: skip
    longest = 1 + int(arrays["mask"].sum(axis=1).max())
    if longest > n_slots:
        raise UserError(
            f"segment_length={n_slots} cannot hold the longest episode of offline={path}; set "
            f"segment_length={longest} or more"
        )


def _check_arrays(path: Path, arrays: Mapping[str, np.ndarray], spec: EnvSpec) -> None:
    """Types, and shapes: N and T are those of `reward`."""
    if arrays["reward"].ndim != 2:
        raise UserError(
            f"offline={path}: reward has the shape {list(arrays['reward'].shape)} and must have "
            "[episodes, slots]; write one row an episode"
        )
    n, t = arrays["reward"].shape
    if n == 0 or t < 2:
        raise UserError(
            f"offline={path} has {n} episodes of {t} slots; it needs one or more, and an episode "
            "of L steps takes L + 1 slots"
        )
    a, u, o, s = spec.n_agents, spec.n_actions, spec.obs_size, spec.state_size
    sizes = {"N": n, "T": t, "A": a, "U": u, "O": o, "S": s}
    for name, letters in SHAPES.items():
        found, wanted = arrays[name].shape, tuple(sizes[letter] for letter in letters)
        if found != wanted:
            raise UserError(
                f"offline={path}: {name} has the shape {list(found)}, and the environment needs "
                f"{list(wanted)}; take episodes of this environment"
            )
        kinds = KINDS.get(name, "b")
        if arrays[name].dtype.kind not in kinds:
            raise UserError(
                f"offline={path}: {name} has the type {arrays[name].dtype} and must be "
                f"{IN_WORDS[kinds]}; convert it before it is written, with {name}.astype("
                f"{'bool' if kinds == 'b' else 'np.int32' if kinds == 'iu' else 'np.float32'})"
            )


def _check_episodes(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Each row is one whole episode, from slot 0 on, then padding."""
    mask, first = arrays["mask"], arrays["is_first"]
    one = "write one episode a row, from slot 0 on, with padding behind it"
    _none(path, ~mask[:, :1], "mask is False, so that it has no step", one)
    _none(path, mask[:, 1:] & ~mask[:, :-1], "mask is True again after it was False", one, 1)
    _none(
        path, mask[:, -1:], "mask is True, so that what the step led to is missing",
        "an episode of L steps takes L + 1 slots", mask.shape[1] - 1,
    )  # fmt: skip
    _none(path, ~first[:, :1], "is_first is False", one)
    inside = _shown(mask)
    inside[:, 0] = False
    _none(path, first & inside, "is_first is True within an episode", one)
    goes_on = np.zeros_like(mask)
    goes_on[:, :-1] = mask[:, 1:]
    _none(path, arrays["terminated"] & goes_on, "terminated is True within an episode", one)


def _shown(mask: np.ndarray) -> np.ndarray:
    """The L + 1 slots of each episode, `[N, T]`."""
    out = mask.copy()
    out[:, 1:] |= mask[:, :-1]
    return out


def _none(path: Path, wrong: np.ndarray, what: str, remedy: str, first_slot: int = 0) -> None:
    """Refuse a file in which anything is wrong, `[N, T, ...]` from `first_slot` on."""
    wrong = np.asarray(wrong)
    if not wrong.any():
        return
    rows = wrong.reshape(len(wrong), -1).any(axis=1)
    row = int(np.argmax(rows))
    slot = first_slot + int(np.argwhere(wrong[row])[0, 0])
    more = f" ({int(rows.sum())} of {rows.size} episodes)" if rows.size > 1 else ""
    raise UserError(f"offline={path}: {what} in episode {row}, slot {slot}{more}; {remedy}")
