"""Does the greedy joint action maximise the joint value: one state, many states, the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.cli.main import main
from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec
from jaxvff.losses import igm
from jaxvff.losses.contract import Model
from jaxvff.losses.igm import Order
from jaxvff.losses.terms import UtilityValues
from jaxvff.methods.table import METHODS
from jaxvff.mixers import qmix
from jaxvff.reports import diagnosis as reports
from jaxvff.reports import diagnosis_picture
from jaxvff.runs import folder as run_folder
from jaxvff.runs import learned
from jaxvff.settings import build
from jaxvff.settings.diagnosis import DiagnosisOptions
from jaxvff.training import diagnosis
from jaxvff.training.diagnosis import States
from tests import hosts
from tests.oracles import igm as oracle

CASES = 60
SPEC = EnvSpec(n_agents=3, n_actions=4, obs_size=5, state_size=7, episode_limit=9)
HIDDEN = 8


def random_avail(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """At least one available action each; sometimes only one."""
    avail = rng.random(shape) < 0.6
    one = rng.integers(0, shape[-1], shape[:-1])
    return avail | (np.arange(shape[-1]) == one[..., None])


def as_numpy(found: Order) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in found._asdict().items()}


# One state ---------------------------------------------------------------------------------------


def test_a_state_of_nmqmix_is_judged_as_by_brute_force() -> None:
    """Random mixing weights of any sign; utilities with ties, and agents without a choice."""
    rng = np.random.default_rng(0)
    a, u, e = 3, 4, 5

    @jax.jit
    def mine(q, avail, w1, b1, w2, b2):
        rows = jnp.arange(a)
        value = lambda action: qmix.mix(q[rows, action], w1, b1, w2, b2, False)
        return igm.order(value, q, avail, igm.enumerated(value, avail))

    seen = set()
    for case in range(CASES):
        q = rng.normal(size=(a, u)) if case % 2 else rng.integers(-1, 2, (a, u)).astype(float)
        avail = random_avail(rng, (a, u))
        w1, b1, w2 = rng.normal(size=(a, e)), rng.normal(size=e), rng.normal(size=e)
        if (
            case == 0
        ):  # Q_tot grows with |q_0 + q_1 - 1.2|: agents 0 and 1 would have to go together
            q = np.tile([0.0, 1.0, 0.0, 0.0], (a, 1))
            w1, b1, w2 = np.zeros((a, e)), np.zeros(e), np.eye(e)[0] + np.eye(e)[1]
            w1[:2, :2], b1[:2], avail = [1, -1], [-1.2, 1.2], avail | (np.arange(u) < 2)
        weights = (w1, b1, w2, rng.normal())
        expected = oracle.order(oracle.nmqmix(q, *weights), q, avail)
        found = as_numpy(mine(q, avail, *weights))
        seen.add((bool(expected["is_best"]), bool(expected["settled"])))
        for name, x in expected.items():
            # float32 against float64, on values of size 10
            np.testing.assert_allclose(found[name], x, atol=2e-5, err_msg=f"{name}, case {case}")
    # Best; not best though no agent alone can improve; not best and not settled.
    assert seen == {(True, True), (False, True), (False, False)}


def model_of(name: str, spec: EnvSpec = SPEC) -> Model:
    """A model that has no more than a mixer."""
    mixer = build.mixer({"name": name}, spec, HIDDEN)
    none: SimpleNamespace = SimpleNamespace()
    return Model(none, mixer, none, none, n_step=1)  # type: ignore[arg-type]


def random_order(name: str) -> Order:
    """Of random parameters, utilities, available actions and states; leaves `[CASES, ...]`.

    In the first half of the cases utilities are whole numbers, with ties.
    """
    model, rng = model_of(name), np.random.default_rng(1)
    a, u = SPEC.n_agents, SPEC.n_actions
    q = 3 * rng.normal(size=(CASES, a, u))
    q = jnp.array([np.round(x / 3) if i < CASES / 2 else x for i, x in enumerate(q)], jnp.float32)
    avail = jnp.array(random_avail(rng, q.shape))
    features = jnp.array(rng.normal(size=(CASES, a, HIDDEN)), jnp.float32)
    state = jnp.array(rng.normal(size=(CASES, SPEC.state_size)), jnp.float32)

    def one(key, q, avail, features, state) -> Order:
        values = UtilityValues(q, features)
        step = igm.joint_steps(values, jnp.zeros(a, int), avail, state)
        params = {"mixer": model.mixer.init(key, step)}
        value = igm.joint_value(model, params, values, avail=avail, state=state)
        return igm.order(value, q, avail, igm.enumerated(value, avail))

    keys = jax.random.split(jax.random.key(2), CASES)
    return jax.jit(jax.vmap(one))(keys, q, avail, features, state)


@pytest.mark.parametrize("name", ["vdn", "qmix", "qatten", "qplex", "qfix"])
def test_where_igm_is_built_in_greedy_is_best_for_any_parameters(name: str) -> None:
    found = random_order(name)
    assert found.is_best.all() and found.settled.all() and found.own_best.all()
    assert (found.regret == 0).all()
    assert (found.spread > 0).any()
    if name not in ("qplex", "qfix"):  # these order nothing below the greedy joint action
        assert (found.wrong == 0).all() and (found.pairs > 0).any()


@pytest.mark.parametrize("name", ["nmqmix", "qtran", "ordered_joint"])
def test_elsewhere_it_is_not_for_random_parameters(name: str) -> None:
    found = random_order(name)
    assert 0 < found.is_best.mean() < 0.9
    assert ((found.regret > 0) == ~found.is_best).all()
    assert (found.regret <= found.spread).all()
    assert (found.wrong <= found.pairs).all() and (found.wrong > 0).any()


@jax.jit
def of_table(table: jax.Array, q: jax.Array, avail: jax.Array) -> Order:
    value = lambda action: table[tuple(action)]
    return igm.order(value, q, avail, igm.enumerated(value, avail))


def test_utilities_that_are_all_equal_are_best_only_where_all_joint_values_are() -> None:
    q, avail = jnp.zeros((2, 2)), jnp.ones((2, 2), bool)
    for table, best in (([[3.0, 3.0], [3.0, 3.0]], True), ([[0.0, 1.0], [1.0, 2.0]], False)):
        found = of_table(jnp.array(table), q, avail)
        assert bool(found.is_best) == best
        assert int(found.pairs.sum()) == 0  # nobody has said an order


@pytest.mark.parametrize("broken", ["utilities", "values"])
def test_nothing_is_best_of_what_is_not_finite(broken: str) -> None:
    """argmax of NaN is 0, which is the best action here."""
    table = jnp.array([[5.0, 1.0], [1.0, 0.0]])
    q, avail = jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.ones((2, 2), bool)
    if broken == "utilities":
        q = q.at[0].set(jnp.nan)
    else:
        table = table.at[0, 0].set(jnp.nan)
    found = of_table(table, q, avail)
    assert not found.is_best and not found.settled


def test_ascents_bound_the_extremes_from_inside() -> None:
    rng = np.random.default_rng(3)
    a, u = 3, 4

    @jax.jit
    def both(table, q, avail, key):
        value = lambda action: table[tuple(action)]
        climbed = igm.climbed(value, q, avail, key=key, restarts=3, sweeps=3)
        return igm.enumerated(value, avail), climbed, value(igm.greedy(q, avail))

    reached = []
    for case in range(CASES):
        table, q = rng.normal(size=[u] * a), rng.normal(size=(a, u))
        avail = random_avail(rng, (a, u))
        true, found, greedy = both(jnp.array(table), q, avail, jax.random.key(case))
        assert found.largest <= true.largest and found.smallest >= true.smallest
        assert found.largest >= greedy >= found.smallest
        reached.append(bool(found.largest == true.largest))
    assert 0.5 < float(np.mean(reached)) < 1  # of these rugged tables not always


def test_an_ascent_finds_the_largest_sum() -> None:
    rng = np.random.default_rng(4)
    q, worth = rng.normal(size=(2, 6, 5))
    avail = random_avail(rng, (6, 5))
    value = lambda action: jnp.array(worth)[jnp.arange(6), action].sum()
    found = igm.climbed(value, jnp.array(q), jnp.array(avail), key=jax.random.key(0), restarts=0, sweeps=1)  # fmt: skip
    np.testing.assert_allclose(found.largest, np.where(avail, worth, -9).max(1).sum(), rtol=1e-6)
    np.testing.assert_allclose(found.smallest, np.where(avail, worth, 9).min(1).sum(), rtol=1e-6)


# Many states -------------------------------------------------------------------------------------


def some_states() -> States:
    """Two games of three slots, two agents; the last slot of each shows a final observation."""
    counts = np.array([[1, 1, 0], [1, 0, 0]], bool)
    order = Order(
        is_best=np.array([[1, 0, 0], [0, 0, 0]], bool),
        settled=np.array([[1, 1, 0], [0, 0, 0]], bool),
        regret=np.array([[0, 2, 9], [4, 9, 9]], float),
        spread=np.array([[0, 8, 9], [8, 9, 9]], float),
        own_best=np.array([[[1, 1], [1, 1], [0, 0]], [[1, 0], [0, 0], [0, 0]]], bool),
        pairs=np.array([[[2, 0], [4, 0], [9, 9]], [[4, 0], [9, 9], [9, 9]]]),
        wrong=np.array([[[0, 0], [1, 0], [9, 9]], [[4, 0], [9, 9], [9, 9]]]),
    )
    return States(
        counts=counts,
        time=np.array([[0, 1, 2], [0, 1, 2]]),
        has_choice=np.array([[[1, 1], [1, 0], [1, 1]], [[1, 1], [1, 1], [1, 1]]], bool),
        order=order,
        rising=np.array([[[1, 0], [1, 0], [0, 0]], [[0, 1], [0, 0], [0, 0]]], bool),
    )


def test_the_figures_of_a_seed_are_over_the_states_that_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reports, "LEAST_STATES", 1)
    found = reports.of_seed(some_states(), np.array([0, 1, 2]))
    assert found["states"] == 3
    np.testing.assert_allclose(found["is_best"], 1 / 3)
    np.testing.assert_allclose(found["settled"], 2 / 3)
    np.testing.assert_allclose(found["settled_if_not_best"], 1 / 2)
    np.testing.assert_allclose(found["regret"], 2.0)
    # A range of 0 has a regret of 0.
    np.testing.assert_allclose(found["relative_regret"], (0 + 2 / 8 + 4 / 8) / 3)
    np.testing.assert_allclose(found["regret_percentiles"][[0, -1]], [2, 4])
    np.testing.assert_allclose(found["wrong_pairs"], 5 / 10)
    np.testing.assert_allclose(found["wrong_pairs_of_agent"], [5 / 10, np.nan])
    np.testing.assert_allclose(found["own_best_of_agent"], [1, 1 / 2])  # where it has a choice
    np.testing.assert_allclose(found["rising_of_agent"], [2 / 3, 1 / 2])
    np.testing.assert_allclose(found["rising"], 3 / 5)
    np.testing.assert_allclose(found["is_best_by_time"], [1 / 2, 0])
    np.testing.assert_allclose(found["exceeds"][[0, -1]], [2 / 3, 0])


def test_the_worst_agent_is_the_one_with_most_wrong_pairs_in_the_mean() -> None:
    assert reports.worst_agent(np.array([[0.1, 0.4, np.nan], [0.1, 0.0, np.nan]])) == "1: .20"
    assert reports.worst_agent(np.zeros((2, 3))) == "-"


def test_what_has_no_joint_value_or_no_device_is_refused() -> None:
    toy = hosts.toy_game()
    with pytest.raises(UserError, match="iql has no joint value"):
        diagnosis.check("iql", toy)
    with pytest.raises(UserError, match=r"toy_game\.py run in worker processes; diagnose a run on"):
        diagnosis.check("qmix", toy)


def test_every_joint_value_is_a_method_of_its_mixer() -> None:
    for name, method in METHODS.items():
        if name == "iql":
            continue
        mixer = build.mixer({"name": name}, SPEC, HIDDEN)
        for value in method.joint_values:
            assert value.head is None or callable(getattr(mixer, value.head))
            assert value.utilities in ("utility", *method.other_utilities)


# The command -------------------------------------------------------------------------------------

SMALL = (
    "env=matrix/a",
    "seeds=3",
    "total_steps=200",
    "utility=mlp",
    "hidden_dim=8",
    "return_scale=10",
)
ASKED = DiagnosisOptions(games=2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A run of four methods on Game A, too short to learn it."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    methods = "sweep.method=[nmqmix,cw_qmix,iql,ordered_joint]"
    assert main(["train", methods, *SMALL, f"run_dir={folder}"]) == 0
    return folder


@pytest.mark.slow
def test_the_command_says_of_each_seed_what_brute_force_says(trained: Path, capsys) -> None:
    """The learned tables are those that `evaluate` shows, in env units."""
    capsys.readouterr()
    assert main(["diagnose", f"run={trained}", "games=2"]) == 0
    out = capsys.readouterr().out
    assert "left out: iql has no joint value" in out
    assert "nmqmix on matrix/a: all 9 joint actions" in out
    record = json.loads((trained / reports.FILE).read_text())
    assert (trained / diagnosis_picture.FILE).stat().st_size > 10_000
    assert record["asked"]["games"] == 2
    rows = {(r["method"], r["states"], r["value"]): r for r in record["results"]}
    values = {("nmqmix", "Q_tot"), ("cw_qmix", "Q_tot"), ("cw_qmix", "Q_central"), ("ordered_joint", "Q_joint")}  # fmt: skip
    assert rows.keys() == {(m, s, v) for m, v in values for s in ("greedy", "random")}

    _, jobs = run_folder.old_run(trained)
    for index, job in enumerate(jobs):
        method = job.config.method["name"]
        if method == "iql":
            continue
        with learned.open_program(job) as program:
            known = learned.newest(run_folder.job_folder(trained, jobs, index), job, program)
            assert known is not None
            tested = program.evaluate(known.carry, known.lane)
        name = METHODS[method].joint_values[0].name
        row = rows[method, "greedy", name]["per_seed"]
        assert row["states"] == [2, 2, 2]
        for seed in range(3):
            table, q = (np.asarray(tested[k][seed], float) for k in ("q_tot", "utilities"))
            expected = oracle.order(table, q, np.ones(q.shape, bool))
            assert row["is_best"][seed] == expected["is_best"]
            assert row["settled"][seed] == expected["settled"]
            np.testing.assert_allclose(row["regret"][seed], expected["regret"], rtol=1e-3, atol=1e-4)  # fmt: skip
            shares = np.array(expected["wrong"]) / expected["pairs"]
            np.testing.assert_allclose(row["wrong_pairs_of_agent"][seed], shares, rtol=1e-5)
    # What is built in, and what is not asked of a value that no utility is part of.
    assert rows["cw_qmix", "random", "Q_tot"]["per_seed"]["is_best"] == [1, 1, 1]
    assert "rising" in rows["nmqmix", "greedy", "Q_tot"]["per_seed"]
    assert "rising" not in rows["cw_qmix", "greedy", "Q_central"]["per_seed"]


@pytest.mark.slow
def test_a_damaged_checkpoint_is_refused_and_nothing_is_written(
    trained: Path, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns("diagnosis.*"))
    state = max(folder.glob("00_*/checkpoint/*/state/**/*"), key=lambda p: p.is_file() * p.stat().st_size)  # fmt: skip
    state.write_bytes(state.read_bytes()[:-1])
    assert main(["diagnose", f"run={folder}"]) == 2
    assert "is damaged" in capsys.readouterr().err
    assert not list(folder.glob("diagnosis.*"))


@pytest.mark.slow
def test_over_several_steps_ascents_find_at_most_the_regret_that_enumeration_finds(
    tmp_path: Path,
) -> None:
    """And the states of greedy play are those of whole episodes from their start."""
    _, (job,) = run_folder.new_run(
        ["env=predator_prey", "env.n_agents=3", "env.n_prey=2", "env.size=5", "env.time_limit=6",
         "segment_length=7", "seeds=1", "method=nmqmix", "utility=gru", "hidden_dim=8",
         f"run_dir={tmp_path / 'prey'}"]
    )  # fmt: skip
    lane = job.lanes()
    with learned.open_program(job) as program:
        carry = program.init(lane)
        every, some = (
            [f.states for f in diagnosis.diagnose(program, carry, lane, asked)]
            for asked in (ASKED, DiagnosisOptions(games=2, max_enumerated=0, restarts=2, sweeps=2))
        )
    for all_, climbed in zip(every, some, strict=True):
        counts = all_.counts
        assert counts[:, -1].sum() == 0 and counts.any()
        np.testing.assert_array_equal(all_.time, np.broadcast_to(np.arange(7), (2, 7)))
        assert (climbed.order.regret <= all_.order.regret + 1e-6)[counts].all()
        assert (climbed.order.is_best >= all_.order.is_best)[counts].all()
        np.testing.assert_array_equal(climbed.order.wrong, all_.order.wrong)
    assert (every[0].order.regret > 0).any()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["maven", "uneven"])
def test_a_team_that_draws_a_context_is_judged_under_it(method: str, tmp_path: Path) -> None:
    """Both are monotone in the utilities under a context, so greedy is best in every state."""
    _, (job,) = run_folder.new_run(
        ["env=predator_prey", "env.n_agents=2", "env.n_prey=1", "env.size=4", "env.time_limit=5",
         "segment_length=6", "seeds=1", f"method={method}", "utility=mlp", "hidden_dim=8",
         f"run_dir={tmp_path / method}"]
    )  # fmt: skip
    lane = job.lanes()
    with learned.open_program(job) as program:
        found = list(diagnosis.diagnose(program, program.init(lane), lane, ASKED))
    assert len(found) == 2
    for each in found:
        order, counts = each.states.order, each.states.counts
        assert counts.any() and order.is_best[counts].all()
        assert (order.pairs[counts].sum() > 0) and (order.wrong[counts] == 0).all()


def test_a_run_of_iql_is_refused_before_it_is_looked_for(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "iql"
    run_folder.new_run(["method=iql", *SMALL, f"run_dir={folder}"])
    assert main(["diagnose", f"run={folder}"]) == 2
    message = capsys.readouterr().err
    assert "iql has no joint value" in message and message.count("\n") == 1


def test_a_run_without_a_checkpoint_is_refused(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "qmix"
    run_folder.new_run(["method=qmix", *SMALL, f"run_dir={folder}"])
    assert main(["diagnose", f"run={folder}"]) == 2
    assert "has no checkpoint yet; wait for one or train again" in capsys.readouterr().err


def test_the_help_lists_every_key_with_its_default(capsys) -> None:
    assert main(["diagnose", "--help"]) == 0
    out = capsys.readouterr().out
    assert "max_enumerated=4096" in out and "both|greedy|random" in out
