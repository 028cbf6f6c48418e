"""Learning does not depend on the unit of the rewards."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.types import Segment
from jaxvff.learning import return_scale
from jaxvff.learning.learner import LearnInput
from jaxvff.methods.table import METHODS
from jaxvff.settings import build, config
from tests import toy
from tests.streams import drawn
from tests.test_parallel_learner import mean_size_of_returns, two_episodes
from tests.test_run import metrics

N = 4
SLOW = partial(pytest.param, marks=pytest.mark.slow)
# A learner, and what makes it learn at once from seven slots of four games.
LEARNERS = {
    "replay": ["batch_size=4", "buffer_size=16", "learn_start=4", "updates=2", "target_interval=1"],
    "parallel": ["learner=parallel", "epochs=2", "minibatches=2", "norm=layer"],
}


def many_segments(seed: int, spec) -> Segment:
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda *x: jnp.stack(x), *[two_episodes(rng, spec) for _ in range(N)])


def test_the_unit_is_the_mean_size_of_returns() -> None:
    env = toy.make()
    segments = many_segments(0, env.spec)
    scale = return_scale.update(return_scale.fresh(), segments, jnp.array(0.9))
    mean = mean_size_of_returns(segments, 0.9)
    np.testing.assert_allclose(return_scale.unit(scale, 3.0), mean / 3, rtol=1e-5)
    assert return_scale.unit(scale, 0) == 1

    # Two iterations count as one of both; slots without a return do not count.
    more = many_segments(1, env.spec)
    both = jax.tree.map(lambda *x: jnp.concatenate(x), segments, more)
    scale = return_scale.update(scale, more, jnp.array(0.9))
    np.testing.assert_allclose(scale.mean, mean_size_of_returns(both, 0.9), rtol=1e-5)
    nothing = segments._replace(reward=jnp.zeros_like(segments.reward))
    assert return_scale.update(scale, nothing, jnp.array(0.9)) == scale


def test_without_any_reward_the_unit_is_1() -> None:
    assert return_scale.unit(return_scale.fresh(), 3.0) == 1


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("method", ["vdn", *(SLOW(m) for m in METHODS if m != "vdn")])
def test_rewards_in_another_unit_teach_the_same(method: str, learner: str) -> None:
    """Parameters after three iterations from random segments: with a power of two bit for bit."""
    asked = config.load(
        [f"method={method}", "env=matrix_steps/two_step", "hidden_dim=8", f"n_envs={N}",
         "segment_length=7", "lr=0.01", "bonus=rnd", "bonus_beta=0.5", "rnd_dim=4",
         *LEARNERS[learner]]
    )  # fmt: skip
    env = toy.make()
    made = build.learner(asked, env)
    traced = jax.tree.map(jnp.float32, asked.traced())
    learn = jax.jit(made.learn)

    def learned(factor: float):
        state = made.init(jax.random.key(1), traced)
        for i in range(3):
            segments = jax.vmap(lambda s: drawn(s, made.model.context))(many_segments(i, env.spec))
            given = LearnInput(
                segments=segments._replace(reward=segments.reward * jnp.float32(factor)),
                env_params=env.params,
                traced=traced,
                iteration=jnp.array(i),
                env_steps=jnp.array(20 * i),
                running=jnp.array(True),
                keys=jax.random.split(jax.random.key(i), made.n_keys),
            )
            out = learn(state, given)
            state = out.state
        return made.acting(state), out.metrics, made.unit(state)

    params, told, unit = learned(1.0)
    fresh = made.acting(made.init(jax.random.key(1), traced))
    assert difference(params, fresh) > 1e-3, "nothing was learned, so this proves nothing"
    for factor in (2.0**-10, 2.0**10):
        other, other_told, other_unit = learned(factor)
        assert difference(params, other) == 0
        assert other_unit == factor * unit
        for name in ("q_tot", "target", "td_error_abs"):  # in env units
            np.testing.assert_allclose(other_told[name], factor * told[name], rtol=1e-5)
        np.testing.assert_array_equal(other_told["loss"], told["loss"])
    for factor in (0.001, 1000.0):  # rounding, within one of Adam's dozen steps of 0.01
        assert difference(params, learned(factor)[0]) < 0.01


def difference(a, b) -> float:
    return max(jax.tree.leaves(jax.tree.map(lambda x, y: float(jnp.max(jnp.abs(x - y))), a, b)))


@pytest.mark.slow
@pytest.mark.parametrize("learner", ["replay", "parallel"])
def test_payoffs_in_another_unit_give_the_same_table(learner: str, tmp_path: Path) -> None:
    """Collection, learning and the score: Game B in units of 1/1024, 1 and 1024."""
    how = [f"learner={learner}"] + (["n_envs=16"] if learner == "parallel" else [])
    lines = []
    for factor in (2.0**-10, 1.0, 2.0**10):
        payoff = (factor * np.array([[12, 0, 10], [0, 0, 10], [10, 10, 10]])).tolist()
        folder = tmp_path / str(factor)
        args = [f"env.payoff={payoff}", "env=matrix/file", "method=qplex", "seeds=4", *how]
        args += ["total_steps=2000", "eval_interval=1000", f"run_dir={folder}"]
        assert main(["train", *(a.replace(" ", "") for a in args)]) == 0
        lines.append((factor, metrics(folder)[-1]))
    _, base = lines[1]
    assert max(base["max_error"]) < 8, "nothing was learned, so this proves nothing"
    for factor, line in lines:
        assert line["fit"] == base["fit"]
        assert line["optimal"] == base["optimal"]
        for name in ("max_error", "regret", "target", "td_error_abs", "train_return"):
            np.testing.assert_allclose(line[name], factor * np.array(base[name]), rtol=1e-6)
