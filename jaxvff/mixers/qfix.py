"""QFIX: a thin layer that lets a mixer with IGM represent every joint value with IGM."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxvff.core.options import MAX_WIDTH, option
from jaxvff.core.types import Array, EnvSpec, JointStep
from jaxvff.mixers.qmix import Qmix
from jaxvff.networks.dense import hypernetwork

FIXEES = ("sum", "mono", "lin")
FORMS = ("plain", "additive", "detached")


class Qfix(nn.Module):
    """A fixee Q with advantage A = Q - max Q <= 0, a weight w(s, a) and a bias b(s):

      plain:     w A + b,           w > 0     (QFIX)
      additive:  Q + w A + b,       w > -1    (Q+FIX)
      detached:  Q + w sg(A) + b,   w > -1    (Q+FIX; sg hands no gradient back)

    Each is largest where the fixee is. The fixee is VDN (`sum`), QMIX (`mono`), or VDN with a
    weight for every agent, Σ_i w_i A_i (`lin`). w depends on the state and on the joint action, so
    with any of them every Q_tot(s, a) can be represented whose maximum greedy agents find.

    The authors' experiments are those of the detached form; among its fixees `sum` is the smallest.

    Source: Baisero et al. (2025), arXiv:2505.10484, and its authors' code (abaisero/pymarl2,
    commit 246595c; lin: commit c7b196f). Differs from that code: QMIX has hypernetworks of two
    layers, as everywhere here, and not of one.
    """

    spec: EnvSpec
    hypernet_dim: int = option(64, "units of the networks of w and b", low=1, high=MAX_WIDTH)
    fixee: str = option("sum", "what is fixed: sum, mono or lin", names=FIXEES)
    form: str = option("detached", "how: plain, additive or detached", names=FORMS)
    embed_dim: int = option(
        32, "units of QMIX's mixing layer", low=1, high=MAX_WIDTH, needs={"fixee": ("mono",)}
    )

    def setup(self) -> None:
        a, s, h = self.spec.n_agents, self.spec.state_size, self.hypernet_dim
        joint = s + a * self.spec.n_actions
        self.weight = hypernetwork(joint, h, a if self.fixee == "lin" else 1)
        self.bias = hypernetwork(s, h, 1)
        if self.fixee == "mono":
            self.qmix = Qmix(self.spec, self.embed_dim, h)

    def __call__(self, step: JointStep) -> Array:
        """One step -> Q_tot `[]`."""
        value = self._fixee(step)
        advantage = value - self._fixee(step._replace(q_taken=step.q_max))
        joint = jnp.concatenate([step.state, step.action.ravel()])
        raw, b = self.weight(joint), self.bias(step.state)[0]
        if self.form == "plain":
            return _above(0.0, raw) @ advantage + b
        if self.form == "detached":
            advantage = jax.lax.stop_gradient(advantage)
        return jnp.sum(value) + _above(-1.0, raw) @ advantage + b

    def _fixee(self, step: JointStep) -> Array:
        """The fixee's terms that have a weight each: `[A]` for lin, `[1]` for the others."""
        if self.fixee == "lin":
            return step.q_taken
        q = self.qmix(step) if self.fixee == "mono" else jnp.sum(step.q_taken)
        return q[None]


def _above(low: float, x: Array) -> Array:
    """`x[...]`, mirrored at `low` where it is below."""
    return jnp.abs(x - low) + low + 1e-10
