"""Utility networks: from an agent's observations to the values of its own actions."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.errors import UserError
from jaxvff.core.types import Array, EnvSpec, Params, Segment
from jaxvff.networks.dense import dense, uniform
from jaxvff.networks.gru import remember
from jaxvff.networks.heads import Given, Head, attached

CHANNELS = 32  # of a convolution, as in JaxMARL's baselines for overcooked


def normalised(norm: str, x: Array) -> Array:
    """`x[..., H]` as a layer hands it on; for use in a compact method."""
    return nn.LayerNorm()(x) if norm == "layer" else x


class Mlp(nn.Module):
    """Two layers of size `hidden_dim`, then a head; it remembers nothing."""

    n_actions: int
    hidden_dim: int = 64
    head: Head = attached
    norm: str = "none"  # a name in networks.options.NORMS

    @nn.compact
    def __call__(
        self, before: Array, x: Array, is_first: Array, given: Given | None = None
    ) -> tuple[Array, Array, Array]:
        """T slots of a sequence, side by side.

        Args:
          before: the memory before them, `[..., H]`; not used.
          x: inputs, `[T, ..., I]`.
          is_first: `[T]` bool, the first steps of episodes; not used.
          given: for the head, fields `[T, ..., size]`.

        Returns:
          `before` for every slot, and the head's `(q[T, ..., U], features[T, ..., any])`.
        """
        features = nn.relu(normalised(self.norm, dense(self.hidden_dim, x.shape[-1])(x)))
        features = dense(self.hidden_dim, self.hidden_dim)(features)
        features = nn.relu(normalised(self.norm, features))
        memories = jnp.broadcast_to(before, (*x.shape[:-1], self.hidden_dim))
        return memories, *self.head(x, features, self.n_actions, given)


class Cnn(nn.Module):
    """Convolutions over an image, a layer of size `hidden_dim`, then a head; it remembers nothing.

    Two convolutions of 3x3 cells with 32 channels each, zeros beyond the edge. What else is among
    the inputs, the last action and the agent's id, joins them in the layer after that.
    """

    n_actions: int
    hidden_dim: int = 64
    head: Head = attached
    norm: str = "none"  # a name in networks.options.NORMS; over the channels of a cell
    image: tuple[int, ...] = ()  # [height, width, channels], the first entries of an input

    @nn.compact
    def __call__(
        self, before: Array, x: Array, is_first: Array, given: Given | None = None
    ) -> tuple[Array, Array, Array]:
        """T slots of a sequence, side by side.

        Args:
          before: the memory before them, `[..., H]`; not used.
          x: inputs, `[T, ..., I]`: an image, flattened, then what else there is.
          is_first: `[T]` bool, the first steps of episodes; not used.
          given: for the head, fields `[T, ..., size]`.

        Returns:
          `before` for every slot, and the head's `(q[T, ..., U], features[T, ..., any])`.
        """
        rows, n_pixels = x.shape[:-1], math.prod(self.image)
        seen = x[..., :n_pixels].reshape(*rows, *self.image)
        for _ in range(2):
            around = neighbours(seen)
            seen = dense(CHANNELS, around.shape[-1])(around)
            seen = nn.relu(normalised(self.norm, seen))
        seen = seen.reshape(*rows, n_pixels // self.image[-1] * CHANNELS)
        seen = jnp.concatenate([seen, x[..., n_pixels:]], axis=-1)
        features = dense(self.hidden_dim, seen.shape[-1])(seen)
        features = nn.relu(normalised(self.norm, features))
        memories = jnp.broadcast_to(before, (*rows, self.hidden_dim))
        return memories, *self.head(x, features, self.n_actions, given)


def neighbours(image: Array) -> Array:
    """Every cell with the eight around it, row by row; zeros beyond the edge.

    A dense layer on them is a convolution. With parameters that differ between lanes it stays a
    product of matrices, where XLA would make a grouped convolution, which is slow on CPUs.

    Args:
      image: `[..., height, width, C]`.

    Returns:
      `[..., height, width, 9 C]`.
    """
    height, width = image.shape[-3:-1]
    padded = jnp.pad(image, [(0, 0)] * (image.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    shifted = [padded[..., i : i + height, j : j + width, :] for i in range(3) for j in range(3)]
    return jnp.concatenate(shifted, axis=-1)


class Gru(nn.Module):
    """A layer, a gated recurrent unit, then a head (PyMARL's agent)."""

    n_actions: int
    hidden_dim: int = 64
    head: Head = attached
    norm: str = "none"  # a name in networks.options.NORMS

    @nn.compact
    def __call__(
        self, before: Array, x: Array, is_first: Array, given: Given | None = None
    ) -> tuple[Array, Array, Array]:
        """T slots of a sequence, one after the other.

        Args:
          before: the memory before them, `[..., H]`.
          x: inputs, `[T, ..., I]`.
          is_first: `[T]` bool, the first steps of episodes, before which nothing is remembered.
          given: for the head, fields `[T, ..., size]`.

        Returns:
          The memory after every slot, `[T, ..., H]`, and the head's
          `(q[T, ..., U], features[T, ..., any])`.
        """
        size, init = self.hidden_dim, uniform(self.hidden_dim**-0.5)
        seen = nn.relu(normalised(self.norm, dense(size, x.shape[-1])(x)))
        memories = remember(
            self.param("memory_kernel", init, (size, 3 * size)),
            self.param("memory_bias", init, (size,)),
            dense(3 * size, size, name="gates")(seen),
            is_first,
            before,
        )
        return memories, *self.head(x, memories, self.n_actions, given)


Network: TypeAlias = Mlp | Cnn | Gru


def network(kind: type[Network], spec: EnvSpec, hidden_dim: int, head: Head, norm: str) -> Network:
    """A network of a kind in networks.options.UTILITIES.

    Args:
      kind: what the table has.
      spec: of the environment.
      hidden_dim: H.
      head: from features to values.
      norm: a name in networks.options.NORMS.

    Raises:
      UserError: it looks at images, and observations are none.
    """
    if kind is not Cnn:
        return kind(spec.n_actions, hidden_dim, head, norm)
    if len(spec.obs_shape) != 3 or math.prod(spec.obs_shape) != spec.obs_size:
        raise UserError(
            f"utility=cnn needs observations that are images, and this environment shows "
            f"{spec.obs_size} numbers with obs_shape={spec.obs_shape}; take utility=mlp or gru, or "
            "have your environment say EnvSpec.obs_shape=(height, width, channels)"
        )
    return Cnn(spec.n_actions, hidden_dim, head, norm, spec.obs_shape)


class Utility(NamedTuple):
    """The utility networks of all agents, as pure functions of a parameter tree."""

    net: Network
    spec: EnvSpec
    shared: bool  # one set of parameters for all agents
    agent_id: bool  # a one-hot agent id among the inputs
    last_action: bool  # the agent's previous action, one-hot, among the inputs
    context_size: int = 0  # C, what the method draws for an episode; 0: nothing

    def init(self, key: Array) -> Params:
        """Parameters; with `shared=False` every leaf has a leading axis [A]."""
        spec = self.spec
        nothing = jnp.zeros((spec.n_agents, spec.obs_size))
        x = self.inputs(nothing, jnp.zeros(spec.n_agents, int), jnp.array(True))[None]
        carry, blank = self.initial_carry(), self.blank_context()
        given = self._given(None if blank is None else blank[None])
        is_first = jnp.array([True])
        if self.shared:
            return self.net.init(key, carry, x, is_first, given)
        keys = jax.random.split(key, spec.n_agents)
        return jax.vmap(self.net.init, (0, 0, 1, None, 1))(keys, carry, x, is_first, given)

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
        first = None if context is None else context[None]
        out = self._apply(params, carry, x[None], jnp.array([False]), first)
        return jax.tree.map(lambda z: z[0], out)

    def _apply(
        self, params: Params, before: Array, x: Array, is_first: Array, context: Array | None
    ) -> tuple[Array, Array, Array]:
        """T slots of all agents; the networks say what goes in and comes out."""
        given = self._given(context)
        if self.shared:
            return self.net.apply(params, before, x, is_first, given)  # type: ignore[return-value]
        apply = jax.vmap(self.net.apply, (0, 0, 1, None, 1), 1)
        return apply(params, before, x, is_first, given)  # type: ignore[return-value]

    def _given(self, context: Array | None) -> Given | None:
        """What the heads of all agents are given of the contexts `[T, C]` of T slots."""
        if context is None:
            return None
        n, n_slots = self.spec.n_agents, len(context)
        agents = jnp.broadcast_to(jnp.eye(n, dtype=context.dtype), (n_slots, n, n))
        return Given(jnp.repeat(context[:, None], n, axis=1), agents)

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
        before = self.initial_carry()
        if segment.before is not None:
            before = segment.before.carry
            previous = previous.at[0].set(segment.before.last_action)
        xs = jax.vmap(self.inputs)(segment.obs, previous, segment.is_first)
        return self._apply(params, before, xs, segment.is_first, segment.context)[1:]
