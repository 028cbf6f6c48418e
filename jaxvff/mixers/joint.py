"""An unconstrained joint value that can be searched, alone or beside NM-QMIX."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.mixers.qmix import Qmix
from jaxvff.mixers.searchable import SearchableValue
from jaxvff.networks.dense import dense, hypernetwork


class Joint(nn.Module):
    """Q(a) = Σ_i own_i(a_i) + QMIX's network, without its constraint, over embeddings + a list.

    Every agent's features become, for each of its actions, one number `own` that is added as it
    is, and an embedding of `action_dim` numbers that the mixing network takes in. The utilities
    are no part of it, so a change of their order never costs fit. The sum lets agents share what
    they learn in every state; the network alone has to learn it for each agent and state apart.

    The list (only where there are `max_listed` joint actions or fewer) gives each joint action
    `action_dim` numbers that the state weighs and one that is added in any state, all zero at
    first: a joint-action learner (Claus & Boutilier, 1998). Independent payoffs need as many
    numbers as there are payoffs. Where payoffs have structure a list did not help, and its noise
    disturbed the order of the utilities (docs/decisions.md); hence there is none by default.
    """

    spec: EnvSpec
    hidden_dim: int  # H, of the utility networks
    embed_dim: int = option(32, "units of the mixing layer", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    action_dim: int = option(
        4, "numbers that describe an action to the mixing layer", low=1, high=MAX_WIDTH
    )
    max_listed: int = option(1, "most joint actions for which a list is kept; 1: no list", low=1)

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
        if self._has_list:
            shape = (self.spec.n_actions**a, self.action_dim + 1)
            self.list = self.param("list", nn.initializers.zeros, shape)
            self.hyper_list = hypernetwork(s, self.hypernet_dim, self.action_dim)
        self.embed = dense(self.spec.n_actions * (self.action_dim + 1), self.hidden_dim)
        self.hyper_w1 = hypernetwork(s, self.hypernet_dim, a * self.action_dim * self.embed_dim)
        self.hyper_b1 = dense(self.embed_dim, s)
        self.hyper_w2 = hypernetwork(s, self.hypernet_dim, self.embed_dim)
        self.hyper_b2 = hypernetwork(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the joint value `[]`."""
        embedded, own = self._embeddings(step.features)
        taken = jnp.einsum("au,aud->ad", step.action, embedded)
        total = self.hyper_b1(step.state) + jnp.einsum("ad,ade->e", taken, self._w1(step.state))
        together = nn.elu(total) @ self.hyper_w2(step.state)
        value = together + jnp.sum(step.action * own) + self.hyper_b2(step.state)[0]
        if not self._has_list:
            return value
        index = jnp.argmax(step.action, axis=-1) @ self._strides
        return value + self.list[index] @ self._list_weight(step.state)

    def joint_value(self, step: JointStep) -> Array:
        """One step -> the joint value `[]` that is searched: its own."""
        return self(step)

    def searchable(self, features: Array, state: Array) -> SearchableValue:
        """`features[A, H]`, `state[S]` -> the joint value for all joint actions of one step."""
        embedded, own = self._embeddings(features)
        parts = jnp.einsum("aud,ade->aue", embedded, self._w1(state))
        index = self._strides[:, None] * jnp.arange(self.spec.n_actions)
        parts = jnp.concatenate([parts, own[..., None], index[..., None]], axis=-1)
        return SearchableValue(
            parts=parts,
            bias=jnp.append(self.hyper_b1(state), jnp.zeros(2)),
            out=self.hyper_w2(state),
            offset=self.hyper_b2(state)[0],
            list_rows=self.list if self._has_list else None,
            list_weight=self._list_weight(state) if self._has_list else None,
        )

    @property
    def _has_list(self) -> bool:
        return bool(self.spec.n_actions**self.spec.n_agents <= self.max_listed)

    @property
    def _strides(self) -> np.ndarray:
        """Index of a joint action in the list = actions @ strides; zeros without a list."""
        n = self.spec.n_agents
        return self.spec.n_actions ** np.arange(n) if self._has_list else np.zeros(n, int)

    def _list_weight(self, state: Array) -> Array:
        return jnp.append(self.hyper_list(state), 1.0)

    def _embeddings(self, features: Array) -> tuple[Array, Array]:
        """`features[A, H]` -> embeddings `[A, U, D]`, and the numbers that are added `[A, U]`."""
        shape = (self.spec.n_agents, self.spec.n_actions, self.action_dim + 1)
        both = self.embed(features).reshape(shape)
        return both[..., 1:], both[..., 0]

    def _w1(self, state: Array) -> Array:
        shape = (self.spec.n_agents, self.action_dim, self.embed_dim)
        return self.hyper_w1(state).reshape(shape)


class QmixWithJoint(nn.Module):
    """NM-QMIX, and beside it a Joint that is searched."""

    spec: EnvSpec
    hidden_dim: int  # H, of the utility networks
    embed_dim: int = option(32, "units of both mixing layers", low=1, high=MAX_WIDTH)
    hypernet_dim: int = option(64, "units of the hypernetworks", low=1, high=MAX_WIDTH)
    action_dim: int = option(
        4, "numbers that describe an action to the mixing layer", low=1, high=MAX_WIDTH
    )
    max_listed: int = option(1, "most joint actions for which a list is kept; 1: no list", low=1)

    def setup(self) -> None:
        sizes = (self.embed_dim, self.hypernet_dim)
        self.qmix = Qmix(self.spec, *sizes, monotonic=False)
        self.joint = Joint(self.spec, self.hidden_dim, *sizes, self.action_dim, self.max_listed)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`, of the utilities."""
        if self.is_initializing():
            self.joint(step)
        return self.qmix(step)

    def joint_value(self, step: JointStep) -> Array:
        """One step -> the joint value `[]` that is searched: the Joint's."""
        return self.joint(step)

    def searchable(self, features: Array, state: Array) -> SearchableValue:
        """`features[A, H]`, `state[S]` -> the Joint's value for all joint actions of one step."""
        return self.joint.searchable(features, state)
