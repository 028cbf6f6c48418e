"""Utility networks: memory that restarts with every episode, against slow loops."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec
from jaxvff.networks.dense import dense
from jaxvff.networks.gru import remember
from jaxvff.networks.heads import Head, attached, detached
from jaxvff.networks.options import UTILITIES
from jaxvff.networks.utility import Utility, neighbours, network
from tests.oracles import cnn, gru
from tests.streams import random_segment, spans

SPEC = EnvSpec(n_agents=2, n_actions=3, obs_size=6, state_size=5, episode_limit=4,
               obs_shape=(3, 1, 2))  # fmt: skip
HIDDEN, SLOTS = 8, 23
TOLERANCE = 1e-5  # float32 against float64, sums of up to 11 terms of size one


def utility(name: str, shared: bool = True, spec: EnvSpec = SPEC, head: Head = attached) -> Utility:
    net = network(UTILITIES[name], spec, HIDDEN, head, "none")
    return Utility(net, spec, shared, agent_id=True, last_action=True)


def scaled(params: dict) -> dict:
    """Larger than PyTorch's, so that memory shows."""
    return jax.tree.map(lambda x: 2 * x, params)


def test_a_gru_restarts_with_every_episode_as_a_slow_loop_does() -> None:
    net = utility("gru")
    params = scaled(net.init(jax.random.key(0)))
    unroll = jax.jit(net.unroll)
    for seed in range(20):
        s = random_segment(np.random.default_rng(seed), SPEC, SLOTS)
        q, _ = unroll(params, s)
        expected = gru.unroll(
            params["params"], np.asarray(s.obs), np.asarray(s.action), spans(s), 3, HIDDEN
        )
        used = np.isfinite(expected)
        assert used[..., 0, 0].sum() == sum(last - first + 1 for first, last in spans(s))
        np.testing.assert_allclose(np.asarray(q)[used], expected[used], atol=TOLERANCE)


@pytest.mark.parametrize("shape", [(4, 3, 2), (1, 5, 1), (2, 2, 3)])
def test_a_cnn_sees_an_image_as_a_slow_loop_does(shape: tuple[int, int, int]) -> None:
    """The observation is the image, flattened; last action and agent id join behind it."""
    spec = SPEC._replace(obs_size=int(np.prod(shape)), obs_shape=shape)
    net = utility("cnn", spec=spec)
    params = scaled(net.init(jax.random.key(0)))
    s = random_segment(np.random.default_rng(0), spec, SLOTS)
    q, _ = net.unroll(params, s)
    assert q.shape == (SLOTS, 2, 3)
    for first, last in spans(s):
        previous = np.zeros((2, 3))
        for t in range(first, last + 1):
            for agent in range(2):
                rest = np.concatenate([previous[agent], np.eye(2)[agent]])
                image = np.asarray(s.obs[t, agent]).reshape(shape)
                expected = cnn.utility(params["params"], image, rest)
                # float32 against float64: two sums of up to 288 terms, of values below 10
                np.testing.assert_allclose(q[t, agent], expected, atol=1e-4)
            previous = np.eye(3)[np.asarray(s.action[t])]


def test_a_layer_on_neighbours_is_flaxs_convolution() -> None:
    """In float64, with its gradient: kernels [3, 3, C, F] are [9 C, F]."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        image = jnp.asarray(rng.normal(size=(2, 5, 4, 3)))
        kernel, bias = jnp.asarray(rng.normal(size=(3, 3, 3, 7))), jnp.asarray(rng.normal(size=7))
        weights = jnp.asarray(rng.normal(size=(2, 5, 4, 7)))

        def ours(kernel: jax.Array, image: jax.Array) -> jax.Array:
            return jnp.sum(weights * (neighbours(image) @ kernel.reshape(27, 7) + bias))

        def flaxs(kernel: jax.Array, image: jax.Array) -> jax.Array:
            params = {"params": {"kernel": kernel, "bias": bias}}
            return jnp.sum(weights * nn.Conv(7, (3, 3)).apply(params, image))

        found, expected = (jax.value_and_grad(f, (0, 1))(kernel, image) for f in (ours, flaxs))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10), found, expected)


@pytest.mark.parametrize("shape", [(), (6,), (2, 3), (2, 2, 2)])
def test_a_cnn_of_observations_that_are_no_images_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match=r"shows 6 numbers with obs_shape=\(.*; take utility=mlp"):
        utility("cnn", spec=SPEC._replace(obs_shape=shape))


def test_the_gradient_that_is_written_out_is_that_of_flaxs_cell() -> None:
    """In float64, for all arguments, with restarts, on sequences with and without a loop."""
    rng = np.random.default_rng(0)
    n, size, names = 5, 4, ("r", "z", "n")

    def by_flax(
        kernel: jax.Array, bias: jax.Array, given: jax.Array, is_first: jax.Array, h: jax.Array
    ) -> jax.Array:
        """The input's share is what the cell's layers of inputs make of it: they pass it on."""
        cell, memories = nn.GRUCell(size), []
        parts = dict(zip(names, jnp.split(kernel, 3, axis=-1), strict=True))
        params = {f"h{x}": {"kernel": parts[x]} for x in names}
        params["hn"]["bias"] = bias
        for k, x in enumerate(names):
            passed = jnp.eye(3 * size)[:, k * size : (k + 1) * size]
            params[f"i{x}"] = {"kernel": passed, "bias": jnp.zeros(size)}
        for x, first in zip(given, is_first, strict=True):
            h = cell.apply({"params": params}, jnp.where(first, 0, h), x)[0]
            memories.append(h)
        return jnp.stack(memories)

    with jax.enable_x64(True):
        for n_slots in (1, 3, 12):
            draw = lambda *shape: jnp.asarray(rng.normal(size=shape))
            is_first = jnp.asarray(rng.random(n_slots) < 0.3)
            kernel, bias, before = draw(size, 3 * size), draw(size), draw(2, n, size)
            given, weights = draw(n_slots, 2, n, 3 * size), draw(n_slots, 2, n, size)
            found, expected = (
                jax.value_and_grad(
                    lambda w, b, x, h, f=f: jnp.sum(weights * f(w, b, x, is_first, h)), (0, 1, 2, 3)
                )(kernel, bias, given, before)
                for f in (remember, by_flax)
            )
            jax.tree.map(
                lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-10, atol=1e-12),
                found,
                expected,
            )


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("name", UTILITIES)
def test_a_segment_unrolls_as_its_episodes_do_alone(name: str, shared: bool) -> None:
    net = utility(name, shared)
    params = scaled(net.init(jax.random.key(1)))
    unroll = jax.jit(net.unroll)
    lengths = set()
    for seed in range(8):
        s = random_segment(np.random.default_rng(seed), SPEC, SLOTS)
        q, features = unroll(params, s)
        for first, last in spans(s):
            alone = jax.tree.map(lambda x: x[first : last + 1], s)
            q_alone, features_alone = unroll(params, alone)
            np.testing.assert_allclose(q[first : last + 1], q_alone, atol=TOLERANCE)
            np.testing.assert_allclose(features[first : last + 1], features_alone, atol=TOLERANCE)
            lengths.add(last - first)
        if seed > 2 and len(lengths) == 4:
            break
    assert lengths == {1, 2, 3, 4}


def test_a_gru_remembers_within_an_episode_and_nothing_of_the_one_before() -> None:
    net = utility("gru")
    params = scaled(net.init(jax.random.key(0)))
    s = random_segment(np.random.default_rng(0), SPEC, 6)
    first = np.array([True, False, False, True, False, False])
    s = s._replace(is_first=jnp.asarray(first))

    def q(change: int) -> np.ndarray:
        obs = s.obs.at[change].add(1.0)
        return np.asarray(net.unroll(params, s._replace(obs=obs))[0])

    base = np.asarray(net.unroll(params, s)[0])
    assert all(np.abs(q(0) - base)[t].max() > 1e-3 for t in (0, 1, 2))
    np.testing.assert_array_equal(q(0)[3:], base[3:])
    np.testing.assert_array_equal(q(4)[:4], base[:4])


def test_no_gradient_crosses_the_start_of_an_episode() -> None:
    net = utility("gru")
    params = net.init(jax.random.key(0))
    s = random_segment(np.random.default_rng(0), SPEC, 6)
    s = s._replace(is_first=jnp.array([True, False, False, True, False, False]))

    def last(obs: jax.Array) -> jax.Array:
        return jnp.sum(net.unroll(params, s._replace(obs=obs))[0][5])

    grad = np.abs(jax.grad(last)(s.obs)).max((1, 2))
    assert (grad[:3] == 0).all()
    assert (grad[3:] > 0).all()


def test_the_first_slot_sees_no_previous_action_whatever_came_before() -> None:
    net = utility("mlp")
    params = net.init(jax.random.key(0))
    s = random_segment(np.random.default_rng(3), SPEC, SLOTS)
    starts = np.asarray(s.is_first)

    def q(action: jax.Array) -> np.ndarray:
        return np.asarray(net.unroll(params, s._replace(action=action))[0])

    other = q((s.action + 1) % 3)
    np.testing.assert_array_equal(other[starts], q(s.action)[starts])
    assert (other[1:] != q(s.action)[1:]).any()


@pytest.mark.parametrize("name", UTILITIES)
def test_every_parameter_learns_from_detached_values_or_from_features_never_both(name: str) -> None:
    net = utility(name, head=detached)
    params = net.init(jax.random.key(0))
    s = random_segment(np.random.default_rng(0), SPEC, SLOTS)

    def learns(output: int) -> list[bool]:
        grads = jax.grad(lambda p: jnp.sum(net.unroll(p, s)[output] ** 2))(params)
        return [bool(jnp.any(g != 0)) for g in jax.tree.leaves(grads)]

    values, features = learns(0), learns(1)
    assert all(a != b for a, b in zip(values, features, strict=True))
    assert sum(values) == 4  # two layers of their own


def test_units_of_detached_values_learn_also_where_none_of_them_is_active() -> None:
    """Two layers of their own; the first one is far below zero for every input."""
    net = utility("mlp", head=detached)
    params = net.init(jax.random.key(0))
    s = random_segment(np.random.default_rng(0), SPEC, SLOTS)
    gradient = jax.grad(lambda p: jnp.sum(net.unroll(p, s)[0] ** 2))
    learns = {name: bool(jnp.any(g["bias"] != 0)) for name, g in gradient(params)["params"].items()}
    (first,) = (  # the one of the two that does not make the values of three actions
        name for name, used in learns.items()
        if used and params["params"][name]["bias"].shape == (HIDDEN,)
    )  # fmt: skip
    params["params"][first]["bias"] -= 100
    assert np.all(gradient(params)["params"][first]["bias"] != 0)


def test_weights_and_biases_are_uniform_on_both_sides_of_zero() -> None:
    """Up to 1 / sqrt(inputs), as PyTorch draws them."""
    params = dense(200, 25).init(jax.random.key(0), jnp.zeros(25))["params"]
    for x in (params["kernel"], params["bias"]):
        assert -0.2 <= x.min() < -0.19 and 0.19 < x.max() <= 0.2
        # Five standard errors of the mean of a uniform distribution that is 0.4 wide.
        assert abs(x.mean()) < 5 * 0.4 / np.sqrt(12 * x.size)
