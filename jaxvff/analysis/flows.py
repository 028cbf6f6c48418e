"""Trajectories of the continuous-time dynamics, by adaptive stiff solvers, from event to event."""

from __future__ import annotations

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix

from jaxvff.analysis import model as core
from jaxvff.analysis.model import Model, Policy
from jaxvff.types import Array

RTOL, ATOL = 1e-5, 1e-7  # of the solver
ROOT = 1e-8  # of the moment of an event, in units of time
REST = 1e-6  # norm of the field below which a trajectory is at rest
# Kvaerno's methods are implicit, for stiff equations. With diffrax's default, one Jacobian for a
# whole step, half of the steps are rejected and there are 20 times as many.
SOLVERS: dict[str, Any] = {
    "kvaerno5": lambda: diffrax.Kvaerno5(root_finder=optimistix.Chord(1e-3, 1e-6)),
    "kvaerno3": lambda: diffrax.Kvaerno3(root_finder=optimistix.Chord(1e-3, 1e-6)),
    "tsit5": diffrax.Tsit5,
}


class Dynamics(NamedTuple):
    """What a trajectory follows: x' = -(value term + full · policy term) of eq. 16."""

    policy: Policy
    full: Any  # 1 for eq. 17, the gradient of eq. 14; 0 for the semi-gradient of Q-learning


class Switch(NamedTuple):
    """A change of the greedy joint action: `agent` goes over from action `before` to `after`."""

    time: Array  # [] inf where there was none
    loss: Array  # [] at that moment, under the policy of before
    agent: Array
    before: Array
    after: Array


class Flow(NamedTuple):
    """One trajectory."""

    x: Array  # [D] where it ended
    time: Array  # [] when
    chosen: Array  # [A] the greedy joint action there
    switches: Switch  # [n] the first n changes of the greedy joint action
    n_switches: Array  # []
    at_rest: Array  # [] bool, the field was below REST before the time was over
    ok: Array  # [] bool: finite, no solver failure, and not more switches than there is room for


class _Leg(NamedTuple):
    x: Array
    time: Array
    chosen: Array
    n: Array
    over: Array
    ok: Array
    at_rest: Array


def flow(
    model: Model,
    payoff: Array,
    dynamics: Dynamics,
    x0: Array,
    *,
    time: float,
    most_switches: int,
    solver: str = "kvaerno5",
    max_steps: int = 4096,
) -> Flow:
    """Follow the dynamics from `x0[D]` for `time`, or until it is at rest.

    Integration stops at every change of the greedy joint action (a root of the greedy margin,
    found to the solver's tolerance) and goes on with the new one, so a policy that jumps there is
    never integrated across its jump. A trajectory with more than `most_switches` of them slides
    along a boundary or has not settled: `ok` is False, as after a solver's failure.

    Args:
      model: the factorised value, in float64.
      payoff: `[U] * A`.
      dynamics: the policy and the kind of gradient; traced.
      x0: `[D]`.
      time: in units of 1 / loss curvature: the learning rate times the number of updates.
      most_switches: how many changes of the greedy joint action are followed.
      solver: a name in SOLVERS; the default is an implicit method for stiff equations.
      max_steps: of the solver, between two switches.
    """

    def field(t: Any, x: Array, chosen: Array) -> Array:
        return -core.field(model, payoff, dynamics.policy, x, chosen, full=dynamics.full)

    def slack(t: Array, y: Array, args: Array, **_: Any) -> Array:
        return jnp.min(core.margin(model.utilities(y), args))

    def rest(t: Array, y: Array, args: Array, **_: Any) -> Array:
        return jnp.linalg.norm(field(t, y, args)) < REST

    event = diffrax.Event((slack, rest), optimistix.Newton(ROOT, ROOT), direction=(False, None))

    def leg(state: _Leg, _: None) -> tuple[_Leg, Switch]:
        end = jnp.where(state.over, state.time, time)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(field), SOLVERS[solver](), state.time, end, None, state.x,
            args=state.chosen, event=event, max_steps=max_steps, throw=False,
            stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL),
            saveat=diffrax.SaveAt(t1=True),
        )  # fmt: skip
        switched, rested = solution.event_mask
        switched, rested = switched & ~state.over, rested & ~state.over
        x = jnp.where(state.over, state.x, solution.ys[0])
        after, switch = _switch(model, x, state.chosen)
        lost = core.loss(model, payoff, dynamics.policy, x, state.chosen)
        ended = jnp.where(state.over, state.time, solution.ts[0])
        # A root that is found to ROOT is good enough, whatever Newton's method says of it.
        found = switched & (jnp.abs(slack(ended, x, state.chosen)) < 100 * ROOT)
        fine = diffrax.is_okay(solution.result) | found | state.over
        record = Switch(jnp.where(switched, ended, jnp.inf), lost, *switch)
        return _Leg(
            x, ended, jnp.where(switched, after, state.chosen), state.n + switched,
            state.over | ~switched, state.ok & fine & jnp.all(jnp.isfinite(x)),
            state.at_rest | rested,
        ), record  # fmt: skip

    no, yes = jnp.array(False), jnp.array(True)
    first = _Leg(x0, jnp.zeros_like(x0[0]), core.greedy(model, x0), jnp.array(0), no, yes, no)
    last, switches = jax.lax.scan(leg, first, None, length=most_switches + 1)
    kept = jax.tree.map(lambda leaf: leaf[:-1], switches)
    return Flow(last.x, last.time, last.chosen, kept, last.n, last.at_rest, last.ok & last.over)


def _switch(model: Model, x: Array, chosen: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """The greedy joint action behind a boundary, and (agent, action before, action after)."""
    q = model.utilities(x)
    agent = jnp.argmin(core.margin(q, chosen))
    mine = jnp.arange(q.shape[-1]) == chosen[agent]
    after = jnp.argmax(jnp.where(mine, -jnp.inf, q[agent]))
    return chosen.at[agent].set(after), (agent, chosen[agent], after)
