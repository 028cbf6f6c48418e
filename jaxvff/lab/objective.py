"""What a trajectory minimises: the policies, the expected loss under one, and its gradients."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.errors import check_name
from jaxvff.core.types import Array
from jaxvff.lab.tabular_model import TabularModel

Scalar: TypeAlias = Array | float
POLICIES = ("uniform", "softmax", "epsilon_greedy")


class Policy(NamedTuple):
    """How every agent draws its action: a mixture of three distributions, weights adding to 1.

    One type serves all policies and has nothing but numbers, which a program may trace. A table of
    temperatures and of exploration rates is therefore one compiled program.
    """

    uniform: Scalar  # weight of the uniform distribution
    softmax: Scalar  # weight of the softmax of the utilities
    greedy: Scalar  # weight of the greedy action
    temperature: Scalar  # of the softmax part, in units of the utilities

    @staticmethod
    def of(kind: str, level: float = 1.0) -> Policy:
        """`uniform`, `softmax` at a temperature, or `epsilon_greedy` at an exploration rate."""
        check_name(kind, POLICIES, "policy")
        if kind == "uniform":
            return Policy(1.0, 0.0, 0.0, 1.0)
        if kind == "softmax":
            return Policy(0.0, 1.0, 0.0, level)
        return Policy(level, 0.0, 1.0 - level, 1.0)


def greedy_actions(model: TabularModel, x: Array) -> Array:
    """The greedy joint action `[A]`.

    Where utilities tie or are NaN it is action 0; `greedy_margins` tells.
    """
    return jnp.argmax(model.utilities(x), axis=-1)


def greedy_margins(q: Array, chosen: Array) -> Array:
    """How far each agent's chosen action is above its best other one.

    Args:
      q: utilities `[A, U]`.
      chosen: actions `[A]` int.

    Returns:
      Differences `[A]`; negative where another action is better.
    """
    is_chosen = jnp.arange(q.shape[-1]) == chosen[:, None]
    others = jnp.max(jnp.where(is_chosen, -jnp.inf, q), axis=-1)
    return jnp.sum(jnp.where(is_chosen, q, 0.0), axis=-1) - others


def joint_probs(model: TabularModel, policy: Policy, q: Array, chosen: Array) -> Array:
    """μ(a) = Π_i π_i(a_i) of every joint action (eq. 13).

    Args:
      model: the factorised value.
      policy: of every agent.
      q: utilities `[A, U]`.
      chosen: what the greedy part of the policy takes, `[A]` int.

    Returns:
      Probabilities `[M]`.
    """
    one_hot = jax.nn.one_hot(chosen, model.n_actions, dtype=q.dtype)
    soft = jax.nn.softmax(q / policy.temperature, axis=-1)
    probs = policy.uniform / model.n_actions + policy.softmax * soft + policy.greedy * one_hot
    return jnp.prod(probs[np.arange(model.n_agents), model.joint_actions()], axis=-1)


def expected_loss(
    model: TabularModel, payoff: Array, policy: Policy, x: Array, chosen: Array
) -> Array:
    """L(x) = Σ_a μ(a; q) (y(a) - Q_tot(a; x))² (eq. 9 and 14).

    Args:
      model: the factorised value.
      payoff: y, `[U] * A`, env units.
      policy: of the behaviour, which makes μ.
      x: `[D]`.
      chosen: the greedy joint action `[A]`, held constant.

    Returns:
      The loss `[]`, env units squared.
    """
    mu = joint_probs(model, policy, model.utilities(x), chosen)
    return jnp.sum(mu * (payoff.ravel() - model.q_tot(x)) ** 2)


def gradient(
    model: TabularModel,
    payoff: Array,
    policy: Policy,
    x: Array,
    chosen: Array,
    *,
    policy_term: Scalar,
) -> Array:
    """The gradient that a trajectory descends (eq. 16).

      ∇L = -2 Σ_a μ(a) r(a) ∇Q(a) + policy_term · Σ_a r(a)² ∇μ(a),  r = y - Q

    Args:
      model: the factorised value.
      payoff: y, `[U] * A`, env units.
      policy: of the behaviour, which makes μ.
      x: `[D]`.
      chosen: the greedy joint action `[A]`, constant but at its jumps.
      policy_term: its factor. 1: the gradient of eq. 14. 0: the semi-gradient, with the policy held
        fixed, which Q-learning follows.

    Returns:
      `[D]`, zero in what the model does not move.
    """

    def descended(z: Array) -> Array:
        mu = joint_probs(model, policy, model.utilities(z), chosen)
        fixed = jax.lax.stop_gradient(mu)
        weight = fixed + policy_term * (mu - fixed)
        return jnp.sum(weight * (payoff.ravel() - model.q_tot(z)) ** 2)

    return moving_part(model, jax.grad(descended)(x))


def moving_part(model: TabularModel, direction: Array) -> Array:
    """A direction `[..., D]`, with zeros where the model does not move."""
    return jnp.where(jnp.arange(model.size) < model.n_moving, direction, 0.0)
