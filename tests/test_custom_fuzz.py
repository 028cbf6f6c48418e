"""Environments of all kinds, played by the adapter of `env=custom` and by a slow reference."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pettingzoo.test import parallel_api_test

from jaxvff.envs.host import game
from tests.oracles import team

GAMES = str(Path(__file__).parent / "games")
EPISODES = 8  # of each environment

small = st.integers(0, 3)
shapes = st.sampled_from([(), (0,), (1,), (3,), (2, 2), (1, 2, 3)])
boxes = st.one_of(
    st.builds(
        lambda shape, dtype: spaces.Box(-9, 9, shape, dtype),
        shapes,
        st.sampled_from([np.float32, np.float64, np.int32, np.int64, np.int8]),
    ),
    st.builds(lambda shape: spaces.Box(0, 255, shape, np.uint8), shapes),
    st.builds(lambda shape: spaces.Box(-np.inf, np.inf, shape, np.float64), shapes),
)
starts = st.integers(-3, 3)
choices = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), starts)
leaves = st.one_of(
    boxes,
    choices,
    st.builds(spaces.MultiBinary, st.sampled_from([1, 3, (2, 2)])),
    st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3)),
)
parts = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(spaces.Tuple),
        st.dictionaries(st.sampled_from("cab"), inner, min_size=1, max_size=3).map(spaces.Dict),
    ),
    max_leaves=4,
)
ways = st.lists(
    st.sampled_from(["terminated", "truncated", "both"]), min_size=1, max_size=3, unique=True
)


@st.composite
def plans(draw: st.DrawFn) -> object:
    """A scripted.Plan."""
    import scripted

    n, api = draw(st.integers(1, 4)), draw(st.sampled_from(["pettingzoo", "gymnasium"]))
    wrappers = draw(st.lists(st.sampled_from(["plain", "blind", "opaque"]), max_size=2))
    # PettingZoo's own wrappers ask for methods.
    spaces_as = st.sampled_from(["methods"] + ["dicts"] * ("plain" not in wrappers))
    either, seldom = st.booleans(), st.sampled_from([0.0, 0.0, 0.2, 0.5])
    return scripted.Plan(
        api=api,
        obs_spaces=tuple(draw(parts) for _ in range(n)),
        action_spaces=tuple(draw(choices) for _ in range(n)),
        longest=draw(st.integers(1, 6)),
        leaving=draw(seldom),
        joining=draw(seldom),
        ways=tuple(draw(ways)),
        mask=draw(st.sampled_from(["", "info", "observation", "undeclared", "beside"])),
        mask_key=draw(st.sampled_from(["action_mask", "avail_actions", "available_actions"])),
        mask_type=draw(st.sampled_from(["bool", "int8", "float", "list"])),
        no_final_actions=draw(either),
        zombies=draw(either),
        keep_agents=draw(either),
        chatter=draw(either),
        no_last_words=draw(either),
        some_rewards=draw(either),
        ghost_rewards=draw(either),
        values=draw(st.sampled_from(["as they are", "lists", "float64", "scalars", "buffer"])),
        rewards=draw(st.sampled_from(["float", "int", "float32", "0-d", "list", "(1,)"])),
        flags=draw(st.sampled_from(["bool", "numpy", "int", "(1,)"])),
        state=draw(st.sampled_from(["", "vector", "image", "empty", "other", "attribute"])),
        wrappers=tuple(wrappers),
        spaces_as=draw(spaces_as),
        one_for_all=api == "gymnasium" and draw(either),
    )


@pytest.fixture(autouse=True, scope="module")
def importable() -> None:
    """tests/games on the path."""
    sys.path.insert(0, GAMES)
    yield
    sys.path.remove(GAMES)


LAWFUL = {
    "mask": "", "joining": 0.0, "zombies": False, "keep_agents": False, "chatter": False,
    "no_last_words": False, "ghost_rewards": False, "some_rewards": False, "values": "as they are",
    "rewards": "float", "flags": "bool", "spaces_as": "methods", "one_for_all": True,
}  # fmt: skip


@settings(max_examples=20, derandomize=True, deadline=None, database=None)
@given(plan=plans())
@pytest.mark.filterwarnings("ignore")
def test_the_checkers_of_pettingzoo_and_gymnasium_accept_the_environments_without_oddities(
    plan: object,
) -> None:
    import scripted

    lawful = dataclasses.replace(plan, **LAWFUL)
    if lawful.api == "pettingzoo":
        parallel_api_test(scripted.make(lawful), num_cycles=10)
    else:  # its checker takes a truncation after one step for a fault
        lawful = dataclasses.replace(lawful, ways=("terminated",))
        check_env(scripted.make(lawful), skip_render_check=True)


@settings(
    max_examples=125, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)  # fmt: skip
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_a_thousand_episodes_are_played_as_the_reference_plays_them(
    data: st.DataObject, seed: int
) -> None:
    import scripted

    plan = data.draw(plans())
    options = {"entry": "scripted:make", "api": plan.api, "time_limit": 9, "kwargs": {"plan": plan}}
    played = game.make("custom", options, seed)
    theirs, mine = scripted.STORIES.pop(), scripted.Story(plan)
    assert played.spec[:4] == team.sizes(plan)
    rng = np.random.default_rng(seed)
    for episode in range(EPISODES):
        view = played.reset()
        mine.reset(seed if episode == 0 else None)
        assert_seen(view, mine)
        while not mine.over:
            action = np.array([rng.choice(np.flatnonzero(row)) for row in view.avail])
            view, outcome = played.step(action)
            mine.step(team.their_actions(mine, action.tolist()))
            assert theirs.received == mine.received
            assert_seen(view, mine)
            assert outcome == game.Outcome(*team.brought(mine))
            assert not game.problem(played.spec, view, outcome)


def assert_seen(view: game.View, story: object) -> None:
    """What the adapter shows is what the reference sees, to the last bit."""
    for field, expected in team.seen(story)._asdict().items():
        np.testing.assert_array_equal(getattr(view, field), np.array(expected), err_msg=field)
