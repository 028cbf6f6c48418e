"""Acting on a search while experience is collected."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxvff.core.actions import greedy
from jaxvff.core.types import Array, Params, Revise
from jaxvff.losses import terms
from jaxvff.losses.contract import Model
from jaxvff.losses.ordered.losses import SearchingLoss, searchable
from jaxvff.losses.ordered.search import best_joint_action


def act_on_search(model: Model, loss: SearchingLoss, params: Params, share: float) -> Revise:
    """In a share of the steps the team plays what a search of the joint value finds.

    What the joint value overestimates is tried, and what it does not know yet is not only met by
    chance. The search starts at the greedy joint action.

    Args:
      model: networks.
      loss: for the budget of the search.
      params: of a learner that is acting: {"mixer", ...}.
      share: of the steps, in [0, 1].
    """

    def revise(
        state: Array, key: Array, action: Array, q: Array, avail: Array, features: Array
    ) -> Array:
        coin, key = jax.random.split(key)
        value = terms.apply_mixer(model, params["mixer"], features, state, head=searchable)
        found = best_joint_action(
            value,
            q,
            avail,
            starts=greedy(q, avail)[None],
            tolerance=jnp.zeros(()),
            key=key,
            budget=loss.budget,
        )
        return jnp.where(jax.random.bernoulli(coin, share), found, action)

    return revise
