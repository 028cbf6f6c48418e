"""Recorded episodes: what is in the file, and learning from it alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvff
from jaxvff.cli.main import main
from jaxvff.core.types import EnvSpec, Segment
from jaxvff.playing import rollout
from jaxvff.playing.rollout import Player
from jaxvff.runs import episodes
from jaxvff.settings import build, config
from tests import toy
from tests.command_line import once

SMALL = ["hidden_dim=16", "seeds=2", "eval_episodes=2", "learn_start=16", "batch_size=16",
         "buffer_size=64"]  # fmt: skip
TWO_STEP = "env=matrix_steps/two_step"


def random_player() -> Player:
    env = toy.make()
    utility = build.model(config.load(["method=vdn", "hidden_dim=8", TWO_STEP]), env).utility

    def act(key, q, avail):
        return jax.random.categorical(key, jnp.where(avail, 0.0, -jnp.inf))

    return Player(env, utility, act, utility.init(jax.random.key(0)), ())


def test_a_whole_episode_is_the_first_one_of_its_segment_and_padding() -> None:
    """Held against the same slots with all episodes, and against the toy's slow loop."""
    player = random_player()
    keys = jax.random.split(jax.random.key(3), 16)
    n_slots = toy.SPEC.episode_limit + 1
    (whole, ends), (every, _) = jax.jit(
        jax.vmap(
            lambda k: (rollout.whole_episode(player, k), rollout.on_device(player, k, n_slots))
        )
    )(keys)
    lengths = []
    for i in range(len(keys)):
        one, all_ = (jax.tree.map(lambda x, i=i: np.asarray(x[i]), s) for s in (whole, every))
        slots = toy.slow(all_.action)
        length = next(t for t, slot in enumerate(slots) if slot["ended"])
        lengths.append(length)
        assert one.mask.tolist() == [t < length for t in range(n_slots)]
        assert one.reward.tolist() == [
            s["reward"] if t < length else 0 for t, s in enumerate(slots)
        ]
        for name in ("obs", "state", "avail", "action", "terminated"):
            got, wanted = getattr(one, name), getattr(all_, name)
            np.testing.assert_array_equal(got[: length + 1], wanted[: length + 1], err_msg=name)
        assert int(ends.length[i]) == length
        np.testing.assert_allclose(float(ends.return_[i]), one.reward.sum())
    assert len(set(lengths)) > 1


def segments(n: int = 3, t: int = 4) -> Segment:
    """Random episodes of two agents."""
    rng = np.random.default_rng(0)
    length = rng.integers(1, t, n)
    slot = np.arange(t)
    return Segment(
        obs=rng.normal(size=(n, t, 2, 3)).astype(np.float32),
        state=rng.normal(size=(n, t, 5)).astype(np.float32),
        avail=np.ones((n, t, 2, 3), bool),
        action=rng.integers(0, 3, (n, t, 2)).astype(np.int32),
        reward=rng.normal(size=(n, t)).astype(np.float32),
        terminated=slot == length[:, None] - 1,
        is_first=np.tile(slot == 0, (n, 1)),
        mask=slot < length[:, None],
    )  # type: ignore[arg-type]


SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=3, state_size=5, episode_limit=3)


def test_episodes_come_back_in_segments_of_another_length(tmp_path: Path) -> None:
    given, path = segments(), tmp_path / "data.npz"
    episodes.save(path, given, {"return": np.zeros(3)}, {"method": "x"})
    back = episodes.read(path, SPEC, 6)
    assert back.n_episodes == 3
    for name in episodes.SHAPES:
        got, wanted = np.asarray(getattr(back.segments, name)), np.asarray(getattr(given, name))
        np.testing.assert_array_equal(got[:, :4], wanted, err_msg=name)
        assert (got[:, 4:] == (name in ("avail", "is_first"))).all()
    with np.load(path) as file:
        schema = json.loads(str(file["schema"]))
        assert schema["sizes"] == {"N": 3, "T": 4, "A": 2, "O": 3, "U": 3, "S": 5}
        for name, about in schema["fields"].items():
            assert len(about["shape"]) == file[name].ndim
            assert about["dtype"] == str(file[name].dtype)
    changed = given._replace(reward=given.reward + 1)
    episodes.save(tmp_path / "other.npz", changed, {}, {})
    assert episodes.read(tmp_path / "other.npz", SPEC, 6).digest != back.digest
    assert episodes.read(path, SPEC, 4).digest == back.digest


def test_what_is_no_file_of_episodes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(jaxvff.UserError, match=r"cannot be read: .* make such a file with jaxvff"):
        episodes.read(path, SPEC, 6)
    path.write_bytes(b"no archive")
    with pytest.raises(jaxvff.UserError, match="cannot be read"):
        episodes.read(path, SPEC, 6)
    path.unlink()
    given = segments()
    episodes.save(path, given, {}, {})
    with pytest.raises(jaxvff.UserError, match="exists; name a new file"):
        episodes.save(path, given, {}, {})
    with pytest.raises(
        jaxvff.UserError, match=r"obs has the shape \[3, 4, 2, 3\], and .* \[3, 4, 2, 9\]"
    ):
        episodes.read(path, SPEC._replace(obs_size=9), 6)
    longest = 1 + int(np.asarray(given.mask).sum(1).max())
    with pytest.raises(jaxvff.UserError, match=f"set segment_length={longest} or more"):
        episodes.read(path, SPEC, longest - 1)
    wrong = tmp_path / "wrong.npz"
    episodes.save(wrong, given._replace(action=given.action + 7), {}, {})
    with pytest.raises(jaxvff.UserError, match="action has numbers that are none of 3"):
        episodes.read(wrong, SPEC, 6)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (["method=maven"], "method=maven needs games that are played while it learns"),
        (["learner=parallel", "n_envs=4"], "learner=parallel needs games that are played"),
        (["epsilon_end=0.1"], "epsilon_end=0.1 does nothing with offline=, where nobody explores"),
    ],
)
def test_what_has_to_play_is_refused_offline(own: list[str], said: str, capsys) -> None:
    assert main(["train", "offline=data.npz", *own]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_method_learns_from_the_episodes_of_another_and_resumes_bit_for_bit(
    tmp_path: Path, capsys
) -> None:
    """Random episodes of a game of two steps, recorded from VDN; QPLEX learns its optimum, 8."""
    run, data = tmp_path / "vdn", tmp_path / "data.npz"
    assert main(["train", "method=vdn", TWO_STEP, *SMALL, "total_steps=400", f"run_dir={run}"]) == 0
    assert main(["record", f"run={run}", f"to={data}", "episodes=400", "epsilon=1", "seed=1"]) == 0
    assert "400 episodes; means: return" in capsys.readouterr().out
    with np.load(data) as file:
        assert abs(file["return"].mean() - 5) < 1  # (7 + 3.25) / 2, of uniform actions
    own = once([*SMALL, f"offline={data}", "lr=3e-3", "total_steps=6000", "eval_interval=2000"])
    straight = ["train", "method=qplex", TWO_STEP, *own]
    assert main([*straight, f"run_dir={tmp_path}/straight"]) == 0
    offline = jaxvff.load(tmp_path / "straight")
    assert offline.results[0].test_return.tolist() == [8, 8]

    short = once([*straight[1:], "total_steps=4000"])
    assert main(["train", *short, f"run_dir={tmp_path}/cut"]) == 0
    assert main(["train", f"resume={tmp_path}/cut", "total_steps=6000"]) == 0
    assert lines(tmp_path / "cut") == lines(tmp_path / "straight")

    assert "train_return" not in offline.curves  # nothing was played while it learned
    assert np.isfinite(offline.curves["loss"]).all()


def lines(folder: Path) -> list[dict[str, Any]]:
    read = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in read]


def test_recording_is_told_what_is_missing(capsys) -> None:
    assert main(["record", "run=a", "to=b"]) == 2
    assert "record needs episodes=" in capsys.readouterr().err
    assert main(["record", "run=a", "to=b", "episodes=x"]) == 2
    assert "episodes=x must be a whole number" in capsys.readouterr().err
