"""A lane that meets a value that is not finite stops, alone, where it was still good."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.types import Env
from jaxvff.training import loop
from jaxvff.training.lanes import Carry, Lane
from jaxvff.training.program import Program
from tests import toy
from tests.lanes import params_of, start, start_in

HEALTHY, SICK = 0, 1  # lanes
RATES = (0.0, 0.003)  # of bad values
ARGS = ("method=qmix", "utility=mlp", "seeds=1", "hidden_dim=8", "segment_length=12", "n_envs=2",
        "batch_size=8", "learn_start=8", "buffer_size=64", "total_steps=100000")  # fmt: skip


def poisoned(rate: float, what: str) -> Env:
    """The toy, where `what` is NaN in a share of the steps; the share is traced."""
    env = toy.make()

    def step(key: Any, state: Any, action: Any, rate: Any) -> Any:
        (count, total), outcome = env.step(key, state[:2], action, ())
        bad = jax.random.uniform(key) < rate
        if what == "reward":
            outcome = outcome._replace(reward=jnp.where(bad, jnp.nan, outcome.reward))
        return (count, total, bad), outcome

    def reset(key: Any, rate: Any) -> Any:
        return *env.reset(key, ()), jnp.array(False)

    def observe(state: Any, rate: Any) -> Any:
        view = env.observe(state[:2], ())
        broken = state[2] & (what == "obs")
        return view._replace(obs=jnp.where(broken, jnp.inf, view.obs))

    return env._replace(params=jnp.float32(rate), reset=reset, step=step, observe=observe)


def held(carry: Carry) -> dict[str, np.ndarray]:
    """What decides whether and where a lane stopped."""
    state = carry.state
    stored = state.learner.replay.experience.packed
    rewards, obs = stored.reward, stored.obs
    flat = lambda x: np.isfinite(np.asarray(x)).reshape(2, -1).all(1)
    return {
        "steps": np.array(state.env_steps),
        "stopped": np.array(state.stopped_at),
        "finite": flat(rewards) & flat(obs),
    }


@functools.cache
def program(what: str) -> tuple[Program, Lane]:
    """A healthy and a sick lane."""
    made, _, lane = start_in([poisoned(rate, what) for rate in RATES], *ARGS)
    return made, lane


@pytest.mark.parametrize("what", ["reward", pytest.param("obs", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_lane_stops_at_its_first_bad_value_and_keeps_its_last_good_parameters(what: str) -> None:
    made, lane = program(what)
    carry = made.init(lane)
    good, stopped_at, learned = params_of(carry), -1, False
    for i in range(40):
        carry = made.advance(carry, lane, i, i + 1)
        now, params = held(carry), params_of(carry)
        assert now["stopped"][HEALTHY] == -1
        if stopped_at == -1 and not now["finite"][SICK]:
            stopped_at = int(now["steps"][SICK])
            learned = i > 4
        assert now["stopped"][SICK] == stopped_at
        if stopped_at == -1:
            good = params
        jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[SICK], y[SICK]), params, good)
    assert stopped_at > 0 and learned, "no bad value after the first updates, so it proves nothing"
    moved = jax.tree.map(lambda x, y: np.abs(x[HEALTHY] - y[HEALTHY]).max(), params, good)
    assert max(jax.tree.leaves(moved)) > 0, "the healthy lane stopped, too"

    metrics = loop.report_metrics(made, carry, lane)
    assert metrics["stopped_at"][SICK] == stopped_at
    for name, values in metrics.items():
        if name not in ("stopped_at", "env_steps"):
            assert np.isnan(values[SICK]).all(), name
            assert np.isfinite(values[HEALTHY]).all(), name


@pytest.mark.slow
def test_the_other_lanes_are_as_if_it_had_never_been_there() -> None:
    """Bit for bit: the same program, with a second lane that is healthy, too."""
    runs = []
    made, lane = program("reward")
    for rates in (RATES, (0.0, 0.0)):
        # Placed as it was: otherwise the program compiles again.
        rates = jax.device_put(jnp.array(rates), lane.env_params.sharding)
        lane = lane._replace(env_params=rates)
        carry = made.advance(made.init(lane), lane, 0, 40)
        runs.append(
            (held(carry)["stopped"], loop.report_metrics(made, carry, lane), params_of(carry))
        )
    (sick, *mine), (well, *theirs) = runs
    assert sick[SICK] > 0
    assert (well == -1).all()
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[HEALTHY], b[HEALTHY]), mine, theirs)


def test_successes_of_a_lane_that_diverged_are_false() -> None:
    """Two learning rates in one program: one of them blows up the loss."""
    made, carry, lane = start(
        "method=nmqmix", "optimizer=sgd", "grad_clip=1e30", "sweep.lr=[1e-3,1e30]", "seeds=1",
        "hidden_dim=8", "batch_size=16", "learn_start=16", "buffer_size=64",
    )  # fmt: skip
    carry = made.advance(carry, lane, 0, 30)
    metrics = loop.report_metrics(made, carry, lane)
    assert list(metrics["stopped_at"] >= 0) == [False, True]
    for name in ("fit", "optimal", "both"):
        assert metrics[name].dtype == bool
        assert not metrics[name][1]
    for name in ("loss", "max_error", "test_return", "q_tot"):
        assert np.isnan(metrics[name][1]).all(), name
        assert np.isfinite(metrics[name][0]).all(), name
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params_of(carry)))
