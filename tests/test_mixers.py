"""What each mixer promises, on random parameters and inputs."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.errors import UserError
from jaxvff.core.types import EnvSpec, JointStep
from jaxvff.methods.table import METHODS
from jaxvff.mixers import qfix
from jaxvff.mixers.pow_qmix import PowQmix
from jaxvff.mixers.qmix import Qmix
from jaxvff.mixers.resq import Resq
from jaxvff.settings import build

SPEC = EnvSpec(n_agents=3, n_actions=4, obs_size=5, state_size=7, episode_limit=9)
HIDDEN = 8
CASES = 50


def random_step(key: jax.Array, spec: EnvSpec = SPEC, name: str = "qmix") -> JointStep:
    """A random step, with what the method draws for an episode if it does."""
    k = jax.random.split(key, 4)
    context = build.context({"name": name}, spec)
    q = 3 * jax.random.normal(k[0], (spec.n_agents, spec.n_actions))
    action = jax.random.randint(k[1], (spec.n_agents,), 0, spec.n_actions)
    return JointStep(
        q_taken=jnp.take_along_axis(q, action[:, None], 1)[:, 0],
        q_max=q.max(-1),
        action=jax.nn.one_hot(action, spec.n_actions),
        features=jax.random.normal(k[2], (spec.n_agents, HIDDEN)),
        state=jax.random.normal(k[3], (spec.state_size,)),
        context=None if context is None else jax.nn.one_hot(action[0], context.size),
    )


def cases(name: str, **options):
    mixer = build.mixer({"name": name, **options}, SPEC, HIDDEN)
    keys = jax.random.split(jax.random.key(7), CASES)
    params = jax.vmap(lambda k: mixer.init(k, random_step(k, name=name)))(keys)
    steps = jax.vmap(lambda k: random_step(jax.random.fold_in(k, 1), name=name))(keys)
    return mixer, params, steps


def slopes(name: str, **options) -> jax.Array:
    """∂Q_tot/∂Q_i `[cases, A]`."""
    mixer, params, steps = cases(name, **options)
    f = lambda q, p, s: mixer.apply(p, s._replace(q_taken=q))
    return jax.vmap(jax.grad(f))(steps.q_taken, params, steps)


@pytest.mark.parametrize(
    "name", ["vdn", "qmix", "qatten", "cw_qmix", "ow_qmix", "pow_qmix", "resq", "maven"]
)
def test_monotone_mixers_never_fall_with_a_utility(name: str) -> None:
    assert (slopes(name) >= 0).all()


def test_nmqmix_falls_with_some_utility() -> None:
    share = float((slopes("nmqmix") < 0).mean())
    assert 0.2 < share < 0.8  # signs of random weights: about half


@pytest.mark.parametrize("options", [{}, {"embed_dim": 4}, {"embed_dim": 256, "hypernet_dim": 8}])
def test_nmqmix_with_a_positive_start_rises_with_the_utilities_at_first(options: dict) -> None:
    rising = slopes("nmqmix", positive_start=True, **options) > 0
    assert rising.mean() >= 0.99


def test_a_positive_start_does_not_hold_the_signs() -> None:
    """What training may do later: with other weights the same mixer falls with a utility."""
    mixer, params, steps = cases("nmqmix", positive_start=True)
    p = jax.tree.map(lambda x: x, params)
    p["params"]["hyper_w2"] = jax.tree.map(jnp.negative, p["params"]["hyper_w2"])
    f = lambda q, p, s: mixer.apply(p, s._replace(q_taken=q))
    assert (jax.vmap(jax.grad(f))(steps.q_taken, p, steps) < 0).mean() >= 0.99


def test_nmqmix_without_a_positive_start_is_qmix_less_the_absolute_value() -> None:
    """Bit for bit, parameters included; `false` is what is not typed."""
    mixer, params, steps = cases("nmqmix")
    free = Qmix(SPEC, monotonic=False)
    keys = jax.random.split(jax.random.key(7), CASES)
    expected = jax.vmap(lambda k: free.init(k, random_step(k)))(keys)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    jax.tree.map(np.testing.assert_array_equal, params, cases("nmqmix", positive_start=False)[1])
    values = [jax.vmap(m.apply)(params, steps) for m in (mixer, free)]
    np.testing.assert_array_equal(*values)


def test_a_positive_start_is_an_option_of_nmqmix_alone() -> None:
    build.check_method({"name": "nmqmix", "positive_start": True})
    with pytest.raises(UserError, match=r"method\.positive_start is no option of qmix"):
        build.check_method({"name": "qmix", "positive_start": True})


def test_nmqmix_is_qmix_where_its_weights_are_not_negative() -> None:
    qmix, params, steps = cases("qmix")
    nmqmix, _, _ = cases("nmqmix")

    def lifted(p):  # hypernetworks whose outputs are >= 0: non-negative layers after the ReLU
        p = jax.tree.map(lambda x: x, p)
        for name in ("hyper_w1", "hyper_w2"):
            p["params"][name]["layers_2"] = jax.tree.map(jnp.abs, p["params"][name]["layers_2"])
        return p

    for case in range(5):
        at = lambda tree, i=case: jax.tree.map(lambda x: x[i], tree)
        mine = lifted(at(params))
        np.testing.assert_array_equal(nmqmix.apply(mine, at(steps)), qmix.apply(mine, at(steps)))


@pytest.mark.parametrize("name", METHODS)
def test_a_state_of_size_0_leaves_a_mixer_that_is_finite_and_knows_the_utilities(name: str) -> None:
    spec = SPEC._replace(state_size=0)
    mixer = build.mixer({"name": name}, spec, HIDDEN)
    step = random_step(jax.random.key(3), spec, name)
    params = mixer.init(jax.random.key(4), step)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(params))
    q_tot = mixer.apply(params, step)
    assert jnp.isfinite(q_tot).all()
    other = step._replace(
        q_taken=step.q_taken + 1, features=step.features + 1, action=jnp.roll(step.action, 1, -1)
    )
    assert (mixer.apply(params, other) != q_tot).all()


def test_vdn_is_the_sum() -> None:
    mixer, params, steps = cases("vdn")
    q_tot = jax.vmap(mixer.apply)(params, steps)
    np.testing.assert_array_equal(q_tot, jax.vmap(jnp.sum)(steps.q_taken))


def test_qatten_weights_of_a_head_sum_to_one() -> None:
    mixer, params, steps = cases("qatten")
    f = lambda p, s, c: mixer.apply(p, s._replace(q_taken=s.q_taken + c))
    scale = lambda p, s: jnp.abs(
        mixer.apply(p, s.state, method=lambda m, x: m.head_weight(x))
    ).sum()
    raised = jax.vmap(f, (0, 0, None))(params, steps, 1.0) - jax.vmap(f, (0, 0, None))(
        params, steps, 0.0
    )
    np.testing.assert_allclose(raised, jax.vmap(scale)(params, steps), rtol=1e-4, atol=1e-5)


QFIX = [{"fixee": fixee, "form": form} for fixee in qfix.FIXEES for form in qfix.FORMS]


def over_joint_actions(value, params, steps):
    """`value(params, step)` of all 64 joint actions of each case, by new random utilities.

    Returns:
      Values `[cases, 64]`, and the place of the greedy joint action among them `[cases]`.
    """
    joint = jnp.array(list(itertools.product(range(SPEC.n_actions), repeat=SPEC.n_agents)))
    q = 3 * jax.random.normal(jax.random.key(3), (CASES, SPEC.n_agents, SPEC.n_actions))

    def values(p, s, q):
        def one(action):
            step = s._replace(
                q_taken=jnp.take_along_axis(q, action[:, None], 1)[:, 0],
                q_max=q.max(-1),
                action=jax.nn.one_hot(action, SPEC.n_actions),
            )
            return value(p, step)

        return jax.vmap(one)(joint)

    greedy = jnp.all(joint == q.argmax(-1)[:, None], axis=-1).argmax(-1)
    return jax.vmap(values)(params, steps, q), greedy


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {}) for name in ("qplex", "qmix", "vdn", "qatten", "maven")),
        *(("qfix", o) for o in QFIX),
    ],
    ids=lambda x: x if isinstance(x, str) else "-".join(x.values()),
)
def test_igm_by_enumeration(name: str, options: dict) -> None:
    """The joint action of greedy agents has the largest Q_tot of all 64."""
    mixer, params, steps = cases(name, **options)
    q_tot, greedy = over_joint_actions(mixer.apply, params, steps)
    np.testing.assert_array_equal(q_tot.argmax(-1), greedy)


def test_resqs_residual_only_lowers_so_that_greedy_agents_maximise_the_sum() -> None:
    mixer, params, steps = cases("resq")
    main, greedy = over_joint_actions(mixer.apply, params, steps)
    residual, _ = over_joint_actions(partial(mixer.apply, method=Resq.residual), params, steps)
    assert (residual <= 0).all()
    assert (residual < 0).mean() > 0.99
    masked = residual.at[jnp.arange(CASES), greedy].set(0.0)  # w_r
    np.testing.assert_array_equal((main + masked).argmax(-1), greedy)


def test_the_recogniser_of_pow_qmix_is_largest_where_agents_are_greedy() -> None:
    mixer, params, steps = cases("pow_qmix")
    advantage = partial(mixer.apply, method=PowQmix.advantage)
    below, greedy = over_joint_actions(advantage, params, steps)
    np.testing.assert_array_equal(below[jnp.arange(CASES), greedy], 0)
    assert (below <= 0).all()
    np.testing.assert_array_equal(below.argmax(-1), greedy)
    # It learns about the utilities and does not shape them.
    slope = jax.vmap(jax.grad(lambda q, p, s: advantage(p, s._replace(q_taken=q))))
    assert not slope(steps.q_taken, params, steps).any()


@pytest.mark.parametrize("fixee", qfix.FIXEES)
def test_forms_of_qfix_differ_in_the_gradient_of_the_utilities(fixee: str) -> None:
    """Additive and detached are one value; detached, utilities learn as those of the fixee do."""
    mixer, params, steps = cases("qfix", fixee=fixee, form="detached")
    additive = cases("qfix", fixee=fixee, form="additive")[0]
    values = [jax.vmap(m.apply)(params, steps) for m in (mixer, additive)]
    np.testing.assert_array_equal(*values)
    detached, attached = (slopes("qfix", fixee=fixee, form=f) for f in ("detached", "additive"))
    assert (jnp.abs(detached - attached) > 1e-3).mean() > 0.9
    if fixee == "mono":
        inner = {"params": params["params"]["qmix"]}
        fixed = Qmix(SPEC)
        f = lambda q, p, s: fixed.apply(p, s._replace(q_taken=q))
        expected = jax.vmap(jax.grad(f))(steps.q_taken, inner, steps)
    else:
        expected = jnp.ones_like(detached)
    np.testing.assert_allclose(detached, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["qtran", "qplex"])
def test_relabelling_actions_with_their_weights_changes_nothing(name: str) -> None:
    """Actions enter as one-hots: permuting them and the rows that read them is no change."""
    mixer, params, steps = cases(name)
    order = np.array([2, 0, 3, 1])
    moved = steps._replace(action=steps.action[..., order])

    def rows(kernel: jax.Array, at: int, groups: int) -> jax.Array:
        u = SPEC.n_actions
        index = np.concatenate([at + g * u + order for g in range(groups)])
        return kernel.at[:, at : at + groups * u].set(kernel[:, index])

    p = jax.tree.map(lambda x: x, params)
    layers = (
        [("encode", HIDDEN, 1)]
        if name == "qtran"
        else [(f"actions_{i}", SPEC.state_size, SPEC.n_agents) for i in range(4)]
    )
    for layer, at, groups in layers:
        first = p["params"][layer]["layers_0"]
        first["kernel"] = rows(first["kernel"], at, groups)
    before, after = (jax.vmap(mixer.apply)(a, b) for a, b in ((params, steps), (p, moved)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)  # sums in another order


@pytest.mark.parametrize("name", [n for n in METHODS if n != "iql"])
def test_every_joint_mixer_returns_one_finite_number(name: str) -> None:
    mixer, params, steps = cases(name)
    q_tot = jax.vmap(mixer.apply)(params, steps)
    assert q_tot.shape == (CASES,)
    assert np.isfinite(q_tot).all()


def test_qatten_reads_agents_own_entries_of_the_state_where_there_are_any() -> None:
    spec = SPEC._replace(agent_state_size=2)
    mixer = build.mixer({"name": "qatten"}, spec, HIDDEN)
    step = random_step(jax.random.key(0), spec)
    params = mixer.init(jax.random.key(1), step)
    assert params["params"]["key_0"]["kernel"].shape[0] == 2
