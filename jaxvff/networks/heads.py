"""Heads: from the features of a utility network to one value per action.

A head is called inside a flax module's compact call, and its layers belong to that module.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.types import Array
from jaxvff.networks.contexts import REWARDS, split_tasks
from jaxvff.networks.dense import dense


class Given(NamedTuple):
    """What a head is given of the episode, where a method draws a context."""

    context: Array  # [..., C], the same for all agents
    agent: Array  # [..., A] one-hot, whether or not the network's input has it


# (input of the network [..., I], its features [..., H], U, what a method draws, if it does) ->
# (values of the actions [..., U], features that mixer and loss see [..., any size])
Head = Callable[[Array, Array, int, Given | None], tuple[Array, Array]]


def attached(
    x: Array, features: Array, n_actions: int, given: Given | None = None
) -> tuple[Array, Array]:
    """One dense layer on the features: what trains the values shapes the features, too.

    Args:
      x: input of the network, `[..., I]`; not used.
      features: what the network made of it, `[..., H]`.
      n_actions: U.
      given: not used.

    Returns:
      Values of the actions, `[..., U]`, and the features as they are.
    """
    return dense(n_actions, features.shape[-1])(features), features


def detached(
    x: Array, features: Array, n_actions: int, given: Given | None = None
) -> tuple[Array, Array]:
    """Two layers of their own, which hand no gradient back to the features.

    What trains the values leaves the features alone. The layers see the input as well: a mixer
    that knows the state leaves out of the features what agents have to see for themselves. The
    activation is a leaky ReLU: the inputs of an agent that sees nothing but its own id never
    change, and a unit that is dead for them would stay dead.

    Args:
      x: input of the network, `[..., I]`.
      features: what the network made of it, `[..., H]`.
      n_actions: U.
      given: not used.

    Returns:
      Values of the actions, `[..., U]`, and the features as they are.
    """
    size = features.shape[-1]
    seen = jnp.concatenate([jax.lax.stop_gradient(features), x], axis=-1)
    hidden = nn.leaky_relu(dense(size, seen.shape[-1])(seen))
    return dense(n_actions, size)(hidden), features


def by_latent(
    x: Array, features: Array, n_actions: int, given: Given | None
) -> tuple[Array, Array]:
    """MAVEN's: a linear layer whose weights one layer makes of the latent and the agent's id.

      q = W(z, agent) h,

    without biases, for features h. So a latent changes the values of all actions in all states.

    Args:
      x: input of the network, `[..., I]`; not used.
      features: h, `[..., H]`.
      n_actions: U.
      given: its context is z.

    Returns:
      Values of the actions, `[..., U]`, and the features as they are.

    Source: Mahajan et al. (2019), §4 and figure 2 (utilities by a hypernetwork of z and the agent's
    id); modules/agents/noise_rnn_agent.py of their code (commit be975c5).
    """
    z = jnp.concatenate([_needed(given).context, _needed(given).agent], axis=-1)
    weights = dense(n_actions * features.shape[-1], z.shape[-1])(z)
    weights = weights.reshape(*z.shape[:-1], n_actions, features.shape[-1])
    return jnp.einsum("...uh,...h->...u", weights, features), features


def successor(
    x: Array, features: Array, n_actions: int, given: Given | None
) -> tuple[Array, Array]:
    """UneVEn's: successor features of the policies of K tasks, and values by policy improvement.

    ψ(u; w_j), of the policy of task j, is made by two layers of the features and w_j. The values to
    act by are those of generalised policy improvement, over the policies of all tasks, for the
    tasks that the team acts for:

      q(u) = max_k max_j ψ(u; w_j) · w_k, with j among all K tasks and k among those acted for.

    Args:
      x: input of the network, `[..., I]`; not used.
      features: what the network made of it, `[..., H]`.
      n_actions: U.
      given: its context is what contexts.RelatedTasks draws.

    Returns:
      Values `[..., U]`, and ψ for features: `[..., K · U · 2]`, see `successor_features`.

    Source: Gupta et al. (2021), the multi-agent universal successor features of §4.
    """
    tasks, acts_for = split_tasks(_needed(given).context)
    size, n_tasks = features.shape[-1], tasks.shape[-2]
    told = jnp.tile(features[..., None, :], (n_tasks, 1))
    told = jnp.concatenate([told, tasks], axis=-1)
    hidden = nn.relu(dense(size, told.shape[-1])(told))
    psi = dense(n_actions * REWARDS, size)(hidden).reshape(*tasks.shape[:-1], n_actions, REWARDS)
    values = jnp.einsum("...jud,...kd->...kju", psi, tasks)
    values = jnp.where(acts_for[..., None, None] > 0, values, -jnp.inf)
    return jnp.max(values, axis=(-3, -2)), psi.reshape(*features.shape[:-1], -1)


def successor_features(features: Array, n_tasks: int) -> Array:
    """ψ `[..., K, U, 2]` of the features that `successor` returns."""
    return features.reshape(*features.shape[:-1], n_tasks, -1, REWARDS)


def _needed(given: Given | None) -> Given:
    """What a head that knows the context is given."""
    if given is None:
        raise ValueError("this head needs a context: give the method a `context`")
    return given
