"""Recorded episodes: what is in the file, and learning from it alone."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxvff
from jaxvff.cli.main import main
from jaxvff.core.sizes import readable
from jaxvff.core.types import EnvSpec, Segment
from jaxvff.playing import rollout
from jaxvff.playing.rollout import Player
from jaxvff.runs import episodes, locks, memory
from jaxvff.runs import folder as runs
from jaxvff.runs.plan import Job
from jaxvff.settings import build, config
from jaxvff.training import sharding
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


def env_of(**changes: Any) -> Any:
    """What reading asks of an environment."""
    named: dict[str, Any] = {"action_names": (), "obs_parts": ()}
    named |= {k: changes.pop(k) for k in list(changes) if k in named}
    return SimpleNamespace(spec=SPEC._replace(**changes), **named)


ENV = env_of()


def test_episodes_come_back_in_segments_of_another_length(tmp_path: Path) -> None:
    given, path = segments(), tmp_path / "data.npz"
    episodes.save(path, given, {"return": np.zeros(3)}, {"method": "x"})
    back = episodes.read(path, ENV, 6)
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
    assert episodes.read(tmp_path / "other.npz", ENV, 6).digest != back.digest
    assert episodes.read(path, ENV, 4).digest == back.digest


def test_what_is_no_file_of_episodes_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(jaxvff.UserError, match=r"cannot be read: .* make such a file with jaxvff"):
        episodes.read(path, ENV, 6)
    path.write_bytes(b"no archive")
    with pytest.raises(jaxvff.UserError, match="cannot be read"):
        episodes.read(path, ENV, 6)
    path.unlink()
    given = segments()
    episodes.save(path, given, {}, {})
    with pytest.raises(jaxvff.UserError, match="exists; name a new file"):
        episodes.save(path, given, {}, {})
    with pytest.raises(
        jaxvff.UserError, match=r"obs has the shape \[3, 4, 2, 3\], and .* \[3, 4, 2, 9\]"
    ):
        episodes.read(path, env_of(obs_size=9), 6)
    longest = 1 + int(np.asarray(given.mask).sum(1).max())
    with pytest.raises(jaxvff.UserError, match=f"set segment_length={longest} or more"):
        episodes.read(path, ENV, longest - 1)
    wrong = tmp_path / "wrong.npz"
    episodes.save(wrong, given._replace(action=given.action + 7), {}, {})
    with pytest.raises(jaxvff.UserError, match="action is none of 0 to 2 in episode 0, slot 0"):
        episodes.read(wrong, ENV, 6)


def at(name: str, *where: int, value: object) -> dict[str, np.ndarray]:
    """A field with another value at one place."""
    array = np.array(getattr(segments(), name))
    array[where] = value
    return {name: array}


WRONG = {  # in episode 2, which has two steps, or in all of them
    "obs_is_nan": (at("obs", 2, 1, 0, 0, value=np.nan), "obs is not finite in episode 2, slot 1"),
    "state_is_inf": (at("state", 2, 0, 0, value=np.inf), "state is not finite in episode 2, slot"),
    "reward_is_nan": (at("reward", 2, 0, value=np.nan), r"reward is not finite .* \(1 of 3"),
    "mask_is_empty": (at("mask", 2, value=False), "mask is False, so that it has no step in ep"),
    "mask_has_a_hole": (at("mask", 2, 0, value=False), "mask is False, so that it has no step"),
    "mask_comes_back": (at("mask", 2, 3, value=True), "mask is True again after it was False in e"),
    "mask_is_full": (at("mask", 2, slice(2, 4), value=True), "what the step led to is missing"),
    "is_first_is_missing": (at("is_first", 2, 0, value=False), "is_first is False in episode 2, s"),
    "is_first_within": (at("is_first", 2, 2, value=True), "is_first is True within an episode"),
    "terminated_within": (at("terminated", 2, 0, value=True), "terminated is True within an episo"),
    "nothing_available": (at("avail", 2, 2, 1, value=False), "avail has no action for an agent in"),
    "forbidden_action": (
        {**at("avail", 2, 1, 0, value=[True, False, False]), **at("action", 2, 1, 0, value=1)},
        "action is one that avail forbids in episode 2, slot 1",
    ),
    "mask_of_numbers": (
        {"mask": np.array(segments().mask, int)}, r"mask has the type int64 and must be bool; .*bool"
    ),
    "action_of_floats": (
        {"action": np.array(segments().action, float)}, "action has the type float64 and must be in"
    ),
    "obs_of_texts": ({"obs": np.full((3, 4, 2, 3), "x")}, "obs has the type <U1 and must be numbers"),
    "reward_of_one_axis": ({"reward": np.zeros(3)}, r"reward has the shape \[3\] and must have \[epi"),
    "no_episode": ({k: np.array(v)[:0] for k, v in segments()._asdict().items() if v is not None},
                   "has 0 episodes of 4 slots; it needs one or more"),
    "state_of_another": ({"state": np.zeros((3, 4, 6))}, r"state has the shape .* needs \[3, 4, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_whole_episode_of_the_environment_is_refused_by_its_place(
    name: str, tmp_path: Path
) -> None:
    changed, said = WRONG[name]
    arrays = {k: np.array(v) for k, v in segments()._asdict().items() if v is not None}
    schema = json.dumps({"format": episodes.FORMAT})
    np.savez(tmp_path / "data.npz", schema=schema, **(arrays | changed))
    with pytest.raises(jaxvff.UserError, match=rf"offline=.*data.npz.*{said}"):
        episodes.read(tmp_path / "data.npz", ENV, 6)


def test_a_file_with_a_byte_that_changed_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    episodes.save(path, segments(), {}, {})
    whole, told = path.read_bytes(), []
    for k in range(0, len(whole), 41):
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0x55]) + whole[k + 1 :])
        try:
            episodes.read(path, ENV, 6)
        except jaxvff.UserError as error:
            told.append(str(error))
    assert len(told) > 10
    assert all("data.npz" in text for text in told)


def test_numbers_become_those_that_the_device_computes_with(tmp_path: Path) -> None:
    """float64 is twice the size and would be cut on the device; rewards may be written as ints."""
    given = segments()
    wide = given._replace(
        obs=np.array(given.obs, np.float64),  # type: ignore[arg-type]
        reward=np.array(given.reward).round().astype(int),  # type: ignore[arg-type]
    )
    episodes.save(tmp_path / "data.npz", wide, {}, {})
    back = episodes.read(tmp_path / "data.npz", ENV, 4).segments
    assert back.obs.dtype == back.reward.dtype == np.float32
    np.testing.assert_array_equal(back.obs, given.obs)


def test_episodes_of_another_environment_of_the_same_sizes_are_refused(tmp_path: Path) -> None:
    named = {"actions": ["stay", "left", "right"], "observation": [["cells", 2], ["clock", 1]]}
    path = tmp_path / "data.npz"
    episodes.save(path, segments(), {}, named)
    same = {"action_names": ("stay", "left", "right"), "obs_parts": (("cells", 2), ("clock", 1))}
    for env in (ENV, env_of(**same)):
        assert episodes.read(path, env, 6).n_episodes == 3
    other = env_of(**{**same, "obs_parts": (("cells", 1), ("clock", 2))})
    with pytest.raises(
        jaxvff.UserError, match="part 1 of an observation is 'cells: 2' there and '"
    ):
        episodes.read(path, other, 6)
    other = env_of(**{**same, "action_names": ("stay", "right", "left")})
    with pytest.raises(
        jaxvff.UserError, match="action 1 is 'left' there and 'right' here; take ep"
    ):
        episodes.read(path, other, 6)


# Runs that learn from a file.


def matrix_episodes(path: Path, n: int = 3) -> Path:
    """Plays of a game of two agents and three actions each, as `env=matrix/a` has them."""
    first = np.tile([True, False], (n, 1))
    see = np.where(first[..., None], [1.0, 0.0], [0.0, 1.0]).astype(np.float32)
    plays = Segment(
        obs=np.tile(see[:, :, None], (1, 1, 2, 1)), state=see, avail=np.ones((n, 2, 2, 3), bool),
        action=np.zeros((n, 2, 2), np.int32), reward=first.astype(np.float32), terminated=first,
        is_first=first, mask=first,
    )  # type: ignore[arg-type]  # fmt: skip
    episodes.save(path, plays, {}, {})
    return path


def offline_run(data: Path, folder: Path, *own: str) -> list[Job]:
    return runs.new_run([*SMALL, f"offline={data}", "env=matrix/a", *own, f"run_dir={folder}"])[1]


def test_a_run_keeps_its_episodes_and_needs_the_file_no_more(tmp_path: Path) -> None:
    """The folder is moved, and what lies where the file was is another one by then."""
    data = matrix_episodes(tmp_path / "data.npz")
    (job,) = offline_run(data, tmp_path / "run")
    content = data.read_bytes()
    data.unlink()
    matrix_episodes(data, n=5)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    (copy,) = (tmp_path / "moved" / "inputs").iterdir()
    assert copy.read_bytes() == content
    (again,) = runs.resumed_run(tmp_path / "moved", "train")
    assert again.values[0].recorded is not None
    assert again.values[0].recorded.n_episodes == 3
    assert again.fingerprint() == job.fingerprint()
    copy.unlink()
    (other,) = runs.resumed_run(tmp_path / "moved", "train")  # the file of five episodes
    assert other.fingerprint() != job.fingerprint()


def test_a_run_whose_episodes_cannot_be_kept_leaves_no_folder(tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfile", full)
    data = matrix_episodes(tmp_path / "data.npz")
    with pytest.raises(
        jaxvff.UserError, match=r"data.npz cannot be copied .*No space.*; make room"
    ):
        offline_run(data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("large", [0, 2**20])
def test_episodes_that_are_removed_while_a_run_goes_on_are_put_back(
    large: int, tmp_path: Path, monkeypatch
) -> None:
    """Small ones from memory, large ones from the file that stayed open."""
    monkeypatch.setattr(runs._Content, "LARGE", max(large, 7))
    offline_run(matrix_episodes(tmp_path / "data.npz"), tmp_path / "run")
    (copy,) = (tmp_path / "run" / "inputs").iterdir()
    content = copy.read_bytes()
    with (
        locks.sole_writer(tmp_path / "run") as writer,
        runs.Guard(tmp_path / "run", writer) as guard,
    ):
        assert not guard.put_back()
        copy.unlink()
        assert guard.put_back()
        assert copy.read_bytes() == content
        copy.unlink()
        copy.write_bytes(content[:-1])
        (tmp_path / "run" / "run.yaml").unlink()
        with pytest.raises(jaxvff.UserError, match="is another run's"):
            guard.put_back()


def test_the_estimate_counts_the_episodes_once_on_every_device(tmp_path: Path, monkeypatch) -> None:
    data = matrix_episodes(tmp_path / "data.npz", n=1000)
    (job,) = offline_run(data, tmp_path / "run")
    need, devices = memory.need(job), sharding.lane_mesh(job.n_lanes).devices.size
    recorded = job.values[0].recorded
    assert recorded is not None
    of_file = sum(np.asarray(getattr(recorded.segments, k)).nbytes for k in episodes.SHAPES)
    assert need.total == job.n_lanes * need.lane + devices * of_file
    assert f"; offline: 1,000 episodes, {readable(of_file)}" in memory.describe(need)
    monkeypatch.setattr(memory, "free_bytes", lambda devices: need.total - 1)
    with pytest.raises(jaxvff.UserError, match=r"lower buffer_size, .*, or record fewer episodes"):
        memory.check([job])


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
