"""Playing on the device: segments of episodes back to back, and single episodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxvff.core.scan import scan
from jaxvff.core.segments import without_padding
from jaxvff.core.types import (
    Array,
    Draw,
    Env,
    EnvParams,
    EnvState,
    Episodes,
    Memory,
    Outcome,
    Params,
    Revise,
    Segment,
    View,
)
from jaxvff.networks.utility import Utility

Act = Callable[[Array, Array, Array], Array]  # (key, q[A, U], avail[A, U]) -> action[A]
# A core.types.Revise of one state: (key, action[A], q[A, U], avail[A, U], features[A, H]) -> [A]
ReviseNow = Callable[[Array, Array, Array, Array, Array], Array]


class Player(NamedTuple):
    """Who plays where: what stays the same in a rollout."""

    env: Env
    utility: Utility
    act: Act
    params: Params  # of the utility networks
    env_params: EnvParams
    revise: Revise | None = None  # what the team does instead, knowing the state
    draw: Draw | None = None  # what it draws for an episode; None: nothing


class Play(NamedTuple):
    """A game in progress."""

    env_state: EnvState
    memory: Memory
    ended: Array  # [] bool, env_state is the final state of an episode
    return_: Array  # [] of the episode so far, env units
    length: Array  # [] int, transitions of the episode so far
    results: dict[str, Array]  # Outcome.results of the last step


def begin(player: Player, key: Array) -> Play:
    """The start of an episode."""
    env_state = player.env.reset(key, player.env_params)
    zero = jnp.zeros(player.env.spec.n_agents, jnp.int32)
    shapes = jax.eval_shape(
        lambda s: player.env.step(key, s, zero, player.env_params)[1], env_state
    )
    results = {name: jnp.zeros(x.shape, x.dtype) for name, x in shapes.results.items()}
    # A context is drawn in the first slot, where the state has been observed.
    utility = player.utility
    memory = Memory(utility.initial_carry(), zero, utility.blank_context())
    return Play(
        env_state, memory, jnp.array(False), jnp.zeros(()), jnp.array(0, jnp.int32), results
    )


def decide(
    utility: Utility,
    params: Params,
    memory: Memory,
    *,
    act: Act,
    obs: Array,
    avail: Array,
    is_first: Array,
    key: Array,
    revise: ReviseNow | None = None,
    draw: Callable[[Array], Array] | None = None,
) -> Memory:
    """What a team does after an observation.

    Args:
      utility: the utility networks.
      params: of the utility networks.
      memory: of the slot before; at the start of an episode, zeros.
      act: how agents pick actions.
      obs: observations `[A, O]`.
      avail: available actions `[A, U]` bool.
      is_first: `[]` bool, the start of an episode.
      key: PRNG key.
      revise: what the team does instead.
      draw: key -> the context `[C]` of an episode that begins; None: the method draws nothing.

    Returns:
      The memory after it, which holds the actions.
    """
    # fold_in, not split: with and without what is added here, actions are the same.
    context = memory.context
    if draw is not None and context is not None:
        context = jnp.where(is_first, draw(jax.random.fold_in(key, 2)), context)
    inputs = utility.inputs(obs, memory.last_action, is_first)
    carry, q, features = utility.step(params, memory.carry, inputs, context)
    action = act(key, q, avail)
    if revise is not None:
        action = revise(jax.random.fold_in(key, 1), action, q, avail, features)
    return Memory(carry, action.astype(jnp.int32), context)


def advance(player: Player, play: Play, key: Array) -> tuple[Play, View, Array, Outcome]:
    """Observe, act, and step once.

    Args:
      player: who plays where.
      play: the game before the step.
      key: PRNG key.

    Returns:
      `(the game after it, what was seen before, the actions [A], the outcome)`.
    """
    act_key, step_key = jax.random.split(key)
    view = player.env.observe(play.env_state, player.env_params)
    revise = player.revise and partial(player.revise, view.state)
    draw = player.draw and partial(player.draw, view.state)
    memory = decide(
        player.utility,
        player.params,
        play.memory,
        act=player.act,
        obs=view.obs,
        avail=view.avail,
        is_first=play.length == 0,
        key=act_key,
        revise=revise,
        draw=draw,
    )
    action = memory.last_action
    env_state, outcome = player.env.step(step_key, play.env_state, action, player.env_params)
    after = Play(
        env_state=env_state,
        memory=memory,
        ended=outcome.terminated | outcome.truncated,
        return_=play.return_ + outcome.reward,
        length=play.length + 1,
        results=outcome.results,
    )
    return after, view, action, outcome


def on_device(player: Player, key: Array, n_slots: int) -> tuple[Segment, Episodes]:
    """One segment from one environment, which starts at a reset.

    An episode that the segment's end cuts counts as truncated there.

    Args:
      player: who plays where.
      key: PRNG key.
      n_slots: length T of the segment.

    Returns:
      The Segment, and the Episodes that it holds.
    """
    reset_key, key = jax.random.split(key)
    _, segment, episodes = _slots(player, begin(player, reset_key), key, n_slots)
    return segment, episodes


def going_on(
    player: Player, play: Play, key: Array, n_slots: int
) -> tuple[Play, Segment, Episodes]:
    """One segment from a game that goes on where the segment before has ended.

    Args:
      player: who plays where.
      play: the game; from `begin`, or from this function.
      key: PRNG key.
      n_slots: length T of the segment.

    Returns:
      The game as it is in the last slot, which is also the first one of the next segment; the
      Segment, which knows what was remembered before it; and the Episodes that end in it.
    """
    following, segment, episodes = _slots(player, play, key, n_slots)
    return following, segment._replace(before=play.memory), episodes


def _slots(player: Player, play: Play, key: Array, n_slots: int) -> tuple[Play, Segment, Episodes]:
    """Play `n_slots` slots.

    The environment is stepped without auto-reset, so that the final observation of an episode
    gets a slot of its own.
    """

    def slot(play: Play, x: tuple[Array, Array]) -> tuple[Play, tuple[Segment, Episodes]]:
        key, is_last = x
        step_key, reset_key = jax.random.split(key)
        after, view, action, outcome = advance(player, play, step_key)
        mask = ~play.ended & ~is_last
        seen = Segment(
            obs=view.obs,
            state=view.state,
            avail=view.avail,
            action=action,
            reward=jnp.where(mask, outcome.reward, 0.0),
            terminated=outcome.terminated & mask,
            is_first=play.length == 0,
            mask=mask,
            context=after.memory.context,
        )
        episodes = Episodes(play.ended, play.return_, play.length, play.results)
        # After a final observation the step was for nothing: begin anew instead. The last slot is
        # there for its observation and its action: the game stays where it is.
        again = begin(player, reset_key)
        after = jax.tree.map(lambda a, b: jnp.where(is_last, a, b), play, after)
        following = jax.tree.map(lambda a, b: jnp.where(play.ended, a, b), again, after)
        return following, (seen, episodes)

    xs = (jax.random.split(key, n_slots), jnp.arange(n_slots) == n_slots - 1)
    following, (segment, episodes) = scan(slot, play, xs)
    return following, segment, episodes


def episode(player: Player, key: Array) -> Play:
    """The end of one whole episode."""
    reset_key, key = jax.random.split(key)
    start = (begin(player, reset_key), key)
    return jax.lax.while_loop(lambda at: ~at[0].ended, lambda at: _go_on(player, at)[0], start)[0]


def whole_episode(player: Player, key: Array) -> tuple[Segment, Episodes]:
    """One whole episode and nothing else, in a segment that has room for the longest.

    Args:
      player: who plays where.
      key: PRNG key.

    Returns:
      A Segment of episode_limit + 1 slots; and how the episode ended, without the axis [T].
    """
    segment, episodes = on_device(player, key, player.env.spec.episode_limit + 1)
    last = jnp.argmax(episodes.ended)  # the slot of its final observation
    segment = segment._replace(mask=segment.mask & (jnp.arange(len(segment.mask)) < last))
    return without_padding(segment), jax.tree.map(lambda x: x[last], episodes)


def recorded(player: Player, key: Array) -> tuple[EnvState, Array, Play]:
    """The episode that `episode` plays with the same key, and the way to its end.

    Args:
      player: who plays where.
      key: PRNG key.

    Returns:
      Env states `[limit + 1, ...]`: after L steps comes the final one, again and again; the
      actions `[limit + 1, A]`, of which the first L count; the Play at the end, whose length is L.
    """

    def slot(at: tuple[Play, Array], _: Array) -> tuple[tuple[Play, Array], tuple[EnvState, Array]]:
        following, action = _go_on(player, at)
        return following, (at[0].env_state, action)

    reset_key, key = jax.random.split(key)
    slots = jnp.arange(player.env.spec.episode_limit + 1)
    (play, _), (states, actions) = scan(slot, (begin(player, reset_key), key), slots)
    return states, actions, play


def _go_on(player: Player, at: tuple[Play, Array]) -> tuple[tuple[Play, Array], Array]:
    """A step of an episode and its action; after the end everything stays as it is."""
    play, key = at
    key, step_key = jax.random.split(key)
    after, _, action, _ = advance(player, play, step_key)
    # Episodes that are played side by side go on until the last one ends.
    return (jax.tree.map(lambda a, b: jnp.where(play.ended, a, b), play, after), key), action
