"""Heads: from the features of a utility network to one value per action.

A head is called inside a flax module's compact call, and its layers belong to that module.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.types import Array
from jaxvff.networks.dense import dense

# (input of the network [..., I], its features [..., H], U) -> values of the actions [..., U]
Head = Callable[[Array, Array, int], Array]


def attached(x: Array, features: Array, n_actions: int) -> Array:
    """One dense layer on the features: what trains the values shapes the features, too.

    Args:
      x: input of the network, `[..., I]`; not used.
      features: what the network made of it, `[..., H]`.
      n_actions: U.

    Returns:
      Values of the actions, `[..., U]`.
    """
    return dense(n_actions, features.shape[-1])(features)


def detached(x: Array, features: Array, n_actions: int) -> Array:
    """Two layers of their own, which hand no gradient back to the features.

    What trains the values leaves the features alone. The layers see the input as well: a mixer
    that knows the state leaves out of the features what agents have to see for themselves. The
    activation is a leaky ReLU: the inputs of an agent that sees nothing but its own id never
    change, and a unit that is dead for them would stay dead.

    Args:
      x: input of the network, `[..., I]`.
      features: what the network made of it, `[..., H]`.
      n_actions: U.

    Returns:
      Values of the actions, `[..., U]`.
    """
    size = features.shape[-1]
    seen = jnp.concatenate([jax.lax.stop_gradient(features), x], axis=-1)
    hidden = nn.leaky_relu(dense(size, seen.shape[-1])(seen))
    return dense(n_actions, size)(hidden)
