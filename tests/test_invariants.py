"""Symmetries of unconstrained mixers, bit for bit.

They hold exactly because IEEE arithmetic negates exactly, and because both sides run in one
compiled program, as two lanes of a vmap.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.types import EnvSpec, JointStep
from jaxvff.methods.table import METHODS
from jaxvff.mixers.qmix import NmQmix, Qmix
from tests.lanes import params_of, start


def negate_output_layer(mixer: dict) -> dict:
    """(w2, b2) -> (-w2, -b2): the last layers of the hypernetworks that make them."""
    mixer = jax.tree.map(lambda x: x, mixer)
    for name in ("hyper_w2", "hyper_b2"):
        mixer["params"][name]["layers_2"] = jax.tree.map(
            jnp.negative, mixer["params"][name]["layers_2"]
        )
    return mixer


@pytest.mark.parametrize(
    ("utility", "optimizer"),
    [("mlp", "adam"), pytest.param("gru", "rmsprop", marks=pytest.mark.slow)],
)
def test_negating_payoffs_and_output_layer_leaves_the_utilities_identical(
    utility: str, optimizer: str
) -> None:
    """The same seed on y and on -y: same actions, same utilities, negated Q_tot, for 600 updates."""
    program, carry, lane = start(
        "method=nmqmix", "seeds=1", f"utility={utility}", f"optimizer={optimizer}",
        "sweep.env=[matrix/a,matrix/b]", "buffer_size=500",
    )  # fmt: skip
    payoff = lane.env_params.at[1].set(-lane.env_params[0])  # lane 1: Game A, negated
    lane = lane._replace(env_params=payoff)

    def mirror(tree: dict) -> dict:
        one = jax.tree.map(lambda x: x[0], tree)
        two = {**one, "mixer": negate_output_layer(one["mixer"])}
        return jax.tree.map(lambda a, b: jnp.stack([a, b]), one, two)

    state, learner = carry.state, carry.state.learner
    learner = learner._replace(
        params=mirror(learner.params), target_params=mirror(learner.target_params)
    )
    key = jnp.stack([state.key[0]] * 2)
    carry = carry._replace(state=state._replace(learner=learner, key=key))
    for stop in (200, 700):
        carry = program.advance(carry, lane, 0 if stop == 200 else 200, stop)
        tested = program.evaluate(carry, lane)
        np.testing.assert_array_equal(tested["utilities"][0], tested["utilities"][1])
        np.testing.assert_array_equal(tested["q_tot"][0], -tested["q_tot"][1])
        utility = params_of(carry)["utility"]
        jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[1]), utility)
    assert np.ptp(np.asarray(tested["q_tot"][0])) > 5, "it did not learn, so it proves nothing"


def test_flipping_an_agents_head_and_its_mixing_weights_leaves_q_tot_identical() -> None:
    spec = EnvSpec(n_agents=3, n_actions=4, obs_size=5, state_size=6, episode_limit=1)
    mixer = Qmix(spec, 8, 16, monotonic=False)
    for case in range(20):
        key = jax.random.key(case)
        q, state = jax.random.normal(key, (3,)), jax.random.normal(jax.random.fold_in(key, 1), (6,))
        step = JointStep(q, q, jnp.zeros((3, 4)), jnp.zeros((3, 1)), state)
        params = mixer.init(key, step)
        flipped = jax.tree.map(lambda x: x, params)
        layer = flipped["params"]["hyper_w1"]["layers_2"]
        mine = slice(8, 16)  # agent 1's row of the 3 x 8 mixing weights
        layer["kernel"] = layer["kernel"].at[:, mine].multiply(-1)
        layer["bias"] = layer["bias"].at[mine].multiply(-1)
        flipped_step = step._replace(q_taken=q.at[1].multiply(-1))
        assert mixer.apply(params, step) == mixer.apply(flipped, flipped_step)
        assert mixer.apply(params, step) != mixer.apply(params, flipped_step)


def test_monotone_and_additive_methods_have_no_such_symmetry() -> None:
    """The switch that makes NM-QMIX is the one thing that differs from QMIX."""
    assert METHODS["qmix"]._replace(mixer="") == METHODS["nmqmix"]._replace(mixer="")
    spec = EnvSpec(n_agents=3, n_actions=4, obs_size=5, state_size=6, episode_limit=1)
    assert Qmix(spec).monotonic and not NmQmix(spec).monotonic
    step = JointStep(jnp.ones(3), jnp.ones(3), jnp.zeros((3, 4)), jnp.zeros((3, 1)), jnp.ones(6))
    params = NmQmix(spec).init(jax.random.key(0), step)
    without = Qmix(spec, monotonic=False)
    assert without.apply(params, step) == NmQmix(spec).apply(params, step)
    assert without.apply(params, step) != Qmix(spec).apply(params, step)
