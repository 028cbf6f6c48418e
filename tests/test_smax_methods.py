"""Every method trains on SMAX: traced whole on the maps of the comparison, some run on 3m."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxvff.runs.plan import plan
from jaxvff.settings import config
from jaxvff.training import loop
from jaxvff.training.program import device_program
from tests.lanes import params_of, start

METHODS = config.config_names("method")
TINY = (
    "learner=replay", "seeds=1", "hidden_dim=8", "n_envs=2", "segment_length=32", "env.time_limit=31",
    "buffer_size=8", "batch_size=2", "learn_start=2", "updates=1", "eval_episodes=2",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(  # no two alike
    "method", ["nmqmix_rnd", "qplex", "qtran", "ow_qmix", "pow_qmix", "resq"]
)
def test_a_method_learns_something_on_3m(method: str) -> None:
    program, carry, lane = start("env=smax/3m", f"method={method}", *TINY)
    before = params_of(carry)
    carry = program.advance(carry, lane, 0, 3)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, params_of(carry))
    assert set(moved) >= {"utility", "mixer"}
    assert max(jax.tree.leaves(moved["utility"])) > 0
    metrics = loop.report_metrics(program, carry, lane)
    assert np.isfinite(metrics["loss"]).all() and np.isfinite(metrics["test_return"]).all()
    assert metrics["stopped_at"] == -1
    rates = [metrics[f"test_{k}_rate"][0] for k in ("win", "loss", "draw", "timeout")]
    assert sum(rates) == pytest.approx(1)


@pytest.mark.slow
def test_every_method_fits_the_largest_map() -> None:
    """Shapes only: the whole program of a training run is traced, and nothing is compiled.

    Every method is trained on 3m in tests/test_parallel_learner.py.
    """
    for method in METHODS:
        (job,) = plan(["env=smax/3s5z_vs_3s6z", f"method={method}", *TINY])
        program = device_program(job.config, job.env, job.n_lanes)
        lane = job.lanes()
        carry = jax.eval_shape(program.init, lane)
        after = jax.eval_shape(program.advance, carry, lane, 0, 1)
        assert jax.tree.structure(after) == jax.tree.structure(carry), method
        tested = jax.eval_shape(program.evaluate, carry, lane)
        assert tested["test_win_rate"].shape == (1,), method
