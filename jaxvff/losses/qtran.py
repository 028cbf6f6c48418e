"""QTRAN's loss: an unrestricted joint value, and utilities that are tied to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.options import option
from jaxvff.core.types import Array
from jaxvff.losses import terms
from jaxvff.losses.contract import Loss, LossInput, LossOutput
from jaxvff.mixers.qtran import Qtran


@dataclass(frozen=True)
class QtranLoss(Loss):
    """QTRAN-base: L = L_td + opt_weight · L_opt + nopt_weight · L_nopt.

    L_td is the squared TD error of Q_jt. L_opt wants Σ_i max Q_i + V = Q_jt at the greedy joint
    action, L_nopt wants Σ_i Q_i + V >= Q_jt at the one taken; Q_jt gets no gradient from these.

    Source: Son et al. (2019), eq. 4-7; the weights are PyMARL2's.
    """

    opt_weight: float = option(1.0, "weight of L_opt", low=0, above=True)
    nopt_weight: float = option(0.1, "weight of L_nopt", low=0, above=True)

    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""
        model, segment = x.model, x.segment
        online = terms.utilities(model, x.params["utility"], segment)
        q_of = partial(terms.mix, model, x.params["mixer"], online, segment=segment)

        # The joint value and its target.
        q_jt = q_of(action=segment.action)
        y = terms.td_targets(x, online)

        # The sums of utilities that it is compared with, at the greedy joint action and the taken.
        v_of = partial(terms.apply_mixer, model, x.params["mixer"], head=Qtran.state_value)
        v = jax.vmap(v_of)(segment.state)
        q_jt_best = q_of(action=greedy(online.q, segment.avail))
        steps = terms.joint_steps(online, segment.action, segment.avail, segment.state)
        sg = jax.lax.stop_gradient
        opt = jnp.sum(steps.q_max, axis=-1) - sg(q_jt_best) + v
        nopt = jnp.minimum(jnp.sum(steps.q_taken, axis=-1) - sg(q_jt) + v, 0.0)

        error, opt, nopt = (terms.valid(segment, e) for e in (q_jt - y, opt, nopt))
        total = error**2 + self.opt_weight * opt**2 + self.nopt_weight * nopt**2
        return LossOutput(total, terms.metrics(segment, error, q_jt, y))

    def targets(self, x: LossInput) -> Array:
        """Targets `[T]` of Q_jt."""
        return terms.td_targets(x, terms.utilities(x.model, x.params["utility"], x.segment))
