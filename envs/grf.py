"""Google Research Football (gfootball 2.10.2), played on the host; the agents are the left team."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from jaxvff.core.options import option
from jaxvff.core.types import EnvKind, HostEnv
from jaxvff.envs import grf_render
from jaxvff.envs.host.grf import PUBLISHED, REPRESENTATIONS, REWARDS
from jaxvff.envs.hosted import WorkerOptions, host_env


@dataclass(frozen=True, kw_only=True)
class Options(WorkerOptions):
    """Which scenario, what agents observe, and what they are rewarded for."""

    scenario: str = option("academy_3_vs_1_with_keeper", "a name in gfootball/scenarios")
    representation: str = option(
        "relative",
        "observations: CDS's compact ones of the players that the agents move (relative), as CDS "
        "has them (cds; Li et al., 2021), gfootball's (simple115v2), or CDS's at a scale of 1 "
        "with the ball's owner, the way to the goal, sticky actions and the time (scaled)",
        names=REPRESENTATIONS,
    )
    rewards: str = option(
        "cds",
        "+1 a goal and -1 a goal against (scoring); these and gfootball's tenths on the way to the "
        "goal, averaged over the players (scoring,checkpoints); or 100 for a goal and -1 for any "
        "other end, with an end when the ball or an agent is behind the halfway line (cds)",
        names=REWARDS,
    )
    time_limit: int | None = option(
        150, "longest episode; null: the scenario's own", unit="env steps", low=1
    )
    n_agents: int | None = option(
        None, "players that act; null: as many as CDS has, else all but the keeper", low=1
    )
    # What makes the task another one than the published ones; all off by default.
    bind_players: bool = option(
        PUBLISHED["bind_players"],
        "an agent keeps its player, and the keeper stands still; else the engine hands agents to "
        "other players as the ball moves",
    )
    mask_actions: bool = option(
        PUBLISHED["mask_actions"],
        "only actions that can be of use in attack: a pass needs the ball, a shot its range",
    )
    action_repeat: int = option(
        PUBLISHED["action_repeat"],
        "how long an action lasts, unless another player gets the ball or it is out of play; an "
        "env step is an action",
        unit="engine steps",
        low=1,
        high=100,
    )
    terminate_late: bool = option(
        PUBLISHED["terminate_late"],
        "time that is up is a terminal state, as in CDS; else the episode is truncated there",
    )
    reverse_team_processing: bool | None = option(
        PUBLISHED["reverse_team_processing"],
        "whether the engine moves the right team first; the same actions then end differently. "
        "null: drawn once for each game, as in gfootball; nobody observes it",
    )


# gfootball's default set, in its order
ACTIONS = (
    *("idle", "left", "top_left", "top", "top_right"),
    *("right", "bottom_right", "bottom", "bottom_left"),
    *("long_pass", "high_pass", "short_pass", "shot", "sprint", "release_direction"),
    *("release_sprint", "sliding", "dribble", "release_dribble"),
)


def make(options: Options) -> HostEnv:
    """A scenario of gfootball.

    Raises:
      UserError: a scenario or a number of players that gfootball does not have, or gfootball is
        not there; it says how to install it.
    """
    arguments = {
        "scenario": options.scenario,
        "representation": options.representation,
        "rewards": options.rewards,
        "time_limit": options.time_limit,
        "n_agents": options.n_agents,
        "bind_players": options.bind_players,
        "mask_actions": options.mask_actions,
        "action_repeat": options.action_repeat,
        "terminate_late": options.terminate_late,
        "reverse_team_processing": options.reverse_team_processing,
    }
    env = host_env("grf", arguments, options.crew())
    draw = functools.partial(grf_render.render, options.representation, env.spec.n_agents)
    return env._replace(render=draw, action_names=ACTIONS)


KIND = EnvKind(Options, make)
