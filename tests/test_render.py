"""GIFs of greedy episodes: they show what was played, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxvff.cli.main import main
from jaxvff.core.types import Env, EnvKind
from jaxvff.envs import jaxmarl, matrix, smax, smax_render
from jaxvff.networks.utility import Gru, Utility
from jaxvff.playing import rollout
from jaxvff.playing.rollout import Player
from jaxvff.runs import folder as run_folder
from tests import toy

TINY = ["seeds=2", "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
        "total_steps=60", "eval_interval=60", "epsilon_steps=30"]  # fmt: skip


def player(env: Env, seed: int = 0) -> Player:
    """Who acts at random; in a battle, who stands still or attacks."""
    net = Gru(env.spec.n_actions, 8)
    utility = Utility(net, env.spec, shared=True, agent_id=True, last_action=True)

    def act(key, q, avail):
        # Not walking in battles: whoever touches a wall dies.
        rank = jax.random.uniform(key, avail.shape) + (jnp.arange(env.spec.n_actions) >= 4)
        return jnp.argmax(jnp.where(avail, rank, -1), axis=-1)

    return Player(env, utility, act, utility.init(jax.random.key(seed)), env.params)


def test_a_recorded_episode_is_the_one_that_is_played_with_its_key() -> None:
    env = toy.make()
    me, equal = player(env), np.testing.assert_array_equal
    record = jax.jit(lambda k: rollout.recorded(me, k))
    play = jax.jit(lambda k: rollout.episode(me, k))
    lengths = set()
    for key in jax.random.split(jax.random.key(0), 10):
        states, actions, end = record(key)
        jax.tree.map(equal, end, play(key))
        n, return_ = int(end.length), 0.0
        assert len(actions) == env.spec.episode_limit + 1
        at = lambda t, states=states: jax.tree.map(lambda x: x[t], states)
        for t in range(n):  # the actions lead from state to state
            state, outcome = env.step(key, at(t), actions[t], ())
            return_ += outcome.reward
            jax.tree.map(equal, state, at(t + 1))
        assert bool(outcome.terminated | outcome.truncated)
        np.testing.assert_allclose(return_, end.return_, rtol=1e-6)
        for t in range(n, len(actions)):  # after the end nothing moves
            jax.tree.map(equal, state, at(t))
        lengths.add(n)
    assert len(lengths) > 1 and max(lengths) == env.spec.episode_limit


def battle(n_steps: int) -> SimpleNamespace:
    """3m: the first ally walks up to the first enemy and kills it, which shoots the third ally."""
    t, n = n_steps + 1, 6
    position = np.tile(
        np.array([[8, y] for y in (8, 12, 16)] + [[20, y] for y in (8, 12, 16)], float), (t, 1, 1)
    )
    position[:, 0, 0] += np.linspace(0, 9, t)
    health = np.full((t, n), 45.0)
    health[:, 3] = np.linspace(45, 0, t)
    cooldown = np.zeros((t, n))
    cooldown[1:, 0] = 0.4  # fired in every step; the enemies' weapons never
    cooldown[:, 1:] = -0.5 * np.arange(t)[:, None]
    last = np.full((t, n), 4)
    last[1:, 0], last[1:, 3] = 5, 5
    state = SimpleNamespace(
        unit_positions=position, unit_health=health, unit_alive=health > 0,
        unit_types=np.zeros((t, n), int), unit_weapon_cooldowns=cooldown,
    )  # fmt: skip
    return SimpleNamespace(smax=state, last=last)


def durations(image: Image.Image) -> list[int]:
    out = []
    for frame in range(image.n_frames):
        image.seek(frame)
        out.append(image.info["duration"])
    return out


def test_a_battle_becomes_a_gif_with_three_frames_a_step_and_a_held_end(tmp_path: Path) -> None:
    env = smax.make(smax.Options(map="3m"))
    env.render(battle(4), tmp_path / "battle.gif", "won, return 2.00, 4 steps")
    with Image.open(tmp_path / "battle.gif") as image:
        assert image.format == "GIF"
        assert image.n_frames == 3 * 4 + 1
        assert min(image.size) > 300
        shown = durations(image)
    assert shown[-1] > 1900 > 100 > max(shown[:-1])
    assert (tmp_path / "battle.gif").stat().st_size < 200_000


def test_a_battle_becomes_an_mp4_of_the_same_length_that_players_can_show(tmp_path: Path) -> None:
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    env = smax.make(smax.Options(map="3m"))
    env.render(battle(4), tmp_path / "battle.mp4", "won, return 2.00, 4 steps")
    film = imageio_ffmpeg.read_frames(tmp_path / "battle.mp4")
    about = next(film)
    frames = [np.frombuffer(frame, np.uint8) for frame in film]
    assert (about["codec"], about["pix_fmt"].split("(")[0]) == ("h264", "yuv420p")
    # Three frames a step and the start, then the end for two seconds of 12 frames.
    assert len(frames) == 3 * 4 + 1 + 24
    assert all(side % 2 == 0 for side in about["size"])
    assert np.ptp(frames[0]) > 100, "an empty picture"
    assert (frames[0] != frames[-1]).any()


def test_long_battles_have_fewer_frames_a_step() -> None:
    assert [smax_render.frames_per_step(n) for n in (1, 100, 101, 200, 400)] == [3, 3, 2, 1, 1]


def test_lines_lead_from_shooters_to_their_targets() -> None:
    game = SimpleNamespace(
        num_allies=3, num_movement_actions=5, world_steps_per_env_step=8, time_per_step=1 / 16,
        unit_type_health=[45.0],
    )  # fmt: skip
    shown = list(smax_render.moments(game, battle(4), 3))
    np.testing.assert_allclose([m.time for m in shown], np.arange(13) / 3)
    assert len(shown[0].lines) == 0
    for m in shown[1:]:
        # The first enemy is the allies' first target; the enemies' first is the last ally.
        np.testing.assert_array_equal(m.shooter, [0, 3])
        np.testing.assert_array_equal(
            m.lines, [[m.position[0], m.position[3]], [m.position[3], m.position[2]]]
        )
        np.testing.assert_array_equal(m.widths, [smax_render.SHOT, smax_render.AIM])
    assert shown[-2].alive[3] and not shown[-1].alive[3]


@pytest.mark.slow
def test_who_is_drawn_as_firing_did_the_damage() -> None:
    """The health that a unit lost in a step is what those fire who are drawn as hitting it."""
    env = smax.make(smax.Options(map="3m"))
    me = player(env)
    states, _, plays = jax.device_get(
        jax.jit(jax.vmap(lambda k: rollout.recorded(me, k)))(jax.random.split(jax.random.key(1), 8))
    )
    game, damage = env.render.args[0], 9.0  # of a marine
    hits = 0
    for i, length in enumerate(plays.length):
        battles = jax.tree.map(lambda x: x[i, : length + 1], states)
        for t, m in enumerate(list(smax_render.moments(game, battles, 1))[1:], start=1):
            before, after = battles.smax.unit_health[t - 1 : t + 1]
            fired = m.shooter[m.widths == smax_render.SHOT]
            _, target = smax_render.aims(game, battles.smax.unit_alive[t - 1], battles.last[t])
            aimed = dict(zip(m.shooter, target, strict=True))
            wounds = np.bincount([aimed[s] for s in fired], minlength=6) * damage
            np.testing.assert_allclose(after, np.maximum(before - wounds, 0), atol=1e-4)
            hits += len(fired)
    assert hits > 50


def moved(env: Env, n: int):
    """The first state, n times over."""
    state = env.reset(jax.random.key(0), env.params)
    return jax.tree.map(lambda x: np.stack([np.asarray(x)] * n), state)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MPE_simple_spread_v3", "MPE_simple_reference_v3", "overcooked"])
def test_what_jaxmarl_can_draw_becomes_a_gif(name: str, tmp_path: Path, capfd) -> None:
    env = jaxmarl.make(jaxmarl.Options(name=name, team_reward="sum"))
    state, *others = moved(env, 4)
    if name.startswith("MPE"):
        state = state.replace(step=np.arange(4))
    env.render((state, *others), tmp_path / "x.gif", "return 1.00, 3 steps")
    with Image.open(tmp_path / "x.gif") as image:
        assert image.n_frames == 4
        assert durations(image)[-1] > 1900
    assert capfd.readouterr().out == ""


@pytest.fixture
def drawable_matrix(monkeypatch) -> None:
    """Matrix games with a renderer that notes what it is given."""

    def make(options: matrix.Options) -> Env:
        def render(states, path: Path, caption: str) -> None:
            lengths = [len(x) for x in jax.tree.leaves(states)]
            path.write_text(json.dumps({"states": lengths, "caption": caption}))

        return matrix.make(options)._replace(render=render)

    monkeypatch.setattr(matrix, "KIND", EnvKind(matrix.Options, make))


@pytest.mark.slow
def test_evaluate_draws_the_seed_of_every_sweep_value(
    tmp_path: Path, drawable_matrix, capsys
) -> None:
    folder = tmp_path / "run"
    args = [*TINY, "sweep.env=[matrix/a,matrix/b]", f"run_dir={folder}"]
    assert main(["train", *args]) == 0
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main(["evaluate", f"run={folder}", "render=false"]) == 0
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    capsys.readouterr()
    assert main(["evaluate", f"run={folder}", "render=true", "seed=1", "episodes=2"]) == 0
    out = capsys.readouterr().out
    assert {p: p.read_bytes() for p in before} == before
    drawn = sorted(p for p in folder.rglob("*") if p not in before and p.is_file())
    assert [p.name for p in drawn] == [
        f"greedy_60_{i:02d}_env=matrix-{game}_seed1_episode{j}.gif"
        for i, game in enumerate("ab")
        for j in range(2)
    ]
    returns = [
        r["test_return"][1] for r in json.loads((folder / "table.json").read_text())["results"]
    ]
    for path, return_ in zip(drawn, np.repeat(returns, 2), strict=True):
        seen = json.loads(path.read_text())
        assert set(seen["states"]) == {2}
        assert seen["caption"] == f"return {return_:.2f}, 1 steps"
        assert f"{path}: {seen['caption']}" in out
    assert "greedy-optimal" in out


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> Path:
    """A run folder of a game that cannot be drawn, before anything is trained."""
    folder = tmp_path_factory.mktemp("runs") / "matrix"
    run_folder.new_run([*TINY, f"run_dir={folder}"])
    return folder


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["render=true"], "matrix/a cannot be drawn"),
        (["render=maybe"], "render=maybe must be true (a GIF), mp4 or false"),
        (["render=true", "seed=x"], "seed=x must be a whole number"),
        (["render=true", "episodes=0"], "episodes=0 must be 1 or more"),
        (["seed=1"], "add render=true"),
        (["foo=1"], "evaluate takes run=<run folder>, eval_episodes=, render=, seed=, episodes="),
    ],
)
def test_what_cannot_be_drawn_is_refused(planned: Path, args, says: str, capsys) -> None:
    assert main(["evaluate", f"run={planned}", *args]) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1


def test_a_seed_of_no_sweep_value_is_refused(planned: Path, drawable_matrix, capsys) -> None:
    assert main(["evaluate", f"run={planned}", "render=true", "seed=2"]) == 2
    assert "seed=2 is none of the run's; choose one of 0 to 1" in capsys.readouterr().err


def test_the_help_says_how_to_draw(capsys) -> None:
    assert main(["evaluate", "--help"]) == 0
    assert "render=true" in capsys.readouterr().out
