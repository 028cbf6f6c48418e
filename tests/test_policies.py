"""Trained agents outside of training: the same actions everywhere, from files of their own."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxvff.api.policies import fixed_context
from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec
from jaxvff.learning.learner import init_params
from jaxvff.methods.table import METHODS
from jaxvff.networks import contexts, heads
from jaxvff.networks.utility import Cnn, Gru, Mlp, Utility, network
from jaxvff.playing import rollout
from jaxvff.playing.evaluate import drawing, greedy_player
from jaxvff.policies import files
from jaxvff.policies.layout import Layout
from jaxvff.policies.policy import Policy
from jaxvff.settings import build, config
from tests import toy

SPEC = EnvSpec(n_agents=3, n_actions=5, obs_size=12, state_size=4, episode_limit=10,
               obs_shape=(2, 3, 2))  # fmt: skip
GAMES, STEPS = 4, 8
# float32, and the order in which sums are taken: as a share of the largest |utility|
CLOSE = 1e-6


def team(kind: type = Gru, head: str = "attached", *, spec: EnvSpec = SPEC, **own: Any) -> Policy:
    """A policy with random parameters, of a size that matters."""
    asked = {"norm": "none", "shared": True, "agent_id": True, "last_action": True} | own
    context = None
    if head == "successor":
        tasks = contexts.RelatedTasks(spec, tasks=2)
        context = np.asarray(tasks(np.zeros(spec.state_size), jax.random.key(0), greedy=True))
    made = Utility(
        network(kind, spec, 16, getattr(heads, head), asked.pop("norm")), spec, **asked,
        context_size=0 if context is None else len(context),
    )  # fmt: skip
    params = jax.tree.map(lambda x: 3 * x, made.init(jax.random.key(1)))
    layout = Layout.of(made, f"jaxvff.networks.heads:{head}", context)
    return Policy(made, params, layout, {"method": "test", "seed": 0})


def numpy_agents(folder: Path) -> Any:
    """The act.py of a folder, as a module."""
    spec = importlib.util.spec_from_file_location("act", folder / "act.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def steps(spec: EnvSpec = SPEC) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Observations, available actions, and games that begin anew, of some steps."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(STEPS):
        avail = rng.random((GAMES, spec.n_agents, spec.n_actions)) < 0.4
        one = rng.integers(spec.n_actions, size=avail.shape[:2])  # often the only one
        np.put_along_axis(avail, one[..., None], True, axis=-1)
        obs = rng.normal(size=(GAMES, spec.n_agents, spec.obs_size))
        out.append((obs, avail, rng.random(GAMES) < 0.3))
    return out


CASES = [
    (Mlp, {}),
    (Mlp, {"norm": "layer", "shared": False}),
    (Gru, {"shared": False}),
    (Gru, {"norm": "layer"}),
    (Mlp, {"head": "detached"}),
    (Gru, {"head": "detached", "shared": False}),
    (Mlp, {"head": "successor", "norm": "layer"}),
    (Gru, {"head": "successor"}),
    (Gru, {"agent_id": False}),
    (Mlp, {"last_action": False, "shared": False}),
    (Gru, {"last_action": False, "agent_id": False}),
    (Cnn, {}),
    (Cnn, {"norm": "layer", "head": "detached", "shared": False}),
    (Cnn, {"last_action": False, "agent_id": False}),
]


@pytest.mark.parametrize(("kind", "own"), CASES)
def test_numpy_alone_acts_as_the_policy(kind: type, own: dict, tmp_path: Path) -> None:
    """Utilities to 1e-6, actions exactly; with masks, and games that begin at different times."""
    policy = team(kind, **own)
    files.save_policy(policy, tmp_path / "policy")
    act = numpy_agents(tmp_path / "policy")
    agents, told = act.Team(tmp_path / "policy"), act.Team(tmp_path / "policy")
    again = files.load_policy(tmp_path / "policy")
    for one in (policy, again, agents, told):
        one.reset(GAMES)
    for obs, avail, first in steps():
        wanted = policy.act(obs, avail, first)
        assert np.take_along_axis(avail, wanted[..., None], -1).all()
        np.testing.assert_array_equal(again.act(obs, avail, first), wanted)
        # Any numbers that are true or false: the policy takes them, too.
        numbers = None if first is None else first.astype(np.int32)
        np.testing.assert_array_equal(agents.act(obs, avail, numbers), wanted)
        for i, agent in enumerate(told.agents):
            q, mine = agent.utilities(obs[:, i], first), policy.utilities[:, i]
            np.testing.assert_allclose(q, mine, rtol=0, atol=CLOSE * np.abs(mine).max())
            agent.last_action = wanted[:, i]


def test_an_agent_of_a_gru_remembers_and_forgets_where_a_game_begins() -> None:
    policy = team()
    obs, avail, _ = steps()[0]
    policy.reset(GAMES)
    policy.act(obs)
    first = policy.utilities
    policy.act(obs)
    assert np.abs(policy.utilities - first).max() > 1e-3
    begins = np.array([True, False, True, False])
    policy.act(obs, avail, begins)
    np.testing.assert_array_equal(policy.utilities[begins], first[begins])
    assert np.abs(policy.utilities - first)[~begins].max() > 1e-3


def test_one_game_is_played_without_an_axis_of_games() -> None:
    policy, (obs, avail, _) = team(), steps()[0]
    policy.reset(GAMES)
    wanted = policy.act(obs, avail)
    policy.reset()
    np.testing.assert_array_equal(policy.act(obs[2], avail[2]), wanted[2])
    assert policy.utilities.shape == (SPEC.n_agents, SPEC.n_actions)


@pytest.mark.parametrize("shared", [True, False])
def test_an_agent_needs_policy_json_and_its_own_file(shared: bool, tmp_path: Path) -> None:
    policy = team(shared=shared)
    files.save_policy(policy, tmp_path / "whole")
    (tmp_path / "part").mkdir()
    own = "agents" if shared else "agent_1"
    for name in ("policy.json", f"{own}.safetensors", "act.py"):
        shutil.copy(tmp_path / "whole" / name, tmp_path / "part")
    agent = numpy_agents(tmp_path / "part").Agent(tmp_path / "part", 1)
    policy.reset(GAMES)
    agent.reset(GAMES)
    for obs, avail, first in steps():
        wanted = policy.act(obs, avail, first)[:, 1]
        np.testing.assert_array_equal(agent.act(obs[:, 1], avail[:, 1], first), wanted)


WITHOUT = """
import sys

class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {forbidden!r}:
            raise ImportError(name)

sys.meta_path.insert(0, Nothing())
import numpy as np
"""
IN_NUMPY = """
sys.path.insert(0, "policy")
from act import Team

data = np.load("steps.npz")
team = Team("policy")
team.reset(data["obs"].shape[1])
np.save("out.npy", [team.act(*step) for step in zip(data["obs"], data["avail"], data["first"])])
"""
IN_JAX = """
import jax

data, out = np.load("steps.npz"), []
program = jax.export.deserialize(bytearray(open("policy/agents.jax_export", "rb").read()))
_, n, a = data["obs"].shape[:3]
agent = np.tile(np.arange(a, dtype=np.int32), n)
action, memory = np.zeros(n * a, np.int32), np.zeros((n * a, 16), np.float32)
for t, (obs, avail, first) in enumerate(zip(data["obs"], data["avail"], data["first"])):
    rows = np.repeat(first | (t == 0), a)
    seen = np.float32(obs.reshape(n * a, -1)), avail.reshape(n * a, -1)
    action, memory, _ = program.call(agent, *seen, rows, action, memory)
    out.append(np.asarray(action).reshape(n, a))
np.save("out.npy", out)
"""


@pytest.mark.parametrize(
    ("script", "forbidden"),
    [
        (IN_NUMPY, ("jaxvff", "jax", "jaxlib", "flax", "safetensors")),
        pytest.param(IN_JAX, ("jaxvff", "flax", "safetensors"), marks=pytest.mark.slow),
    ],
)
def test_an_export_acts_without_this_package(
    script: str, forbidden: tuple[str, ...], tmp_path: Path
) -> None:
    policy = team()
    files.save_policy(policy, tmp_path / "policy")
    policy.reset(GAMES)
    wanted = [policy.act(*step) for step in steps()]
    obs, avail, first = map(np.stack, zip(*steps(), strict=True))
    np.savez(tmp_path / "steps.npz", obs=obs, avail=avail, first=first)
    text = WITHOUT.format(forbidden=forbidden) + script
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), wanted)


def played(policy: Policy, actions: np.ndarray, length: int) -> np.ndarray:
    """What a policy does in the episode of tests/toy.py, step by step."""
    env, state, out = toy.make(), (0, 0), []
    policy.reset()
    for action in actions[:length]:
        view = env.observe(state, ())
        out.append(policy.act(view.obs, view.avail))
        state, _ = env.step(None, state, action, ())
    return np.array(out)


@pytest.mark.parametrize(
    ("method", "own"),
    [("qmix", "utility=gru"), ("qmix", "shared=false"), ("uneven", "utility=gru")],
)
def test_a_policy_plays_as_greedy_evaluation_does(method: str, own: str) -> None:
    asked = config.load([f"method={method}", "hidden_dim=16", "env=matrix_steps/two_step", own])
    env = toy.make()
    model = build.model(asked, env)
    params = jax.tree.map(lambda x: 3 * x, init_params(model, jax.random.key(0)))
    draw = drawing(model, params, greedy=True)
    player = greedy_player(env, model.utility, params["utility"], (), draw)
    _, actions, play = rollout.recorded(player, jax.random.key(0))
    layout = Layout.of(model.utility, METHODS[method].head, fixed_context(model, params))
    policy = Policy(model.utility, params["utility"], layout, {})
    length = int(play.length)
    assert length > 2
    np.testing.assert_array_equal(played(policy, actions, length), actions[:length])


def test_what_cannot_be_acted_on_is_told(tmp_path: Path) -> None:
    policy, (obs, avail, _) = team(), steps()[0]
    policy.reset(GAMES)
    with pytest.raises(
        ValueError, match=r"obs has the shape \[4, 3, 6\] and must have \[4, 3, 12\]"
    ):
        policy.act(obs[..., :6])
    nothing = avail.copy()
    nothing[1, 2] = False
    with pytest.raises(ValueError, match=r"avail\[1, 2\] has no available action"):
        policy.act(obs, nothing)
    with pytest.raises(ValueError, match="n=0 games must be 1 or more"):
        policy.reset(0)


def damaged(folder: Path, told: dict) -> None:
    path = folder / files.JSON_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | told))


def test_a_folder_that_is_no_policy_or_a_damaged_one_is_told(tmp_path: Path) -> None:
    folder, policy = tmp_path / "policy", team(shared=False)
    with pytest.raises(UserError, match=r"is no policy: it has no policy\.json; make one with"):
        files.load_policy(folder)
    (tmp_path / "run.yaml").write_text("")
    with pytest.raises(UserError, match=r"is a run folder and no policy; .* jaxvff export run="):
        files.load_policy(tmp_path)
    files.save_policy(policy, folder)
    with pytest.raises(UserError, match="exists and is not empty; name a new folder"):
        files.save_policy(policy, folder)
    network = json.loads((folder / files.JSON_FILE).read_text())["network"]
    damaged(folder, {"network": network | {"hidden_dim": 8}})
    with pytest.raises(UserError, match=r"has the shape .*16.*needs .*8"):
        files.load_policy(folder)
    damaged(folder, {"network": network})
    weights = folder / "agent_1.safetensors"
    whole = load_file(weights)
    save_file({name: x.astype(np.float64) for name, x in whole.items()}, weights)
    with pytest.raises(UserError, match=r"agent_1.safetensors: .* has the type float64 and must"):
        files.load_policy(folder)
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"agent_1.safetensors cannot be read"):
        files.load_policy(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_dim": "16"}, "network.hidden_dim is '16', not a whole number above 0; export"),
        ({"n_agents": True}, "network.n_agents is True, not a whole number above 0"),
        ({"obs_size": 0}, "network.obs_size is 0, not a whole number above 0"),
        ({"utility": ["gru"]}, r"network.utility is \['gru'\], not a text"),
        ({"agent_id": "no"}, "network.agent_id is 'no', not a true or false"),
        ({"norm": "batch"}, "network.norm is 'batch', not none or layer"),
        ({"context": ["x"]}, "could not convert string to float: 'x'"),
        ({"context": 3}, "'int' object is not iterable"),
        ({"context": [float("nan")]}, "network.context is not finite"),
    ],
)
def test_a_layout_of_wrong_types_is_told_before_a_parameter_is_read(
    change: dict, said: str, policy_json: Path
) -> None:
    told = json.loads(policy_json.read_text())
    policy_json.write_text(json.dumps(told | {"network": told["network"] | change}))
    with pytest.raises(UserError, match=rf"policy.json is damaged: {said}"):
        files.load_policy(policy_json.parent)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is damaged: Expecting value"),
        ("[]", "is damaged: list indices must be"),
        ('{"format": "jaxvff policy 1"}', "is damaged: it lacks 'network'; export the run again"),
        ('{"format": null}', "has the format None and this is jaxvff"),
        (
            '{"format": "jaxvff policy 9", "versions": {"jaxvff": "7.0"}}',
            "has the format 'jaxvff policy 9', written by jaxvff 7.0, and this is jaxvff .*; update",
        ),
    ],
)
def test_a_policy_json_that_is_damaged_or_of_the_future_is_told(
    text: str, said: str, policy_json: Path
) -> None:
    policy_json.write_text(text)
    with pytest.raises(UserError, match=rf"policy.json {said}"):
        files.load_policy(policy_json.parent)


@pytest.fixture
def policy_json(tmp_path: Path) -> Path:
    """The policy.json of a folder that has nothing else."""
    told = {"format": files.FORMAT, "network": team().layout._asdict()}
    path = tmp_path / files.JSON_FILE
    path.write_text(json.dumps(told))
    return path


def test_a_policy_of_somebody_runs_no_code_of_its_choice(tmp_path: Path) -> None:
    """The head is a name in a table, never a reference that would be imported."""
    files.save_policy(team(), tmp_path / "policy")
    network = json.loads((tmp_path / "policy" / files.JSON_FILE).read_text())["network"]
    for head in ("antigravity:geohash", "jaxvff.networks.heads:attached", "Callable"):
        damaged(tmp_path / "policy", {"network": network | {"head": head}})
        with pytest.raises(
            UserError, match=r"this version of jaxvff reads mlp, gru, cnn with attached"
        ):
            files.load_policy(tmp_path / "policy")
    assert "antigravity" not in sys.modules


ONE = {
    "matrix": "matrix/b",
    "matrix_steps": "matrix_steps/chain",
    "contextual": "contextual",
    "predator_prey": "predator_prey",
    "foraging": "foraging",
    "smax": "smax/3m",
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "smax")) for n in ONE]
)
def test_names_of_actions_and_observations_are_as_many_as_there_are(name: str) -> None:
    env = build.environment(config.load([f"env={ONE[name]}"]).env)
    assert len(env.action_names) in (0, env.spec.n_actions)
    assert sum(size for _, size in env.obs_parts) in (0, env.spec.obs_size)
    if name in ("matrix", "predator_prey", "foraging", "smax"):
        assert env.action_names
        assert env.obs_parts
