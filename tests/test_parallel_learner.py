"""The on-policy learner: epochs of minibatches over the segments of an iteration."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.types import Segment
from jaxvff.learning.learner import LearnInput
from jaxvff.learning.parallel_learner import State, after_burn_in
from jaxvff.methods.table import METHODS
from jaxvff.runs import execute
from jaxvff.runs import folder as runs
from jaxvff.runs.plan import plan
from jaxvff.settings import build, config
from tests import toy
from tests.hosts import SMALL, job_in, toy_game
from tests.test_run import metrics

PARALLEL = ("learner=parallel", "norm=layer", "utility=mlp", "hidden_dim=8")
MATRIX = (*PARALLEL, "env=matrix/a", "n_envs=8", "minibatches=2", "epochs=2", "seeds=2",
          "total_steps=160", "eval_interval=80", "epsilon_steps=100")  # fmt: skip
BATTLE = (*PARALLEL, "env=smax/3m", "env.time_limit=31", "n_envs=4", "segment_length=33",
          "minibatches=2", "epochs=1", "seeds=1", "total_steps=256", "eval_interval=256",
          "eval_episodes=2")  # fmt: skip


def run(folder: Path, *overrides: str, stop_after: int | None = None) -> None:
    """Train in this process; with `stop_after`, interrupt after so many looks at Ctrl-C."""
    if folder.exists():
        jobs, resume = runs.resumed_run(folder, "train"), True
    else:
        jobs, resume = runs.new_run([*overrides, f"run_dir={folder}"])[1], False
    looks = iter(range(10**9))
    stop = lambda: stop_after is not None and next(looks) >= stop_after
    list(execute.execute(folder, jobs, resume=resume, watcher=execute.Watcher(stop_early=stop)))


def two_episodes(rng: np.random.Generator, spec) -> Segment:
    """Seven slots: an episode of three steps that terminates, one of two that is cut."""
    n = 7
    return Segment(
        obs=jnp.asarray(rng.normal(size=(n, spec.n_agents, spec.obs_size)), jnp.float32),
        state=jnp.asarray(rng.normal(size=(n, spec.state_size)), jnp.float32),
        avail=jnp.ones((n, spec.n_agents, spec.n_actions), bool),
        action=jnp.asarray(rng.integers(spec.n_actions, size=(n, spec.n_agents))),
        reward=jnp.asarray(rng.normal(size=n), jnp.float32),
        terminated=jnp.asarray([False, False, True, False, False, False, False]),
        is_first=jnp.asarray([True, False, False, False, True, False, False]),
        mask=jnp.asarray([True, True, True, False, True, True, False]),
    )


def mean_size_of_returns(segments: Segment, gamma: float) -> float:
    """Of all slots with a return that is not 0, in a slow loop."""
    sizes = []
    for rewards, terminated, mask in zip(
        np.asarray(segments.reward), segments.terminated, segments.mask, strict=True
    ):
        later = 0.0
        for t in reversed(range(len(mask))):
            later = float(rewards[t]) + gamma * (not terminated[t]) * later if mask[t] else 0.0
            sizes += [abs(later)] * (later != 0)
    return float(np.mean(sizes))


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "target", "size"), [(1, "max", 0), (2, "sarsa", 3)])
def test_an_epoch_of_one_minibatch_is_a_plain_gradient_step(
    epochs: int, target: str, size: float
) -> None:
    """VDN with SGD, written out; the targets of both epochs are those of before the iteration."""
    asked = config.load(
        [*PARALLEL, "method=vdn", "env=matrix_steps/two_step", "optimizer=sgd", "lr=0.1",
         f"epochs={epochs}", "minibatches=1", "n_envs=2", "segment_length=7", "td_lambda=0.7",
         "gamma=0.9", f"target={target}", "grad_clip=1000000",
         f"return_scale={size}"]
    )  # fmt: skip
    env = build.environment(asked.env)
    learner, utility = build.learner(asked, env), build.model(asked, env).utility
    rng = np.random.default_rng(0)
    segments = jax.tree.map(lambda *x: jnp.stack(x), *[two_episodes(rng, env.spec)] * 2)
    segments = segments._replace(reward=segments.reward.at[1].multiply(-2.0))
    state: State = learner.init(jax.random.key(1), asked.traced())
    given = LearnInput(
        segments=segments,
        env_params=env.params,
        traced=asked.traced(),
        iteration=jnp.array(0),
        env_steps=jnp.array(10),
        running=jnp.array(True),
        keys=jax.random.split(jax.random.key(2), epochs),
    )
    learned = learner.learn(state, given)

    def q_of(params, i: int):
        return utility.unroll(params, jax.tree.map(lambda x: x[i], segments))[0]  # [T, A, U]

    def target_of(q: np.ndarray, i: int) -> np.ndarray:
        y = np.zeros(7)
        for t in reversed(range(7)):
            if not segments.mask[i, t]:
                continue
            chosen = q[t + 1].max(-1)
            if target == "sarsa":
                chosen = q[t + 1][np.arange(q.shape[1]), segments.action[i, t + 1]]
            v = chosen.sum()
            later = y[t + 1] if segments.mask[i, t + 1] else v
            discount = 0.9 * (1 - segments.terminated[i, t])
            y[t] = segments.reward[i, t] / unit + discount * (0.3 * v + 0.7 * later)
        return y

    unit = mean_size_of_returns(segments, 0.9) / size if size else 1.0
    params = state.params["utility"]
    targets = [target_of(np.asarray(q_of(params, i)), i) for i in range(2)]

    def loss(params):
        total = 0.0
        for i in range(2):
            q = q_of(params, i)
            for t in range(7):
                if segments.mask[i, t]:
                    taken = sum(q[t, a, segments.action[i, t, a]] for a in range(q.shape[1]))
                    total += 0.5 * (taken - targets[i][t]) ** 2
        return total / 10

    for _ in range(epochs):
        grads = jax.grad(loss)(params)
        params = jax.tree.map(lambda p, g: p - 0.1 * g, params, grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
        learned.state.params["utility"],
        params,
    )
    assert float(learned.metrics["learned"]) == 1.0


@pytest.mark.slow
def test_every_segment_is_learned_from_once_in_an_epoch() -> None:
    """With a learning rate of 0 the mean of the minibatches' losses is the loss of the whole."""
    losses = []
    for minibatches in (1, 4):
        (job,) = plan([*MATRIX, "method=vdn", f"minibatches={minibatches}", "lr=0", "epochs=1"])
        learner = build.learner(job.config, job.env)
        state = learner.init(jax.random.key(1), job.config.traced())
        rng = np.random.default_rng(3)
        one = two_episodes(rng, job.env.spec)
        cut = jax.tree.map(lambda x: x[2:4], one)._replace(is_first=jnp.array([True, False]))
        segments = jax.tree.map(lambda x: jnp.stack([x] * 8), cut)
        segments = segments._replace(reward=segments.reward * jnp.arange(8.0)[:, None])
        given = LearnInput(
            segments, job.env.params, job.config.traced(), jnp.array(0), jnp.array(0),
            jnp.array(True), jax.random.split(jax.random.key(2), 1),
        )  # fmt: skip
        losses.append(float(learner.learn(state, given).metrics["loss"]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def test_a_burn_in_leaves_out_the_first_slots_of_episodes_that_go_on() -> None:
    segment = two_episodes(np.random.default_rng(0), toy.SPEC)
    later = jax.tree.map(lambda x: x[2:], segment)  # the third step of an episode comes first
    segments = jax.tree.map(lambda *x: jnp.stack(x), jax.tree.map(lambda x: x[:5], segment), later)
    counts = after_burn_in(segments, 4)
    np.testing.assert_array_equal(counts, [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    assert after_burn_in(segments, 1)[1].tolist() == [False, True, True, True, True]


@pytest.mark.slow
def test_a_gru_learns_from_games_that_go_on_after_a_burn_in(tmp_path: Path) -> None:
    run(tmp_path / "run", *BATTLE, "method=vdn", "utility=gru", "segment_length=9", "burn_in=3")
    check_it_learned(tmp_path / "run")


@pytest.mark.slow
def test_a_run_resumes_bit_for_bit_and_lanes_are_runs_of_their_own(tmp_path: Path) -> None:
    args = (*MATRIX, "method=nmqmix_rnd")
    run(tmp_path / "whole", *args)
    run(tmp_path / "cut", *args, stop_after=0)
    assert len(metrics(tmp_path / "cut")) < 2
    run(tmp_path / "cut")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    run(tmp_path / "second", *args, "seeds=1", "seed=1")
    for both, one in zip(metrics(tmp_path / "whole"), metrics(tmp_path / "second"), strict=True):
        np.testing.assert_allclose(both["loss"][1], one["loss"][0], rtol=1e-4)


def check_it_learned(folder: Path) -> None:
    last = metrics(folder)[-1]
    assert np.isfinite(last["loss"]).all()
    assert np.all(np.array(last["grad_norm"]) > 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_in_parallel(method: str, tmp_path: Path) -> None:
    run(tmp_path / "run", *MATRIX, f"method={method}")
    check_it_learned(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_battles_are_learned_in_parallel(method: str, tmp_path: Path) -> None:
    utility = ["utility=gru"] if method == "qtran" else []
    run(tmp_path / "run", *BATTLE, f"method={method}", *utility)
    check_it_learned(tmp_path / "run")


@pytest.mark.slow
def test_games_on_the_host_are_learned_from_in_whole_episodes(tmp_path: Path) -> None:
    asked = [x for x in SMALL if not x.startswith(("total_steps", "eval_interval"))]
    job = job_in(toy_game(), *asked, *PARALLEL, "minibatches=2", "total_steps=260",
                 "eval_interval=130")  # fmt: skip
    ((first, *_),) = execute.execute(tmp_path, [job])
    assert (first.metrics["stopped_at"] == -1).all()
    check_it_learned(tmp_path)


@pytest.mark.slow
def test_a_lane_that_diverges_stops_alone(tmp_path: Path) -> None:
    run(tmp_path / "run", *MATRIX, "method=vdn", "sweep.lr=[1e-3,1e30]", "norm=none")
    last = metrics(tmp_path / "run")[-2:]
    assert [line["stopped_at"] for line in last] == [[-1, -1], last[1]["stopped_at"]]
    assert min(last[1]["stopped_at"]) >= 0
    assert np.isfinite(last[0]["loss"]).all()


@pytest.mark.slow
def test_it_learns_to_win_battles(tmp_path: Path) -> None:
    """Random play wins none of 3m; 64 episodes of two seeds after 80,000 steps."""
    run(tmp_path / "run", "env=smax/3m", "method=vdn", *PARALLEL, "hidden_dim=64", "lr=2e-3",
        "optimizer=radam", "env.reward_scale=10", "target=max", "td_lambda=0.6", "n_envs=32",
        "segment_length=128", "minibatches=16", "epsilon_steps=30000", "seeds=2",
        "total_steps=80000", "eval_interval=80000", "eval_episodes=64")  # fmt: skip
    assert min(metrics(tmp_path / "run")[-1]["test_win_rate"]) > 0.4


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["learner=parallel", "n_envs=8", "minibatches=3"], "minibatches=3 does not divide n_envs=8"),
        (["learner=parallel", "buffer_size=10"], "buffer_size=10 does nothing with learner=parallel"),
        (["learner=parallel", "target_interval=5"], "target_interval=5 does nothing"),
        (["epochs=2"], "epochs=2 does nothing with learner=replay; it needs learner=parallel"),
        (["learner=parallel", "epochs=0"], "epochs=0 is out of range"),
        (["learner=parallel", "burn_in=1"], "burn_in=1 leaves nothing to learn from in segments of"),
        (["burn_in=1"], "burn_in=1 does nothing with learner=replay"),
        (["learner=paralel"], "did you mean parallel"),
        (["norm=batch"], "norm='batch' is unknown"),
    ],
)  # fmt: skip
def test_mistakes_are_answered(args: list[str], message: str, tmp_path: Path, capsys) -> None:
    assert main(["train", *args, f"run_dir={tmp_path}/run"]) == 2
    assert message in capsys.readouterr().err
