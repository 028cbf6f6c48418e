"""Predator-prey: the rules are the reference's, and replay loses nothing."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core import segments
from jaxvff.core.errors import UserError
from jaxvff.core.types import Env, Episodes, Outcome, Segment, View
from jaxvff.envs import predator_prey
from jaxvff.envs.predator_prey import CATCH, GONE, STAY, Board, Field
from jaxvff.networks.utility import Mlp, Utility
from jaxvff.playing import rollout
from jaxvff.runs.plan import plan

RIGHT, DOWN, LEFT, UP = range(4)
MOVES = [(0, 1), (1, 0), (0, -1), (-1, 0), (0, 0), (0, 0)]
PENALTY = -1.5


# --- an oracle, written from the rules, with places (row, column) or None


def places(board: Board, cells: Any) -> list:
    width = board.size + 2 * board.radius
    return [
        None if c == GONE else (int(c) // width - board.radius, int(c) % width - board.radius)
        for c in np.asarray(cells)
    ]


def beside(place: Any) -> list:
    return [(place[0] + dr, place[1] + dc) for dr, dc in MOVES[:4]]


def slow_step(
    size: int, predators: list, prey: list, action: Any, orders: Any, luck: Any, penalty: float
) -> tuple[list, list, float]:
    """Predators and prey after a step, and the reward."""
    predators, prey, reward = list(predators), list(prey), 0.0

    def free(place: Any) -> bool:
        within = 0 <= place[0] < size and 0 <= place[1] < size
        return within and place not in predators and place not in prey

    for i in orders[0]:
        if predators[i] is not None:
            to = tuple(np.add(predators[i], MOVES[action[i]]).tolist())
            if free(to):
                predators[i] = to
    for j in orders[1]:
        if prey[j] is None:
            continue
        hunters = [
            i for i, at in enumerate(predators)
            if at is not None and action[i] == CATCH and at in beside(prey[j])
        ]  # fmt: skip
        if len(hunters) >= 2:
            reward += 10
            prey[j] = None
            for i in hunters:
                predators[i] = None
            continue
        reward += penalty * len(hunters)
        options = [(luck[j_turn(orders[1], j)][k], to) for k, to in enumerate(beside(prey[j]))]
        options = [(x, to) for x, to in options if free(to)]
        if options:
            prey[j] = max(options)[1]
    return predators, prey, reward


def j_turn(order: Any, j: int) -> int:
    return int(np.flatnonzero(order == j)[0])


def slow_view(size: int, radius: int, predators: list, prey: list) -> tuple[Any, Any, Any]:
    board = np.zeros((size, size, 2))
    for channel, who in enumerate((predators, prey)):
        for place in who:
            if place is not None:
                board[(*place, channel)] = 1
    wide = np.pad(board, ((radius, radius), (radius, radius), (0, 0)))
    side = 2 * radius + 1
    obs = np.zeros((len(predators), side, side, 2))
    avail = np.zeros((len(predators), 6), bool)
    avail[:, STAY] = True
    for i, at in enumerate(predators):
        if at is None:
            continue
        obs[i] = wide[at[0] : at[0] + side, at[1] : at[1] + side]
        for u, (r, c) in enumerate(beside(at)):
            avail[i, u] = 0 <= r < size and 0 <= c < size
            avail[i, CATCH] |= (r, c) in prey
    return obs.reshape(len(predators), -1), board.ravel(), avail


def test_steps_and_views_are_those_of_a_slow_oracle() -> None:
    """A crowded board, some gone, any action, available or not."""
    n, a, p, size, radius = 400, 6, 4, 4, 2
    board, rng = Board(size, radius), np.random.default_rng(0)
    env = predator_prey.make(
        predator_prey.Options(n_agents=a, n_prey=p, size=size, radius=radius, penalty=PENALTY)
    )
    cells = np.stack([rng.permutation(board.cells)[: a + p] for _ in range(n)])
    cells[rng.random(cells.shape) < 0.15] = GONE
    action = np.where(rng.random((n, a)) < 0.7, CATCH, rng.integers(0, 6, (n, a)))
    orders = [np.stack([rng.permutation(k) for _ in range(n)]) for k in (a, p)]
    luck = rng.random((n, p, 4)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def fast(cells: Any, action: Any, first: Any, second: Any, luck: Any) -> Any:
        field = Field(cells[:a], cells[a:], jnp.array(0))
        view = env.observe(field, env.params)
        after, caught, lone = board.hunt(
            board.move(field, action, first), action == CATCH, second, luck
        )
        return view, after, caught, lone

    view, after, caught, lone = jax.tree.map(np.asarray, fast(cells, action, *orders, luck))
    for k in range(n):
        who = places(board, cells[k])
        predators, prey, reward = slow_step(
            size, who[:a], who[a:], action[k], [o[k] for o in orders], luck[k], PENALTY
        )
        assert places(board, after.predators[k]) == predators
        assert places(board, after.prey[k]) == prey
        assert 10 * caught[k] + PENALTY * lone[k] == reward
        for fast_one, slow_one in zip(view, slow_view(size, radius, who[:a], who[a:]), strict=True):
            np.testing.assert_array_equal(fast_one[k], slow_one)
    assert caught.max() == 2 and lone.max() >= 2, "a crowd that caught too little"


# --- scenes


@functools.cache
def stage(a: int, p: int, limit: int = 9) -> tuple[Env, Any]:
    """`(env, (key, field, action, penalty) -> (after, outcome, view after))` on 5 x 5 cells."""
    env = predator_prey.make(predator_prey.Options(n_agents=a, n_prey=p, size=5, time_limit=limit))

    @jax.jit
    def play(key: Any, field: Field, action: Any, penalty: Any) -> tuple[Field, Outcome, View]:
        after, outcome = env.step(key, field, action, penalty)
        return after, outcome, env.observe(after, penalty)

    return env, play


def field(predators: list, prey: list, time: int = 0) -> Field:
    board = Board(5, 2)
    cell = lambda at: GONE if at is None else int(board.cells[at[0] * 5 + at[1]])
    of = lambda who: jnp.array([cell(at) for at in who], jnp.int32)
    return Field(of(predators), of(prey), jnp.array(time, jnp.int32))


def act(start: Field, *action: int, penalty: float = PENALTY, seed: int = 0) -> Any:
    _, play = stage(len(start.predators), len(start.prey))
    return play(jax.random.key(seed), start, jnp.array(action), jnp.float32(penalty))


def test_two_that_catch_together_are_paid_ten_and_leave_with_the_prey() -> None:
    start = field([(2, 1), (2, 3), (0, 0)], [(2, 2), (4, 4)])
    after, outcome, view = act(start, CATCH, CATCH, STAY)
    assert outcome.reward == 10
    assert after.predators[:2].tolist() == [GONE, GONE] and after.prey[0] == GONE
    assert after.predators[2] == start.predators[2] and after.prey[1] != GONE
    assert not outcome.terminated and not outcome.truncated
    assert outcome.results == {"win_rate": 1, "caught": 1}  # one is all that three can catch
    assert not view.obs[:2].any() and view.obs[2].any()
    np.testing.assert_array_equal(view.avail[:2], [np.arange(6) == STAY] * 2)


def test_three_that_catch_one_prey_are_paid_once_and_all_leave() -> None:
    after, outcome, _ = act(field([(2, 1), (2, 3), (1, 2)], [(2, 2), (4, 4)]), CATCH, CATCH, CATCH)
    assert outcome.reward == 10
    assert (after.predators == GONE).all()
    assert outcome.terminated, "nobody is left to hunt"


@pytest.mark.parametrize("penalty", [0.0, -0.5, -2.0])
def test_who_catches_alone_pays_the_penalty_and_stays(penalty: float) -> None:
    start = field([(2, 1), (2, 3), (0, 0)], [(2, 2), (4, 4)])
    after, outcome, _ = act(start, CATCH, STAY, STAY, penalty=penalty)
    assert outcome.reward == penalty
    assert (after.predators == start.predators).all()
    assert (after.prey != GONE).all()
    assert after.prey[0] != start.prey[0], "it was free to go"


def test_one_between_two_prey_fails_twice() -> None:
    _, outcome, _ = act(field([(2, 2), (0, 0), (0, 1)], [(2, 1), (2, 3)]), CATCH, STAY, STAY)
    assert outcome.reward == 2 * PENALTY


def test_who_caught_one_prey_does_not_help_with_the_next() -> None:
    """Predator 0 stands between both prey: whichever comes first, the other is hunted by one."""
    for seed in range(8):
        start = field([(2, 2), (1, 1), (1, 3)], [(2, 1), (2, 3)])
        after, outcome, _ = act(start, CATCH, CATCH, CATCH, seed=seed)
        assert outcome.reward == 10 + PENALTY
        assert (after.predators == GONE).sum() == 2 and (after.prey == GONE).sum() == 1


def test_actions_are_available_within_the_walls_and_next_to_prey() -> None:
    env, _ = stage(3, 2)
    view = env.observe(field([(0, 0), (2, 2), None], [(2, 3), (4, 4)]), env.params)
    expected = np.zeros((3, 6), bool)
    expected[0, [RIGHT, DOWN, STAY]] = True  # a corner
    expected[1] = True  # even the move into the prey, as in the reference
    expected[2, STAY] = True
    np.testing.assert_array_equal(view.avail, expected)


def test_prey_that_is_shut_in_stays() -> None:
    after, _, _ = act(field([(0, 1), (1, 0), (4, 0)], [(0, 0), (4, 4)]), STAY, STAY, STAY)
    assert after.prey[0] == field([], [(0, 0)]).prey[0]


def test_random_choices_are_even() -> None:
    """Which of two predators gets a cell, and where prey in a corner goes: within 4 sigma."""
    n = 2000
    start = field([(2, 1), (2, 3), (4, 4)], [(0, 0), (4, 0)])
    _, play = stage(3, 2)
    keys = jax.random.split(jax.random.key(0), n)
    action = jnp.array([RIGHT, LEFT, STAY])
    after, _, _ = jax.vmap(lambda key: play(key, start, action, jnp.float32(0)))(keys)
    middle = field([(2, 2)], [(0, 1)])
    wins = np.asarray(after.predators == middle.predators[0])[:, :2]
    assert (wins.sum(axis=1) == 1).all()
    assert abs(wins[:, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
    right = np.asarray(after.prey[:, 0] == middle.prey[0])
    assert abs(right.mean() - 0.5) < 4 * 0.5 / np.sqrt(n)


def test_the_limit_truncates_unless_the_last_prey_is_caught_there() -> None:
    here = ([(2, 1), (2, 3), (0, 0)], [(2, 2), None])
    for time, over in ((7, False), (8, True)):
        _, outcome, _ = act(field(*here, time), STAY, STAY, STAY)
        assert outcome.truncated == over and not outcome.terminated
    _, outcome, _ = act(field(*here, 8), CATCH, CATCH, STAY)
    assert outcome.terminated and not outcome.truncated


# --- whole episodes


LIMIT = 12


@functools.cache
def episodes() -> tuple[Env, Segment, Episodes]:
    """Segments `[N, T]` of random play that likes to catch."""
    env = predator_prey.make(
        predator_prey.Options(
            n_agents=4, n_prey=3, size=4, radius=1, time_limit=LIMIT, penalty=PENALTY
        )
    )

    def like(key: Any, q: Any, avail: Any) -> Any:
        return jax.random.categorical(key, jnp.log(avail * (1 + 20 * (jnp.arange(6) == CATCH))))

    utility = Utility(
        Mlp(env.spec.n_actions, 1), env.spec, shared=True, agent_id=False, last_action=False
    )
    params = utility.init(jax.random.key(0))
    player = rollout.Player(env, utility, like, params, env.params)
    keys = jax.random.split(jax.random.key(0), 16)
    play = jax.jit(jax.vmap(lambda key: rollout.on_device(player, key, 64)))
    return env, *jax.tree.map(np.asarray, play(keys))


def test_no_two_share_a_cell_and_nobody_comes_back() -> None:
    _, segment, ends = episodes()
    board = segment.state.reshape(*segment.mask.shape, 16, 2)
    assert board.sum(axis=-1).max() == 1
    units = board.sum(axis=2)  # [N, T, 2]
    np.testing.assert_array_equal(units[segment.is_first], [[4, 3]] * segment.is_first.sum())
    change = units[:, 1:] - units[:, :-1]
    assert (change[segment.mask[:, :-1]] <= 0).all()
    caught = 3 - units[..., 1]
    np.testing.assert_allclose(ends.results["caught"][ends.ended], caught[ends.ended] / 2)
    np.testing.assert_array_equal(ends.results["win_rate"][ends.ended], caught[ends.ended] == 2)


def test_episodes_end_with_the_hunt_or_are_truncated_at_the_limit() -> None:
    _, segment, ends = episodes()
    before = np.roll(ends.ended, -1, axis=1)
    before[:, -1] = False
    after = np.roll(before, 1, axis=1)
    over = segment.terminated[before]
    units = segment.state.reshape(*segment.mask.shape, 16, 2).sum(axis=2)[after]
    np.testing.assert_array_equal(over, (units == 0).any(axis=-1))
    assert (ends.length[after][~over] == LIMIT).all()
    assert over.any() and not over.all()


def test_who_is_gone_sees_nothing_and_stays() -> None:
    _, segment, _ = episodes()
    gone = ~segment.obs.any(axis=-1)  # the living see themselves
    assert gone.any() and not gone.all()
    assert (segment.action[gone] == STAY).all()
    np.testing.assert_array_equal(segment.avail[gone], [np.arange(6) == STAY] * gone.sum())


def test_what_replay_stores_brings_back_every_bit() -> None:
    env, segment, _ = episodes()
    stored = jax.jit(jax.vmap(env.codec.pack))(segment)
    back = jax.jit(jax.vmap(lambda x: env.codec.unpack(x, env.params)))(stored)
    for name in Segment._fields[:-2]:  # `before` and `context` are of some runs alone
        mine, theirs = getattr(back, name), getattr(segment, name)
        assert mine.dtype == theirs.dtype, name
        np.testing.assert_array_equal(mine, theirs, name)
    assert {0, 10, PENALTY} <= set(np.unique(segment.reward))


def test_a_slot_takes_94_bytes() -> None:
    env = predator_prey.make(predator_prey.Options())
    blank = jax.eval_shape(env.codec.pack, segments.blank_segment(env.spec, 201))
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(blank))
    assert size == 94 * 201


# --- sweeps and mistakes


def test_a_sweep_of_penalties_is_one_program() -> None:
    groups = plan(["env=predator_prey", "sweep.env.penalty=[0,-0.5,-2]", "seeds=2"])
    assert len(groups) == 1
    penalties = groups[0].lanes().env_params
    np.testing.assert_array_equal(penalties, np.float32([0, 0, -0.5, -0.5, -2, -2]))
    spec = groups[0].values[0].env.spec
    assert (spec.n_agents, spec.n_actions, spec.obs_size, spec.state_size) == (8, 6, 50, 200)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"n_agents": 1}, "env.n_agents=1 is out of range; expected a value in [2, ∞), such as 8"),
        ({"n_prey": 0}, "env.n_prey=0 is out of range; expected a value in [1, ∞)"),
        ({"size": 101}, "env.size=101 is out of range; expected a value in [2, 100]"),
        ({"size": 2.5}, "env.size=2.5 must be a whole number"),
        ({"size": 3}, "env.size=3 has 9 cells for 8 predators and 8 prey; set env.size=4 or more"),
        (
            {"radius": 11},
            "env.radius=11 is out of range; expected a whole number of at most env.size=10",
        ),
        ({"time_limit": True}, "env.time_limit=true must be a whole number"),
        ({"penalty": 2}, "env.penalty=2 is out of range; expected a value in (-∞, 0], such as 0.0"),
        ({"penalty": float("nan")}, "env.penalty=nan is out of range; expected a value in (-∞, 0]"),
        ({"penalty": float("-inf")}, "env.penalty=-inf is out of range"),
        ({"penalty": "two"}, "env.penalty='two' must be a number in (-∞, 0], such as 0.0"),
    ],
)
def test_mistakes_are_named_with_what_would_do(options: dict, says: str) -> None:
    with pytest.raises(UserError) as error:
        predator_prey.make(predator_prey.Options(**options))
    assert says in str(error.value)


def test_prey_takes_its_turns_in_random_order() -> None:
    """Both can go to one cell alone, and whoever is first gets it: within 4 sigma."""
    n = 2000
    start = field([(1, 0), (1, 2), (0, 3)], [(0, 0), (0, 2)])
    _, play = stage(3, 2)
    keys = jax.random.split(jax.random.key(0), n)
    action = jnp.array([STAY, STAY, STAY])
    after, _, _ = jax.vmap(lambda key: play(key, start, action, jnp.float32(0)))(keys)
    got = np.asarray(after.prey == field([], [(0, 1)]).prey[0])
    assert (got.sum(axis=1) == 1).all()
    assert abs(got[:, 0].mean() - 0.5) < 4 * 0.5 / np.sqrt(n)
