"""Utility networks: from an agent's observations to the values of its own actions."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.scan import scan
from jaxvff.core.types import Array, EnvSpec, Params, Segment
from jaxvff.networks.dense import dense, uniform
from jaxvff.networks.heads import Given, Head, attached


def normalised(norm: str, x: Array) -> Array:
    """`x[..., H]` as a layer hands it on; for use in a compact method."""
    return nn.LayerNorm()(x) if norm == "layer" else x


class Mlp(nn.Module):
    """Two layers of size `hidden_dim`, then a head; it remembers nothing."""

    recurrent: ClassVar[bool] = False
    n_actions: int
    hidden_dim: int = 64
    head: Head = attached
    norm: str = "none"  # a name in networks.options.NORMS

    @nn.compact
    def __call__(
        self, carry: Array, x: Array, given: Given | None = None
    ) -> tuple[Array, Array, Array]:
        """`carry[..., H]`, `x[..., I]` -> `(carry, q[..., U], features)`, see heads.Head."""
        features = nn.relu(normalised(self.norm, dense(self.hidden_dim, x.shape[-1])(x)))
        features = dense(self.hidden_dim, self.hidden_dim)(features)
        features = nn.relu(normalised(self.norm, features))
        return carry, *self.head(x, features, self.n_actions, given)


class Gru(nn.Module):
    """A layer, a GRU cell, then a head (PyMARL's agent)."""

    recurrent: ClassVar[bool] = True
    n_actions: int
    hidden_dim: int = 64
    head: Head = attached
    norm: str = "none"  # a name in networks.options.NORMS

    @nn.compact
    def __call__(
        self, carry: Array, x: Array, given: Given | None = None
    ) -> tuple[Array, Array, Array]:
        """`carry[..., H]`, `x[..., I]` -> `(carry, q[..., U], features)`, see heads.Head."""
        init = uniform(self.hidden_dim**-0.5)
        seen = nn.relu(normalised(self.norm, dense(self.hidden_dim, x.shape[-1])(x)))
        cell = nn.GRUCell(
            self.hidden_dim, kernel_init=init, recurrent_kernel_init=init, bias_init=init
        )
        carry, _ = cell(carry, seen)
        return carry, *self.head(x, carry, self.n_actions, given)


class Utility(NamedTuple):
    """The utility networks of all agents, as pure functions of a parameter tree."""

    net: Mlp | Gru
    spec: EnvSpec
    shared: bool  # one set of parameters for all agents
    agent_id: bool  # a one-hot agent id among the inputs
    last_action: bool  # the agent's previous action, one-hot, among the inputs
    context_size: int = 0  # C, what the method draws for an episode; 0: nothing

    def init(self, key: Array) -> Params:
        """Parameters; with `shared=False` every leaf has a leading axis [A]."""
        spec = self.spec
        nothing = jnp.zeros((spec.n_agents, spec.obs_size))
        x = self.inputs(nothing, jnp.zeros(spec.n_agents, int), jnp.array(True))
        carry, given = self.initial_carry(), self._given(self.blank_context())
        if self.shared:
            return self.net.init(key, carry, x, given)
        return jax.vmap(self.net.init)(jax.random.split(key, spec.n_agents), carry, x, given)

    def initial_carry(self) -> Array:
        """The memory at the start of an episode: zeros `[A, H]`."""
        return jnp.zeros((self.spec.n_agents, self.net.hidden_dim))

    def blank_context(self) -> Array | None:
        """A context before one is drawn: zeros `[C]`; None of a method that draws nothing."""
        return jnp.zeros(self.context_size) if self.context_size else None

    def step(
        self, params: Params, carry: Array, x: Array, context: Array | None
    ) -> tuple[Array, Array, Array]:
        """One step: `carry[A, H]`, `x[A, I]`, `context[C]` -> `(carry, q[A, U], features)`."""
        given = self._given(context)
        if self.shared:
            return self.net.apply(params, carry, x, given)  # type: ignore[return-value]
        return jax.vmap(self.net.apply)(params, carry, x, given)  # type: ignore[return-value]

    def _given(self, context: Array | None) -> Given | None:
        """What the heads of all agents are given of a context `[C]`."""
        if context is None:
            return None
        agents = jnp.eye(self.spec.n_agents, dtype=context.dtype)
        return Given(jnp.tile(context, (self.spec.n_agents, 1)), agents)

    def inputs(self, obs: Array, last_action: Array, is_first: Array) -> Array:
        """What the networks of the team see.

        Args:
          obs: `[A, O]`.
          last_action: `[A]` int.
          is_first: `[]` bool, the first step of an episode, whose last action counts as zeros.

        Returns:
          Inputs `[A, I]`.
        """
        agents = jnp.eye(self.spec.n_agents, dtype=obs.dtype)
        return self.inputs_of(agents, obs, last_action, is_first)

    def inputs_of(self, agent: Array, obs: Array, last_action: Array, is_first: Array) -> Array:
        """What the networks of some agents see: a row each, of one game or of several.

        Args:
          agent: which agent a row is, one-hot `[R, A]`.
          obs: `[R, O]`.
          last_action: `[R]` int.
          is_first: `[]` or `[R, 1]` bool.

        Returns:
          Inputs `[R, I]`.
        """
        parts = [obs]
        if self.last_action:
            parts.append(jax.nn.one_hot(last_action, self.spec.n_actions) * ~is_first)
        if self.agent_id:
            parts.append(agent)
        return jnp.concatenate(parts, axis=-1)

    def unroll(self, params: Params, segment: Segment) -> tuple[Array, Array]:
        """All slots of a segment; the memory goes on from `before`, and restarts at `is_first`.

        Args:
          params: from `init`.
          segment: T slots.

        Returns:
          `(q[T, A, U], features[T, A, H])`; a head may make other features of them.
        """
        previous = jnp.roll(segment.action, 1, axis=0)  # that of slot 0 is used only with `before`
        initial = before = self.initial_carry()
        if segment.before is not None:
            before = segment.before.carry
            previous = previous.at[0].set(segment.before.last_action)
        xs = jax.vmap(self.inputs)(segment.obs, previous, segment.is_first)
        if not self.net.recurrent:  # slots are computed side by side
            step = jax.vmap(self.step, (None, None, 0, 0))
            _, q, features = step(params, initial, xs, segment.context)
            return q, features

        # Backwards, a slot is computed again rather than read back: ten arrays [T, A, H] of memory
        # less per segment, and no slower on a CPU (docs/decisions.md).
        @jax.checkpoint
        def slot(
            carry: Array, x: tuple[Array, Array, Array | None]
        ) -> tuple[Array, tuple[Array, Array]]:
            inputs, is_first, context = x
            carry = jnp.where(is_first, initial, carry)
            carry, q, features = self.step(params, carry, inputs, context)
            return carry, (q, features)

        return scan(slot, before, (xs, segment.is_first, segment.context))[1]
