"""Level-based foraging: its rules are the reference's, by traces of lbforaging."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.core.types import Env
from jaxvff.envs import foraging
from jaxvff.envs.foraging import LOAD, Field
from jaxvff.runs.plan import plan

# Steps of lbforaging 2.0.0: fields before and after, actions, rewards and observations (int8).
TRACES = np.load(Path(__file__).parent / "data" / "foraging.npz")


def traced(case: int) -> tuple[Env, dict[str, np.ndarray]]:
    meta = ast.literal_eval(str(TRACES[f"{case}/meta"]))
    env = foraging.make(
        foraging.Options(
            n_agents=meta["n"], n_food=meta["f"], size=meta["size"], sight=meta["sight"],
            max_level=meta["ml"], force_coop=meta["coop"], penalty=meta["pen"],
        )
    )  # fmt: skip
    names = [name for name in TRACES if name.startswith(f"{case}/") and name[2:] != "meta"]
    return env, {name[2:]: TRACES[name] for name in names}


def fields(x: dict[str, np.ndarray], agents: str = "agents", weight: str = "weight") -> Field:
    n = len(x["level"])
    ints = {k: jnp.asarray(x[k], jnp.int32) for k in ("level", "food", "spawned")}
    return Field(
        agents=jnp.asarray(x[agents], jnp.int32),
        weight=jnp.asarray(x[weight], jnp.int32),
        time=jnp.zeros(n, jnp.int32),
        **ints,
    )


@pytest.mark.parametrize("case", [0, 1, 2])
def test_steps_and_observations_are_the_references(case: int) -> None:
    """2,623 steps in all; 145 earn something, 1,601 cost something."""
    env, x = traced(case)

    def observe(field: Field) -> jax.Array:
        return env.observe(field, env.params).obs

    np.testing.assert_array_equal(jax.vmap(observe)(fields(x)), x["obs"])
    step = jax.vmap(lambda field, action: env.step(jax.random.key(0), field, action, env.params))
    after, outcome = step(fields(x), jnp.asarray(x["action"], jnp.int32))
    np.testing.assert_array_equal(after.agents, x["next_agents"])
    np.testing.assert_array_equal(after.weight, x["next_weight"])
    np.testing.assert_allclose(outcome.reward, x["reward"], atol=1e-6)
    np.testing.assert_array_equal(jax.vmap(observe)(after), x["next_obs"])
    np.testing.assert_array_equal(outcome.terminated, x["next_weight"].sum(axis=1) == 0)


def test_an_episode_starts_with_everything_in_its_place() -> None:
    options: dict[str, Any] = {"n_agents": 3, "n_food": 3, "size": 8, "max_level": 3}
    free = foraging.make(foraging.Options(**options))
    coop = foraging.make(foraging.Options(**options, force_coop=True))
    keys = jax.random.split(jax.random.key(0), 512)
    field = jax.vmap(lambda key: free.reset(key, free.params))(keys)
    food, agents = np.asarray(field.food), np.asarray(field.agents)
    assert ((food >= 1) & (food <= 6)).all()
    assert ((agents >= 0) & (agents <= 7)).all()
    taken = np.concatenate([food, agents], axis=1) @ [8, 1]
    assert all(len(set(row)) == 6 for row in taken)
    away = np.abs(food[:, :, None] - food[:, None])[:, ~np.eye(3, dtype=bool)]
    assert (away.max(axis=-1) > 1).all()  # not beside each other, corners included
    assert not ((away.sum(axis=-1) == 2) & (away.min(axis=-1) == 0)).any()
    heaviest = np.asarray(field.level).sum(axis=1, keepdims=True)
    assert ((field.weight >= 1) & (field.weight <= heaviest)).all()
    np.testing.assert_array_equal(np.unique(field.level), [1, 2, 3])
    assert (np.sort(food @ [8, 1], axis=1) == food @ [8, 1]).all()  # row by row
    every_cell = {tuple(place) for place in food.reshape(-1, 2)}
    assert len(every_cell) == 36
    together = jax.vmap(lambda key: coop.reset(key, coop.params))(keys)
    np.testing.assert_array_equal(
        together.weight, np.tile(np.asarray(together.level).sum(axis=1, keepdims=True), 3)
    )


def test_all_food_of_an_episode_earns_one_in_all() -> None:
    env = foraging.make(foraging.Options(n_agents=2, n_food=2, size=6))
    field = env.reset(jax.random.key(1), env.params)
    total = 0.0
    for piece in range(2):
        beside = field.food[piece] + jnp.array([[0, 1], [0, -1]])
        field, outcome = env.step(
            jax.random.key(0), field._replace(agents=beside), jnp.full(2, LOAD), env.params
        )
        total += float(outcome.reward)
    assert outcome.terminated
    assert total == pytest.approx(1)
    assert outcome.results["eaten"] == outcome.results["win_rate"] == 1


def test_the_time_limit_truncates_and_the_penalty_is_swept_in_one_program() -> None:
    env = foraging.make(foraging.Options(time_limit=2))
    field = env.reset(jax.random.key(0), env.params)
    for late in (False, True):
        field, outcome = env.step(jax.random.key(0), field, jnp.zeros(2, int), env.params)
        assert bool(outcome.truncated) == late
        assert not outcome.terminated
    (job,) = plan(["env=foraging", "sweep.env.penalty=[0,0.1]", "seeds=2"])
    assert job.n_lanes == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 3}, "env.n_agents=2 leave no place for food.* env.size=3 has 1 such cells"),
        ({"n_food": 0}, r"env.n_food=0 is out of range"),
        ({"penalty": -1.0}, r"env.penalty=-1.0 is out of range"),
    ],
)
def test_a_board_that_is_too_small_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        foraging.make(foraging.Options(**options))
