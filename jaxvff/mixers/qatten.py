"""Qatten: attention over the agents weighs the utilities, in several heads."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.networks.dense import dense, hypernetwork


class Qatten(nn.Module):
    """Q_tot = Σ_h |w_h(s)| Σ_i λ_{h,i}(s) Q_i + c(s); λ_h is a softmax over the agents.

    Source: Yang et al. (2020), with PyMARL2's layer sizes. An agent's key is made from its own
    entries of the state where the environment says where they are; elsewhere, unlike PyMARL2,
    which then cannot run, from its one-hot id.
    """

    spec: EnvSpec
    embed_dim: int = option(32, "size of a query and a key", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    n_heads: int = option(4, "attention heads", low=1, high=256)

    def setup(self) -> None:
        s, own = self.spec.state_size, self.spec.agent_state_size or self.spec.n_agents
        heads = range(self.n_heads)
        self.query = [hypernetwork(s, self.hypernet_dim, self.embed_dim) for _ in heads]
        self.key = [dense(self.embed_dim, own) for _ in heads]
        self.head_weight = hypernetwork(s, self.hypernet_dim, self.n_heads)
        self.constant = hypernetwork(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        own = self._own_features(step.state)
        query = jnp.stack([f(step.state) for f in self.query])  # [heads, E]
        key = jnp.stack([f(own) for f in self.key])  # [heads, A, E]
        logits = jnp.einsum("he,hae->ha", query, key) / jnp.sqrt(self.embed_dim)
        q_head = jax.nn.softmax(logits, axis=-1) @ step.q_taken
        return jnp.abs(self.head_weight(step.state)) @ q_head + self.constant(step.state)[0]

    def _own_features(self, state: Array) -> Array:
        a, own = self.spec.n_agents, self.spec.agent_state_size
        return state[: a * own].reshape(a, own) if own else jnp.eye(a, dtype=state.dtype)
