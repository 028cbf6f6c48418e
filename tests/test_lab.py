"""The stability lab: exact matrices, analytic oracles, barriers, and claims without a verdict."""

from __future__ import annotations

import functools
import itertools
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.cli import main
from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec, JointStep
from jaxvff.envs.matrix import GAMES
from jaxvff.lab import (
    barriers,
    basins,
    claims,
    escapes,
    flows,
    hessians,
    objective,
    points,
    questions,
    sampled_training,
    settings,
    study,
    tabular_model,
    zero_loss,
)
from jaxvff.lab.objective import Policy
from jaxvff.lab.tabular_model import TabularModel
from jaxvff.lab.zero_loss import Points
from jaxvff.mixers.qmix import Qmix

TEMPERATURES = [0.1, 0.3, 1.0, 3.0]
A, B = (np.array(GAMES[name], float) for name in "ab")


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def found() -> Points:
    with jax.enable_x64(True):
        return zero_loss.find(nmqmix(), A, n_points=24, seed=0)


@functools.cache
def nmqmix() -> TabularModel:
    return tabular_model.make(2, 3, "nmqmix")


def policies() -> list[Policy]:
    soft = [Policy.of("softmax", tau) for tau in TEMPERATURES]
    return [*soft, Policy.of("uniform"), Policy.of("epsilon_greedy", 0.1)]


# The model


@pytest.mark.parametrize("mixer", ["nmqmix", "qmix"])
def test_without_hypernetworks_q_tot_is_the_trained_mixer_s(mixer: str) -> None:
    """A random point, lifted to the module of jaxvff.mixers: the same table, through the module itself."""
    small, network = (tabular_model.make(3, 2, mixer, hypernetworks=h) for h in (False, True))
    x = small.init(jax.random.key(1))
    lifted = tabular_model.lift(small, network, x, jax.random.key(2))
    np.testing.assert_allclose(network.q_tot(lifted), small.q_tot(x), rtol=1e-12)
    spec = EnvSpec(3, 2, 1, 1, 1)
    module = Qmix(spec, embed_dim=8, monotonic=mixer == "qmix")
    q = small.utilities(x)
    for action, value in zip(small.joint_actions(), small.q_tot(x), strict=True):
        taken = q[np.arange(3), action]
        step = JointStep(taken, taken, jnp.zeros((3, 2)), jnp.zeros((3, 1)), jnp.ones(1))
        np.testing.assert_allclose(module.apply(network.params(lifted), step), value, rtol=1e-12)


def test_a_policy_is_the_product_of_its_agents_mixtures() -> None:
    q = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    mix = Policy(0.2, 0.3, 0.5, 0.7)
    soft = np.exp(q / 0.7) / np.exp(q / 0.7).sum(1, keepdims=True)
    each = 0.2 / 3 + 0.3 * soft + 0.5 * np.array([[0, 1, 0], [0, 0, 1]])
    want = np.array([each[0, i] * each[1, j] for i in range(3) for j in range(3)])
    got = objective.joint_probs(nmqmix(), mix, jnp.asarray(q), jnp.array([1, 2]))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("full", [0.0, 1.0])
def test_the_field_is_the_gradient_of_the_loss_by_finite_differences(full: float) -> None:
    """Eq. 16: with its policy term, or with the policy held at x."""
    m, policy = nmqmix(), Policy.of("softmax", 0.8)
    x = m.init(jax.random.key(3))
    chosen = objective.greedy_actions(m, x)
    held = objective.joint_probs(m, policy, m.utilities(x), chosen)

    def descended(z):
        mu = objective.joint_probs(m, policy, m.utilities(z), chosen) if full else held
        return float(jnp.sum(mu * (A.ravel() - m.q_tot(z)) ** 2))

    step = 1e-6 * np.eye(m.size)
    slope = [(descended(x + e) - descended(x - e)) / 2e-6 for e in step]
    field = objective.gradient(m, jnp.asarray(A), policy, x, chosen, policy_term=full)
    np.testing.assert_allclose(field, slope, rtol=1e-6, atol=1e-6)


# Points and spectra


def test_points_have_zero_loss_and_the_greedy_action_asked_for(found: Points) -> None:
    m = nmqmix()
    assert len(found.x) == 24
    assert found.consistent.sum() == 12
    for x, chosen, consistent in zip(found.x, found.chosen, found.consistent, strict=True):
        assert np.sum((m.q_tot(jnp.asarray(x)) - A.ravel()) ** 2) < zero_loss.RESIDUAL
        q = np.asarray(m.utilities(jnp.asarray(x)))
        np.testing.assert_array_equal(q.argmax(1), chosen)
        assert consistent == (A[tuple(chosen)] == 12)
    tried, kept = (
        sum(found.starts.values()),
        sum(found.starts.values()) - sum(found.missed.values()),
    )
    assert tried % 24 == 0 and kept >= 24, "counts are of all starts, whatever was kept"


@pytest.mark.parametrize("mixer", ["qmix", "vdn"])
def test_a_mixer_that_cannot_represent_the_game_has_no_point(mixer: str) -> None:
    m = tabular_model.make(2, 3, mixer)
    none = zero_loss.find(m, A, n_points=2, seed=0)
    assert len(none.x) == 0
    assert none.missed == none.starts


def test_the_hessian_at_zero_loss_is_the_weighted_gram_matrix(found: Points) -> None:
    """2 Σ μ ∇Q ∇Qᵀ to 1e-10, at every point and policy, and the semi-gradient's Jacobian is it."""
    run = hessians.compiled(nmqmix())
    for policy in policies():
        stacked = run(jnp.asarray(A), policy, found.x, found.chosen)
        s = hessians.spectrum(stacked)
        assert s.formula_error.max() < 1e-10
        assert s.semi_error.max() < 1e-10
        assert (s.lowest > -1e-10 * s.highest).all()
        assert "unstable" not in s.verdict


def test_a_fixed_mixer_leaves_the_utilities_block(found: Points) -> None:
    """Spectra are those of the block of q, and the dynamics move nothing else."""
    m, q_only = nmqmix(), tabular_model.make(2, 3, "nmqmix", fixed_mixer=True)
    policy = Policy.of("softmax", 1.0)
    full, block = (
        hessians.compiled(each)(jnp.asarray(A), policy, found.x, found.chosen)
        for each in (m, q_only)
    )
    np.testing.assert_allclose(block.hessian, full.hessian[:, :6, :6], rtol=1e-12, atol=1e-12)
    assert hessians.spectrum(block).tangent_dim.max() <= 6
    moved = objective.gradient(
        q_only,
        jnp.asarray(B),
        policy,
        jnp.asarray(found.x[0]),
        jnp.asarray(found.chosen[0]),
        policy_term=1.0,
    )
    assert np.abs(moved[:6]).max() > 0
    np.testing.assert_array_equal(moved[6:], 0)


@pytest.mark.slow
def test_lanczos_finds_the_extreme_eigenvalues_of_the_dense_hessian() -> None:
    """At a point of no zero loss, so that both ends of the spectrum are there to be found."""
    m, policy = nmqmix(), Policy.of("softmax", 1.0)
    x = m.init(jax.random.key(5))
    chosen = objective.greedy_actions(m, x)
    dense = jax.hessian(lambda z: objective.expected_loss(m, jnp.asarray(A), policy, z, chosen))(x)
    values = np.linalg.eigvalsh(dense)
    low, high = hessians.extreme_eigenvalues(m, jnp.asarray(A), policy, x, chosen)
    np.testing.assert_allclose([low, high], [values[0], values[-1]], rtol=1e-9)


@pytest.mark.parametrize(
    ("normal", "values", "mu", "word"),
    [
        ([1.0, 2.0], [0.0, 1.0, 2.0], [0.5, 0.5], "stable"),
        ([1e-13, 2.0], [0.0, 1e-13, 2.0], [0.5, 0.5], "flat"),
        ([1.0, 2.0], [-1e-6, 1.0, 2.0], [0.5, 0.5], "unstable"),
        ([1.0, 2.0], [-1e-12, 1.0, 2.0], [0.5, 0.5], "stable"),
        ([1.0, 2.0], [-1e-6, 1.0, 2.0], [1.0, 0.0], "underflow"),
        ([np.nan, 2.0], [np.nan, 1.0, 2.0], [0.5, 0.5], "underflow"),
    ],
)
def test_verdicts_follow_from_eigenvalues(normal, values, mu, word: str) -> None:
    assert hessians.verdict(*(np.array(v) for v in (normal, values, mu))) == word


@pytest.mark.parametrize(("u", "word", "curvature"), [(0, "unstable", -2), (1, "stable", 4)])
def test_the_double_well_s_top_is_unstable_and_its_floor_is_not(u, word: str, curvature) -> None:
    """V = (u² - 1)² / 4 in u = x1 - x0, |∇u|² = 2: second derivatives -1 and 2 along u, twice that."""
    identity = TabularModel(2, 2, 4, lambda key: jnp.zeros(4), lambda x: x, lambda x: {}, 4)

    def loss(payoff, policy, x, chosen):
        well = ((x[1] - x[0]) ** 2 - 1) ** 2 / 4
        return well + (x[0] + x[1]) ** 2 / 2 + 5 * x[2] ** 2 + x[3] ** 2 / 2

    x = np.array([[-u / 2, u / 2, 0.0, 0.0]])
    run = hessians.compiled(identity, loss)
    s = hessians.spectrum(run(jnp.zeros((2, 2)), Policy.of("uniform"), x, np.zeros((1, 2), int)))
    assert s.verdict == [word]
    np.testing.assert_allclose(np.sort(s.normal[0]), sorted([curvature, 1, 2, 10]), atol=1e-12)


# Flows: analytic oracles in place of a game


def potential(monkeypatch, value) -> TabularModel:
    """A model of two agents with two actions each, whose field is that of a potential of x."""

    def gradient(m, payoff, policy, x, chosen, *, policy_term):
        return jax.grad(value)(x)

    monkeypatch.setattr(objective, "gradient", gradient)
    return TabularModel(2, 2, 4, lambda key: jnp.zeros(4), lambda x: jnp.zeros(4), lambda x: {}, 4)


def follow(m: TabularModel, x0, time: float, max_switches: int = 4) -> flows.Flow:
    dynamics = flows.Dynamics(Policy.of("uniform"), 0.0)
    run = jax.jit(
        lambda x: flows.flow(
            m, jnp.zeros((2, 2)), dynamics, x, time=time, max_switches=max_switches
        )
    )
    return jax.device_get(run(jnp.asarray(x0, float)))


def test_a_flow_in_a_stiff_quadratic_follows_the_exponentials(monkeypatch) -> None:
    """x(t) = exp(-λ t) x(0), curvatures from 1e-2 to 1e4, to 100 times the solver's tolerance."""
    curvature = jnp.array([1e4, 1.0, 0.3, 1e-2])
    m = potential(monkeypatch, lambda x: 0.5 * jnp.sum(curvature * x**2))
    x0 = np.array([3.0, -1.0, 5.0, 2.0])
    flow = follow(m, x0, 2.0)
    np.testing.assert_allclose(flow.x, np.exp(-curvature * 2.0) * x0, rtol=1e-3, atol=1e-5)
    assert flow.ok


def test_the_change_of_a_greedy_action_is_found_where_it_happens(monkeypatch) -> None:
    """q1 = (2 e^-3t, e^-t) meet at t = log(2) / 2, once; to the error of a solver at rtol 1e-5."""
    curvature = jnp.array([3.0, 1.0, 0.0, 0.0])
    m = potential(monkeypatch, lambda x: 0.5 * jnp.sum(curvature * x**2))
    flow = follow(m, [2.0, 1.0, 1.0, 0.0], 3.0)
    assert flow.n_switches == 1
    np.testing.assert_allclose(flow.switches.time[0], np.log(2) / 2, rtol=1e-3)
    assert (flow.switches.agent[0], flow.switches.before[0], flow.switches.after[0]) == (0, 0, 1)
    np.testing.assert_array_equal(flow.chosen, [1, 0])
    assert np.isinf(flow.switches.time[1:]).all()


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_double_well_is_left_to_the_side_of_the_start(monkeypatch, side: float) -> None:
    """V = (u² - 1)² / 4 in u = q1(1) - q1(0): from beside the top, 1e-3 away, to that side's well."""
    m = potential(monkeypatch, lambda x: ((x[1] - x[0]) ** 2 - 1) ** 2 / 4)
    flow = follow(m, [0.0, side * 1e-3, 0.0, -1.0], 60.0)
    np.testing.assert_allclose(flow.x[1] - flow.x[0], side, atol=1e-4)
    assert flow.at_rest and flow.n_switches == 0


@pytest.mark.slow
def test_a_flow_that_blows_up_is_left_out(monkeypatch) -> None:
    m = potential(monkeypatch, lambda x: -jnp.sum(x**4))
    flow = follow(m, [1.0, 0.5, 0.2, 0.1], 10.0)
    assert not flow.ok


@pytest.mark.slow
def test_uniform_flows_do_not_climb() -> None:
    """Real games: the loss falls along a flow, and ties are crossed above their barrier only."""
    m, y = nmqmix(), jnp.asarray(A)
    dynamics = flows.Dynamics(Policy.of("uniform"), 1.0)
    run = jax.jit(
        lambda xs: jax.lax.map(
            lambda x: flows.flow(m, y, dynamics, x, time=50.0, max_switches=6), xs
        )
    )
    x0 = jax.vmap(m.init)(jax.random.split(jax.random.key(0), 6))
    flow = jax.device_get(run(x0))
    table, crossed = barriers.bounds(A), 0
    for k in range(6):
        before = float(jnp.mean((m.q_tot(x0[k]) - A.ravel()) ** 2))
        losses = [before, *flow.switches.loss[k][np.isfinite(flow.switches.time[k])]]
        losses.append(float(jnp.mean((m.q_tot(flow.x[k]) - A.ravel()) ** 2)))
        assert all(b <= a * (1 + 1e-4) for a, b in itertools.pairwise(losses))
        for j in range(flow.n_switches[k]):
            s = jax.tree.map(lambda leaf, at=(k, j): leaf[at], flow.switches)
            assert s.loss >= table[s.agent, s.before, s.after] * (1 - 1e-6)
            crossed += 1
    assert crossed > 0


# Barriers and the stochastic algorithm


@pytest.mark.slow
def test_barriers_are_the_least_losses_at_ties() -> None:
    """By hand on Game A (48 and 0), and by minimisation on both games, to 1e-6."""
    np.testing.assert_allclose(barriers.bounds(A)[0], [[0, 48, 48], [48, 0, 0], [48, 0, 0]])
    assert barriers.to_reach(A, np.array([1, 1])) == (0.0, 48.0)
    assert barriers.to_reach(A, np.array([0, 0])) == (48.0, 0.0)
    for y in (A, B):
        measured = barriers.measured(nmqmix(), y, n_starts=6, seed=0)
        np.testing.assert_allclose(measured, barriers.bounds(y), atol=1e-6)


def test_zero_loss_points_do_not_move_under_sampling(found: Points) -> None:
    """Every sample's gradient is zero there: no noise to escape on, whatever is sampled."""
    n = len(found.x)
    starts = sampled_training.Start(
        jnp.asarray(found.x),
        jax.random.split(jax.random.key(0), n),
        jnp.full(n, 1e-4),
        jnp.broadcast_to(A, (n, 3, 3)),
    )
    policy = Policy.of("epsilon_greedy", 0.3)
    out = sampled_training.run(nmqmix(), policy, starts, optimizer="sgd", updates=300)
    assert (out.left == sampled_training.NEVER).all() and (
        out.diverged == sampled_training.NEVER
    ).all()
    assert out.max_error.max() < 1e-8


def test_a_divergent_lane_is_counted_and_no_success(found: Points) -> None:
    starts = sampled_training.Start(
        jnp.asarray(found.x[:4]) + 0.1,
        jax.random.split(jax.random.key(0), 4),
        jnp.full(4, 1e3),
        jnp.broadcast_to(A, (4, 3, 3)),
    )
    out = sampled_training.run(nmqmix(), Policy.of("uniform"), starts, optimizer="sgd", updates=200)
    assert (out.diverged < 200).all()
    assert not out.decided.any()
    shares = escapes.incidence(out, 200)
    np.testing.assert_allclose(shares["stayed"] + shares["left"] + shares["diverged"], 1)
    assert shares["stayed"][-1] == 0


# Claims


def evaluated(found: Points, loss=None) -> dict[str, claims.Claim]:
    at = hessians.at_temperatures(nmqmix(), A, found, [0.3, 1.0], loss=loss)
    return {row.name: row for row in claims.evaluate(nmqmix(), A, found, at, seed=0)}


def test_claims_on_game_a_follow_from_exact_figures(found: Points) -> None:
    rows = evaluated(found)
    assert rows["Theorem 1"].holds == rows["Theorem 1"].cases == 24
    assert rows["Lemma 1"].holds == rows["Lemma 1"].cases
    assert rows["Theorem 3"].holds == 0 and rows["Theorem 3"].cases == 24
    assert rows["eq. 21"].holds == 0 and rows["eq. 19"].holds == 0
    # At (1, 1) and its like no agent alone earns more; at (0, 1) agent 2 does.
    inconsistent = found.chosen[~found.consistent]
    assert rows["eq. 23"].holds == sum(0 in g for g in inconsistent)


@pytest.mark.slow
def test_claims_say_so_where_theorem_3_is_true(found: Points) -> None:
    """A loss with the curvature of eq. 21 added along v: the same code finds the theorem to hold."""
    m = nmqmix()

    def loss(payoff, policy, x, chosen):
        q = m.utilities(x)
        best = jnp.stack(jnp.unravel_index(jnp.argmax(payoff), payoff.shape))
        gap = q[jnp.arange(2), best] - q[jnp.arange(2), chosen]
        lack = jnp.max(payoff) - payoff[tuple(chosen)]
        bend = -0.5 * lack / policy.temperature * jnp.sum((gap - jax.lax.stop_gradient(gap)) ** 2)
        return objective.expected_loss(m, payoff, policy, x, chosen) + 100 * bend

    plain, rows = evaluated(found), evaluated(found, loss)
    assert rows["Theorem 3"].holds == rows["Theorem 3"].cases == 24
    assert rows["Theorem 2"] == plain["Theorem 2"]._replace(exact=rows["Theorem 2"].exact)
    lowest = float(rows["eq. 21"].exact.split("exact from ")[1].split(" ")[0])
    assert lowest < 0


@pytest.mark.slow
def test_ties_at_the_optimum_leave_the_theorems_out() -> None:
    y = np.array(GAMES["penalty"], float)
    m = nmqmix()
    some = zero_loss.find(m, y, n_points=12, seed=0)
    assert len(some.x) > 0
    at = hessians.at_temperatures(m, y, some, [1.0])
    names = [row.name for row in claims.evaluate(m, y, some, at, seed=0)]
    assert names == ["Theorem 1", "Lemma 1"]


def test_a_temperature_that_underflows_is_left_out_and_counted(found: Points) -> None:
    at = hessians.at_temperatures(nmqmix(), A, found, [1e-4])
    rows = {r.name: r for r in claims.evaluate(nmqmix(), A, found, at, seed=0)}
    assert rows["Theorem 3"].left_out == 12 and rows["Theorem 3"].cases == 0
    assert rows["Theorem 3"].holds == 0


# The command


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["gam=a"], "did you mean game"),
        (["mixer=qplex"], "mixer='qplex' is unknown"),
        (["temperatures=[0]"], "positive numbers"),
        (["points=1"], "points=1 is out of range"),
        (["payoff=[[1,1],[1,1]]"], "every payoff is 1"),
        (["payoff=[[1,2]"], "write key=value"),
        (["payoff=[[1,2],[3]]"], "ragged"),
        (["game=random", "n_agents=6", "n_actions=4"], "too many for the lab"),
        (["optimizer=lion"], "optimizer='lion' is unknown"),
    ],
)
def test_a_mistake_is_named_before_anything_compiles(args: list[str], says: str, capsys) -> None:
    with pytest.raises(UserError, match=says.replace("(", r"\(")):
        settings.load(args).table()
    assert main.main(["stability", *args]) == 2
    assert says in capsys.readouterr().err


def test_options_are_read_without_jax_and_without_the_solvers() -> None:
    """So that a misspelt key is answered at once."""
    says = (
        "import sys; import jaxvff.lab.settings; "
        "print(*{'jax', 'diffrax', 'optimistix', 'matplotlib'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", says], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == ""


FOR_CLAIMS = ["points=4", "lanes=8", "updates=50", "temperatures=[1]"]
TINY = [*FOR_CLAIMS, "starts=2", "time=5"]


@pytest.mark.slow
def test_the_lab_answers_every_question(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "run"
    args = ["game=random", "n_agents=3", "n_actions=2", *TINY, f"run_dir={folder}"]
    assert main.main(["stability", *args]) == 0
    out = capsys.readouterr().out
    for words in ("zero-loss points", "Hessian", "Ends of flows", "Negation test", "Theorem 3"):
        assert words in out
    for name in ("points", "spectra", "escapes", "barriers", "basins", "phase", "claims"):
        json.loads((folder / f"{name}.json").read_text())
    for name in ("spectra", "escapes", "barriers", "basins", "phase"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    assert main.main(["stability", *args]) == 2, "a folder is never written into twice"


@pytest.mark.slow
def test_claims_alone_and_a_game_without_points(tmp_path: Path, capsys) -> None:
    args = ["mixer=vdn", *FOR_CLAIMS, f"run_dir={tmp_path}/run"]
    assert main.main(["stability", "claims", *args]) == 0
    out = capsys.readouterr().out
    assert "No zero-loss point" in out and "Lemma 1" in out and "Theorem 3" not in out


def test_questions_are_answered_in_the_order_that_is_shown(monkeypatch) -> None:
    monkeypatch.setattr(study, "prepare", lambda *_: None)
    monkeypatch.setattr(basins, "random_flows", lambda *_: None)
    for question in (points, basins, claims):
        monkeypatch.setattr(question, "answer", lambda *_, **__: None)
    for name in questions.INDEPENDENT:
        monkeypatch.setitem(questions.INDEPENDENT, name, lambda *_: None)
    asked = settings.StabilityOptions()
    assert tuple(name for name, _ in questions.answers(asked)) == questions.QUESTIONS
    assert tuple(name for name, _ in questions.answers(asked, True)) == questions.CLAIM_QUESTIONS


@pytest.mark.slow
def test_what_is_answered_survives_an_interruption(tmp_path: Path, monkeypatch, capsys) -> None:
    def interrupted(_: study.Study) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(questions.INDEPENDENT, "escapes", interrupted)
    folder = tmp_path / "run"
    assert main.main(["stability", "claims", *FOR_CLAIMS, f"run_dir={folder}"]) == 130
    assert json.loads((folder / "points.json").read_text())["consistent"] == 2
    assert json.loads((folder / "settings.json").read_text())["points"] == 4
