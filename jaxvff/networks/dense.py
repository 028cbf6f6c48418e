"""Dense layers and hypernetworks."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.types import Array


def dense(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """A dense layer with weights and biases drawn from U(-1/√fan_in, 1/√fan_in).

    This is PyTorch's default, hence the initialisation of every PyMARL result. It needs no
    orthogonal matrices on purpose: batched QR under vmap can deadlock XLA's CPU thread pool.

    Args:
      features: size of the output.
      fan_in: size of the input.
      name: of the layer among its module's parameters; None: flax numbers it.
    """
    bound = max(fan_in, 1) ** -0.5  # a layer without an input, of a state of size 0, is its bias
    return nn.Dense(features, kernel_init=uniform(bound), bias_init=uniform(bound), name=name)


def uniform(bound: float) -> nn.initializers.Initializer:
    """An initialiser that draws from U(-bound, bound)."""

    def init(
        key: Array, shape: tuple[int, ...], dtype: object = jnp.float32, **sharding: object
    ) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)  # type: ignore[arg-type]

    return init


def hypernetwork(fan_in: int, hidden_dim: int, features: int) -> nn.Sequential:
    """Two layers that make the weights of another network from the state.

    Args:
      fan_in: size of the state.
      hidden_dim: units between the two layers.
      features: how many weights it makes.
    """
    return nn.Sequential([dense(hidden_dim, fan_in), nn.relu, dense(features, hidden_dim)])
