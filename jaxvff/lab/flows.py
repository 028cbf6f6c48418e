"""Trajectories of the continuous-time dynamics, by adaptive stiff solvers, from event to event."""

from __future__ import annotations

import functools
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import optimistix

from jaxvff.core.types import Array
from jaxvff.lab import objective
from jaxvff.lab.objective import Policy, Scalar, greedy_actions, greedy_margins
from jaxvff.lab.settings import SOLVERS
from jaxvff.lab.tabular_model import TabularModel

RTOL, ATOL = 1e-5, 1e-7  # of the solver
ROOT = 1e-8  # tolerance of the time of an event
REST = 1e-6  # norm of the gradient below which a trajectory is at rest


def kvaerno5() -> diffrax.AbstractSolver:
    """Implicit, of order 5, for stiff equations."""
    return diffrax.Kvaerno5(root_finder=_newton_each_stage())


def kvaerno3() -> diffrax.AbstractSolver:
    """Implicit, of order 3, for stiff equations."""
    return diffrax.Kvaerno3(root_finder=_newton_each_stage())


def tsit5() -> diffrax.AbstractSolver:
    """Explicit, of order 5."""
    return diffrax.Tsit5()


def _newton_each_stage() -> optimistix.AbstractRootFinder:
    # With diffrax's default, one Jacobian for a whole step, half of the steps are rejected and
    # there are 20 times as many.
    return optimistix.Chord(1e-3, 1e-6)


class Dynamics(NamedTuple):
    """What a trajectory follows: x' = -objective.gradient(x). All numbers are traced."""

    policy: Policy
    policy_term: Scalar  # 1: eq. 17, the gradient of eq. 14; 0: the semi-gradient of Q-learning


class Switch(NamedTuple):
    """A change of the greedy joint action: `agent` goes over from action `before` to `after`."""

    time: Array  # [] inf where there was none
    loss: Array  # [] at that moment, under the policy of before
    agent: Array  # [] int
    before: Array  # [] int
    after: Array  # [] int


class Flow(NamedTuple):
    """One trajectory."""

    x: Array  # [D] where it ended
    time: Array  # [] when
    chosen: Array  # [A] the greedy joint action there
    switches: Switch  # [max_switches] the first changes of the greedy joint action
    n_switches: Array  # []
    at_rest: Array  # [] bool, the gradient's norm fell below REST before the time was over
    ok: Array  # [] bool: finite, no solver failure, at most max_switches changes


class _Progress(NamedTuple):
    """A trajectory at the start of a leg, which is what lies between two switches."""

    x: Array  # [D]
    time: Array  # []
    chosen: Array  # [A] the greedy joint action
    n_switches: Array  # []
    over: Array  # [] bool: the time is over or the trajectory is at rest
    ok: Array  # [] bool
    at_rest: Array  # [] bool


class _LegEnd(NamedTuple):
    """Where a leg ended, and why."""

    x: Array  # [D]
    time: Array  # []
    switched: Array  # [] bool: at a change of the greedy joint action
    at_rest: Array  # [] bool
    ok: Array  # [] bool: the solver did not fail


def flow(
    model: TabularModel,
    payoff: Array,
    dynamics: Dynamics,
    x0: Array,
    *,
    time: float,
    max_switches: int,
    solver: str = "kvaerno5",
    max_steps: int = 4096,
) -> Flow:
    """Follow the dynamics from `x0` for `time`, or until the trajectory is at rest.

    Integration stops at every change of the greedy joint action (a root of the greedy margin,
    found to the solver's tolerance) and goes on with the new one. A policy that jumps there is
    thus never integrated across its jump. A trajectory with more than `max_switches` changes
    slides along a boundary or has not settled: `ok` is False, as after a solver's failure.

    Args:
      model: the factorised value, in float64.
      payoff: `[U] * A`.
      dynamics: the policy and the kind of gradient.
      x0: `[D]`.
      time: in units of 1 / loss curvature: the learning rate times the number of updates.
      max_switches: how many changes of the greedy joint action are followed.
      solver: a name in SOLVERS; the default is an implicit method for stiff equations.
      max_steps: of the solver, in one leg.
    """
    integrate = functools.partial(
        _integrate, model, payoff, dynamics, time=time, solver=solver, max_steps=max_steps
    )
    no, yes = jnp.array(False), jnp.array(True)
    start = _Progress(
        x=x0,
        time=jnp.zeros_like(x0[0]),
        chosen=greedy_actions(model, x0),
        n_switches=jnp.array(0),
        over=no,
        ok=yes,
        at_rest=no,
    )
    # A leg after the last switch that is followed: only if it is over there, all is well.
    end, switches = jax.lax.scan(
        lambda state, _: _after_leg(model, payoff, dynamics.policy, state, integrate(state)),
        start,
        None,
        length=max_switches + 1,
    )
    return Flow(
        x=end.x,
        time=end.time,
        chosen=end.chosen,
        switches=jax.tree.map(lambda leaf: leaf[:-1], switches),
        n_switches=end.n_switches,
        at_rest=end.at_rest,
        ok=end.ok & end.over,
    )


def _after_leg(
    model: TabularModel, payoff: Array, policy: Policy, state: _Progress, end: _LegEnd
) -> tuple[_Progress, Switch]:
    """What a leg leads to, and the switch at its end.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      policy: of the dynamics.
      state: at the start of the leg; a trajectory that is over stays as it is.
      end: of the leg.
    """
    agent, before, after = _next_switch(model, end.x, state.chosen)
    switch = Switch(
        time=jnp.where(end.switched, end.time, jnp.inf),
        loss=objective.expected_loss(model, payoff, policy, end.x, state.chosen),
        agent=agent,
        before=before,
        after=after,
    )
    progress = _Progress(
        x=end.x,
        time=end.time,
        chosen=jnp.where(end.switched, state.chosen.at[agent].set(after), state.chosen),
        n_switches=state.n_switches + end.switched,
        over=state.over | ~end.switched,
        ok=state.ok & end.ok & jnp.all(jnp.isfinite(end.x)),
        at_rest=state.at_rest | end.at_rest,
    )
    return progress, switch


def _integrate(
    model: TabularModel,
    payoff: Array,
    dynamics: Dynamics,
    state: _Progress,
    *,
    time: float,
    solver: str,
    max_steps: int,
) -> _LegEnd:
    """Solve the differential equation until an event, or until `time`."""

    def descent(t: object, x: Array, chosen: Array) -> Array:
        policy, policy_term = dynamics.policy, dynamics.policy_term
        return -objective.gradient(model, payoff, policy, x, chosen, policy_term=policy_term)

    def smallest_margin(t: object, y: Array, args: Array, **_: object) -> Array:
        return jnp.min(greedy_margins(model.utilities(y), args))

    def is_at_rest(t: object, y: Array, args: Array, **_: object) -> Array:
        return jnp.linalg.norm(descent(t, y, args)) < REST

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(descent),
        SOLVERS[solver](),
        t0=state.time,
        t1=jnp.where(state.over, state.time, time),
        dt0=None,
        y0=state.x,
        args=state.chosen,
        event=diffrax.Event(
            (smallest_margin, is_at_rest), optimistix.Newton(ROOT, ROOT), direction=(False, None)
        ),
        max_steps=max_steps,
        throw=False,
        stepsize_controller=diffrax.PIDController(rtol=RTOL, atol=ATOL),
        saveat=diffrax.SaveAt(t1=True),
    )
    switched, rested = (event & ~state.over for event in solution.event_mask)
    x = jnp.where(state.over, state.x, solution.ys[0])
    ended = jnp.where(state.over, state.time, solution.ts[0])
    # A root that is found to ROOT is good enough, whatever Newton's method says of it.
    is_root = switched & (jnp.abs(smallest_margin(ended, x, state.chosen)) < 100 * ROOT)
    ok = diffrax.is_okay(solution.result) | is_root | state.over
    return _LegEnd(x=x, time=ended, switched=switched, at_rest=rested, ok=ok)


def _next_switch(model: TabularModel, x: Array, chosen: Array) -> tuple[Array, Array, Array]:
    """The agent with the smallest greedy margin, its action, and its next best one; each `[]`."""
    q = model.utilities(x)
    agent = jnp.argmin(greedy_margins(q, chosen))
    is_chosen = jnp.arange(q.shape[-1]) == chosen[agent]
    after = jnp.argmax(jnp.where(is_chosen, -jnp.inf, q[agent]))
    return agent, chosen[agent], after
