"""Utility networks: from an agent's observations to the values of its own actions."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.scan import scan
from jaxvff.types import Array, EnvSpec, Segment


def linear(features: int, fan_in: int, name: str | None = None) -> nn.Dense:
    """A dense layer with weights and biases drawn from U(-1/√fan_in, 1/√fan_in).

    This is PyTorch's default, hence the initialisation of every PyMARL result. It needs no
    orthogonal matrices on purpose: batched QR under vmap can deadlock XLA's CPU thread pool.
    """
    bound = fan_in**-0.5
    return nn.Dense(features, kernel_init=uniform(bound), bias_init=uniform(bound), name=name)


def uniform(bound: float) -> nn.initializers.Initializer:
    """An initialiser that draws from U(-bound, bound)."""

    def init(key: Array, shape: Any, dtype: Any = jnp.float32, **_: Any) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def action_values(x: Array, features: Array, n_actions: int, detached: bool) -> Array:
    """One value per action, `[..., U]`, inside a module's compact call.

    Detached, they come from two layers of their own that see the network's input and its features,
    and hand no gradient back: what trains the values leaves the features alone, and may weigh as
    much as it likes. The input as well: a mixer that knows the state leaves out of the features
    what agents have to see for themselves. Leaky, since the units of agents that see nothing but
    who they are would stay dead.

    Args:
      x: input of the network, `[..., I]`.
      features: what it made of it, `[..., H]`.
      n_actions: U.
      detached: whether the values are.
    """
    n = features.shape[-1]
    if detached:
        seen = jnp.concatenate([jax.lax.stop_gradient(features), x], axis=-1)
        features = nn.leaky_relu(linear(n, seen.shape[-1])(seen))
    return linear(n_actions, n)(features)


class Mlp(nn.Module):
    """Two layers of size `hidden_dim`, then one value per action; it remembers nothing."""

    n_actions: int
    hidden_dim: int = 64
    detached: bool = False  # see `action_values`

    @nn.compact
    def __call__(self, carry: Array, x: Array) -> tuple[Array, Array, Array]:
        """`carry[..., H]`, `x[..., I]` -> `(carry, q[..., U], features[..., H])`."""
        features = nn.relu(linear(self.hidden_dim, x.shape[-1])(x))
        features = nn.relu(linear(self.hidden_dim, self.hidden_dim)(features))
        return carry, action_values(x, features, self.n_actions, self.detached), features


class Gru(nn.Module):
    """A layer, a GRU cell, then one value per action (PyMARL's agent)."""

    n_actions: int
    hidden_dim: int = 64
    detached: bool = False  # see `action_values`

    @nn.compact
    def __call__(self, carry: Array, x: Array) -> tuple[Array, Array, Array]:
        """`carry[..., H]`, `x[..., I]` -> `(carry, q[..., U], features[..., H])`."""
        init = uniform(self.hidden_dim**-0.5)
        seen = nn.relu(linear(self.hidden_dim, x.shape[-1])(x))
        cell = nn.GRUCell(
            self.hidden_dim, kernel_init=init, recurrent_kernel_init=init, bias_init=init
        )
        carry, _ = cell(carry, seen)
        return carry, action_values(x, carry, self.n_actions, self.detached), carry


UTILITIES: dict[str, type[nn.Module]] = {"mlp": Mlp, "gru": Gru}


class Utility(NamedTuple):
    """The utility networks of all agents, as pure functions of a parameter tree."""

    net: nn.Module
    spec: EnvSpec
    hidden_dim: int
    shared: bool  # one set of parameters for all agents
    agent_id: bool  # a one-hot agent id among the inputs
    last_action: bool  # the agent's previous action, one-hot, among the inputs

    def init(self, key: Array) -> Any:
        """Parameters; with `shared=False` every leaf has a leading axis [A]."""
        a = self.spec.n_agents
        carry, x = self.initial_carry(), self.inputs(*self._no_input())
        if self.shared:
            return self.net.init(key, carry, x)
        return jax.vmap(self.net.init)(jax.random.split(key, a), carry, x)

    def initial_carry(self) -> Array:
        """The memory at the start of an episode: zeros `[A, H]`."""
        return jnp.zeros((self.spec.n_agents, self.hidden_dim))

    def step(self, params: Any, carry: Array, x: Array) -> tuple[Array, Array, Array]:
        """One step: `carry[A, H]`, `x[A, I]` -> `(carry, q[A, U], features[A, H])`."""
        if self.shared:
            return self.net.apply(params, carry, x)  # type: ignore[return-value]
        return jax.vmap(self.net.apply)(params, carry, x)  # type: ignore[return-value]

    def inputs(self, obs: Array, last_action: Array, is_first: Array) -> Array:
        """`obs[A, O]`, `last_action[A]`, `is_first[]` -> network inputs `[A, I]`.

        The first step of an episode has no last action: zeros.
        """
        parts = [obs]
        if self.last_action:
            parts.append(jax.nn.one_hot(last_action, self.spec.n_actions) * ~is_first)
        if self.agent_id:
            parts.append(jnp.eye(self.spec.n_agents, dtype=obs.dtype))
        return jnp.concatenate(parts, axis=-1)

    def unroll(self, params: Any, segment: Segment) -> tuple[Array, Array]:
        """All slots of a segment: `(q[T, A, U], features[T, A, H])`; memory restarts at is_first.

        The carry is left out of the loop's inputs where the network keeps none, so that slots are
        computed side by side.
        """
        previous = jnp.roll(segment.action, 1, axis=0)  # slot 0 is_first: its value is not used
        xs = jax.vmap(self.inputs)(segment.obs, previous, segment.is_first)
        initial = self.initial_carry()
        if isinstance(self.net, Mlp):
            _, q, features = jax.vmap(self.step, (None, None, 0))(params, initial, xs)
            return q, features

        # Backwards, a slot is computed again rather than read back: ten arrays [T, A, H] of memory
        # less per segment, and no slower on a CPU (docs/design.md).
        @jax.checkpoint
        def slot(carry: Array, x: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
            inputs, is_first = x
            carry = jnp.where(is_first, initial, carry)
            carry, q, features = self.step(params, carry, inputs)
            return carry, (q, features)

        return scan(slot, initial, (xs, segment.is_first))[1]

    def _no_input(self) -> tuple[Array, Array, Array]:
        spec = self.spec
        obs = jnp.zeros((spec.n_agents, spec.obs_size))
        return obs, jnp.zeros(spec.n_agents, int), jnp.array(True)
