"""An unconstrained joint value that can be searched, alone or as the judge of NM-QMIX."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.mixers.qmix import Qmix, hypernet
from jaxvff.nets import linear
from jaxvff.search import Table
from jaxvff.types import Array, EnvSpec, JointStep


class Joint(nn.Module):
    """VDN, and QMIX's network without its constraint over embeddings of actions.

    Agent i hands over `action_dim` numbers for each of its actions, made from its features, and one
    more that is added as it is. Utilities are no part of it, so re-ordering them never stands in
    the way of the fit. The sum is what agents learn for one another in any state; alone, the
    network has to learn it for each agent and state apart.
    """

    spec: EnvSpec
    hidden_dim: int  # of the utility networks
    embed_dim: int = 32
    hypernet_dim: int = 64
    action_dim: int = 4

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
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
        return together + jnp.sum(step.action * own) + self.hyper_b2(step.state)[0]

    def table(self, hidden: Array, state: Array) -> Table:
        """All joint values of one step: `hidden[A, H]`, `state[S]`."""
        embedded, own = self._embeddings(hidden)
        parts = jnp.einsum("aud,ade->aue", embedded, self._w1(state))
        parts = jnp.concatenate([parts, own[..., None]], axis=-1)
        bias = jnp.append(self.hyper_b1(state), 0.0)
        return Table(parts, bias, self.hyper_w2(state), self.hyper_b2(state)[0])

    def judge(self, step: JointStep) -> Array:
        """One step -> the joint value that is searched: its own."""
        return self(step)

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

    def setup(self) -> None:
        sizes = (self.embed_dim, self.hypernet_dim)
        self.qmix = Qmix(self.spec, *sizes, monotonic=False)
        self.joint = Joint(self.spec, self.hidden_dim, *sizes, self.action_dim)

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
