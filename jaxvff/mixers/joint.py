"""An unconstrained joint value that can be searched, alone or as the judge of NM-QMIX."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxvff.mixers.qmix import Qmix, hypernet
from jaxvff.nets import linear
from jaxvff.search import Table
from jaxvff.types import Array, EnvSpec, JointStep


class Joint(nn.Module):
    """VDN, QMIX's network without its constraint over embeddings of actions, and a list.

    Agent i hands over `action_dim` numbers for each of its actions, made from its features, and one
    more that is added as it is. Utilities are no part of it, so re-ordering them never stands in
    the way of the fit. The sum is what agents learn for one another in any state; alone, the
    network has to learn it for each agent and state apart.

    Where there are `max_listed` joint actions or fewer, each of them has `action_dim` numbers of
    its own as well, which the state weighs, and one that is added in any state, all zero at first:
    a joint-action learner (Claus & Boutilier, 1998). Payoffs without a structure that a network
    could find take as many numbers as there are payoffs; where there is one, a list did not help
    and its noise went into the order, hence none by default (docs/design.md).
    """

    spec: EnvSpec
    hidden_dim: int  # of the utility networks
    embed_dim: int = 32
    hypernet_dim: int = 64
    action_dim: int = 4
    max_listed: int = 1  # joint actions; 1: no list

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
        if self._has_list:
            shape = (self.spec.n_actions**a, self.action_dim + 1)
            self.list = self.param("list", nn.initializers.zeros, shape)
            self.hyper_list = hypernet(s, self.hypernet_dim, self.action_dim)
        self.embed = linear(self.spec.n_actions * (self.action_dim + 1), self.hidden_dim)
        self.hyper_w1 = hypernet(s, self.hypernet_dim, a * self.action_dim * self.embed_dim)
        self.hyper_b1 = linear(self.embed_dim, s)
        self.hyper_w2 = hypernet(s, self.hypernet_dim, self.embed_dim)
        self.hyper_b2 = hypernet(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the joint value `[]`."""
        embedded, own = self._embeddings(step.hidden)
        taken = jnp.einsum("au,aud->ad", step.action, embedded)
        total = self.hyper_b1(step.state) + jnp.einsum("ad,ade->e", taken, self._w1(step.state))
        together = nn.elu(total) @ self.hyper_w2(step.state)
        value = together + jnp.sum(step.action * own) + self.hyper_b2(step.state)[0]
        if not self._has_list:
            return value
        place = jnp.argmax(step.action, axis=-1) @ self._strides
        return value + self.list[place] @ self._list_weight(step.state)

    def table(self, hidden: Array, state: Array) -> Table:
        """All joint values of one step: `hidden[A, H]`, `state[S]`."""
        embedded, own = self._embeddings(hidden)
        parts = jnp.einsum("aud,ade->aue", embedded, self._w1(state))
        places = self._strides[:, None] * jnp.arange(self.spec.n_actions)
        parts = jnp.concatenate([parts, own[..., None], places[..., None]], axis=-1)
        return Table(
            parts=parts,
            bias=jnp.append(self.hyper_b1(state), jnp.zeros(2)),
            out=self.hyper_w2(state),
            offset=self.hyper_b2(state)[0],
            listed=self.list if self._has_list else None,
            weight=self._list_weight(state) if self._has_list else None,
        )

    def judge(self, step: JointStep) -> Array:
        """One step -> the joint value that is searched: its own."""
        return self(step)

    @property
    def _has_list(self) -> bool:
        return bool(self.spec.n_actions**self.spec.n_agents <= self.max_listed)

    @property
    def _strides(self) -> np.ndarray:
        """By which the actions are a joint action's place in the list; zeros without one."""
        n = self.spec.n_agents
        return self.spec.n_actions ** np.arange(n) if self._has_list else np.zeros(n, int)

    def _list_weight(self, state: Array) -> Array:
        return jnp.append(self.hyper_list(state), 1.0)

    def _embeddings(self, hidden: Array) -> tuple[Array, Array]:
        """Of `hidden[A, H]`: what the network sees of each action `[A, U, D]`, what is added."""
        shape = (self.spec.n_agents, self.spec.n_actions, self.action_dim + 1)
        both = self.embed(hidden).reshape(shape)
        return both[..., 1:], both[..., 0]

    def _w1(self, state: Array) -> Array:
        shape = (self.spec.n_agents, self.action_dim, self.embed_dim)
        return self.hyper_w1(state).reshape(shape)


class JudgedQmix(nn.Module):
    """NM-QMIX, beside a Joint that judges joint actions."""

    spec: EnvSpec
    hidden_dim: int  # of the utility networks
    embed_dim: int = 32
    hypernet_dim: int = 64
    action_dim: int = 4
    max_listed: int = 1  # see Joint

    def setup(self) -> None:
        sizes = (self.embed_dim, self.hypernet_dim)
        self.qmix = Qmix(self.spec, *sizes, monotonic=False)
        self.joint = Joint(self.spec, self.hidden_dim, *sizes, self.action_dim, self.max_listed)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`, of the utilities."""
        if self.is_initializing():
            self.joint(step)
        return self.qmix(step)

    def table(self, hidden: Array, state: Array) -> Table:
        """All joint values of one step, as the judge sees them."""
        return self.joint.table(hidden, state)

    def judge(self, step: JointStep) -> Array:
        """One step -> the joint value that is searched: the judge's."""
        return self.joint(step)
