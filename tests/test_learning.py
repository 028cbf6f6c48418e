"""Methods learn what they can represent, on fixed seeds, and fail where they must."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.types import Array, Env, EnvParams, EnvSpec, Outcome, View
from jaxvff.training import loop
from tests.lanes import start, start_in

pytestmark = pytest.mark.usefixtures("compiled_as_for_users")

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


SHAPES = np.array([[[0, 0], [0, 1], [0, 2]], [[0, 0], [1, 0], [2, 0]], [[0, 0], [1, 1], [2, 2]]])
SIDE = 6  # cells


def shapes_game() -> Env:
    """Each agent sees a line of three cells among noise, and names its direction; one step.

    The line is anywhere, so that a network has to look for it everywhere. The team earns the
    share of its agents that are right: 1/3 by chance.
    """
    spec = EnvSpec(n_agents=2, n_actions=3, obs_size=SIDE**2, state_size=2, episode_limit=1,
                   obs_shape=(SIDE, SIDE, 1))  # fmt: skip

    def reset(key: Array, params: EnvParams) -> tuple[Array, Array]:
        keys = jax.random.split(key, 3)
        kind = jax.random.randint(keys[0], (2,), 0, 3)
        corner = jax.random.randint(keys[1], (2, 1, 2), 0, SIDE - 2)
        cells = corner + jnp.asarray(SHAPES)[kind]
        noise = 0.3 * jax.random.normal(keys[2], (2, SIDE, SIDE))
        return noise.at[jnp.arange(2)[:, None], cells[..., 0], cells[..., 1]].add(1), kind

    def step(
        key: Array, state: tuple[Array, Array], action: Array, params: EnvParams
    ) -> tuple[tuple[Array, Array], Outcome]:
        right = jnp.mean(action == state[1])
        return state, Outcome(right, terminated=jnp.array(True), truncated=jnp.array(False))

    def observe(state: tuple[Array, Array], params: EnvParams) -> View:
        return View(state[0].reshape(2, -1), jnp.zeros(2), jnp.ones((2, 3), bool))

    return Env(spec, (), reset, step, observe, signature="shapes")


@pytest.mark.slow
def test_a_cnn_learns_from_images_what_an_mlp_does_not_in_that_time() -> None:
    """Two seeds in one program; greedy play is right in nearly all of a seed's 512 images.

    Measured: .988 and .969 with the CNN, .629 and .650 with the MLP.
    """
    returns = {}
    for utility in ("cnn", "mlp"):
        program, carry, lane = start_in(
            [shapes_game()], "method=vdn", f"utility={utility}", "seeds=2", "hidden_dim=32",
            "segment_length=2", "last_action=false", "agent_id=false", "lr=3e-3", "batch_size=32",
            "n_envs=32", "total_steps=6400", "epsilon_steps=5000", "eval_interval=6400",
            "eval_episodes=256",
        )  # fmt: skip
        *_, (_, _, report) = loop.run(program, carry, lane)
        returns[utility] = report.metrics["test_return"]
    assert returns["cnn"].shape == (2,)
    assert returns["cnn"].min() > 0.93, returns
    assert returns["mlp"].max() < 0.8, returns


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
