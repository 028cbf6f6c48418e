"""Methods learn what they can represent, on fixed seeds, and fail where they must."""

from __future__ import annotations

import numpy as np
import pytest

from jaxvff.training import loop
from tests.lanes import start

ARGS = ("seeds=8", "total_steps=3000", "epsilon_end=0.3", "eval_interval=3000")


def learn(*overrides: str) -> dict[str, np.ndarray]:
    program, carry, lane = start(*ARGS, *overrides)
    *_, (_, _, report) = loop.run(program, carry, lane)
    return report.metrics


@pytest.mark.parametrize(
    "method", ["vdn", "iql", *(pytest.param(m, marks=pytest.mark.slow) for m in ("qmix", "qatten"))]
)
def test_an_additive_game_is_solved_by_every_monotone_method(method: str) -> None:
    """y = f(a) + g(b): the sum of utilities represents it, so greedy agents are optimal."""
    rows, columns = np.array([0.0, 3.0, -2.0]), np.array([1.0, -4.0, 2.0])
    payoff = (rows[:, None] + columns).tolist()
    metrics = learn(f"method={method}", "env=matrix/file", f"env.payoff={payoff}")
    assert metrics["optimal"].all()
    if method != "iql":
        assert metrics["max_error"].max() < 0.5


@pytest.mark.slow
def test_nmqmix_represents_game_a_where_qmix_cannot() -> None:
    assert learn("method=nmqmix", "epsilon_end=1")["fit"].mean() >= 0.75
    assert learn("method=qmix", "epsilon_end=1")["max_error"].min() > 5


@pytest.mark.slow
def test_qtran_finds_the_optimum_of_game_a_and_fits_it() -> None:
    metrics = learn("method=qtran", "lr=1e-3")
    assert metrics["optimal"].all()
    assert np.median(metrics["max_error"]) < 0.3


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qplex", "cw_qmix", "ow_qmix", "pow_qmix", "resq", "qfix"])
def test_methods_with_a_full_joint_value_solve_game_a_more_often_than_not(method: str) -> None:
    assert learn(f"method={method}")["optimal"].mean() > 0.5


@pytest.mark.slow
def test_three_agents_and_a_gru_learn_too() -> None:
    payoff = np.zeros((2, 2, 2))
    payoff[1, 1, 1], payoff[0, 0, 0] = 5.0, 1.0
    metrics = learn(
        "method=vdn", "env=matrix/file", f"env.payoff={payoff.tolist()}", "utility=gru",
        "last_action=true", "hidden_dim=16", "shared=false", "agent_id=false",
    )  # fmt: skip
    assert metrics["optimal"].all()


def test_a_diverged_run_is_no_success() -> None:
    metrics = learn("method=nmqmix", "optimizer=sgd", "lr=1e9", "grad_clip=1e9", "total_steps=300")
    assert not metrics["optimal"].any()
    assert not metrics["fit"].any()


@pytest.mark.slow
def test_uneven_finds_the_optimum_of_game_a_on_seeds_where_vdn_does_not() -> None:
    """Tasks that forgive the -12 lead to the 12: 16 of 16 seeds, of which VDN solves 9."""
    short = ("total_steps=1250", "eval_interval=1250", "epsilon_steps=2500", "epsilon_end=0.05",
             "batch_size=32", "learn_start=32", "seeds=4", "seed=100")  # fmt: skip
    assert learn("method=uneven", *short)["optimal"].all()
    assert not learn("method=vdn", *short)["optimal"].all()


@pytest.mark.slow
def test_mavens_latents_can_be_told_apart_and_bring_what_qmix_finds() -> None:
    """Behaviour tells most of which of 16 latents was drawn: guessing would cost log 16 nats."""
    metrics = learn(
        "method=maven", "env=matrix_steps/maven", "td_lambda=0", "epsilon_steps=100",
        "epsilon_end=0.01", "n_envs=4", "updates=4", "seeds=2", "seed=100", "total_steps=10000",
        "eval_interval=10000",
    )  # fmt: skip
    assert (metrics["test_return"] >= 10).all()
    assert (metrics["latent_surprise"] < 0.6 * np.log(16)).all()
