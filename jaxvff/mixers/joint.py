"""An unconstrained joint value that can be searched, alone or as the judge of NM-QMIX."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp

from jaxvff.mixers.qmix import Qmix, hypernet
from jaxvff.nets import linear
from jaxvff.search import Table
from jaxvff.types import Array, EnvSpec, JointStep


class Joint(nn.Module):
    """QMIX's network without its constraint, over embeddings of actions in place of utilities.

    Agent i hands over `action_dim` numbers for each of its actions, made from its features; a
    utility is one number. Re-ordering utilities therefore never stands in the way of the fit: two
    actions with equal utilities still have embeddings of their own.
    """

    spec: EnvSpec
    hidden_dim: int  # of the utility networks
    embed_dim: int = 32
    hypernet_dim: int = 64
    action_dim: int = 4

    def setup(self) -> None:
        a, s = self.spec.n_agents, self.spec.state_size
        self.embed = linear(self.spec.n_actions * self.action_dim, self.hidden_dim)
        self.hyper_w1 = hypernet(s, self.hypernet_dim, a * self.action_dim * self.embed_dim)
        self.hyper_b1 = linear(self.embed_dim, s)
        self.hyper_w2 = hypernet(s, self.hypernet_dim, self.embed_dim)
        self.hyper_b2 = hypernet(s, self.embed_dim, 1)

    def __call__(self, step: JointStep) -> Array:
        """One step -> the joint value `[]`."""
        embedded, w1 = self._embeddings(step.hidden), self._w1(step.state)
        taken = jnp.einsum("au,aud->ad", step.action, embedded)
        total = self.hyper_b1(step.state) + jnp.einsum("ad,ade->e", taken, w1)
        return nn.elu(total) @ self.hyper_w2(step.state) + self.hyper_b2(step.state)[0]

    def table(self, hidden: Array, state: Array) -> Table:
        """All joint values of one step: `hidden[A, H]`, `state[S]`."""
        parts = jnp.einsum("aud,ade->aue", self._embeddings(hidden), self._w1(state))
        return Table(parts, self.hyper_b1(state), self.hyper_w2(state), self.hyper_b2(state)[0])

    def judge(self, step: JointStep) -> Array:
        """One step -> the joint value that is searched: its own."""
        return self(step)

    def _embeddings(self, hidden: Array) -> Array:
        shape = (self.spec.n_agents, self.spec.n_actions, self.action_dim)
        return self.embed(hidden).reshape(shape)

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
