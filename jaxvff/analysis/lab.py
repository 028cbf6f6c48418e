"""From settings to answers: every question of the lab, one function each, as plain dictionaries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.analysis import barriers, claims, escapes, flows, spectra
from jaxvff.analysis import model as core
from jaxvff.analysis import points as search
from jaxvff.analysis.model import Model, Policy
from jaxvff.analysis.points import NAMES, Points
from jaxvff.analysis.settings import Lab
from jaxvff.payoff import FIT_TOLERANCE, wilson

MOST_SWITCHES = 12  # of the greedy joint action that a flow is followed through
LIFTED = 16  # points whose spectra are also computed with the core's hypernetworks
LEVELS = {"softmax": np.geomspace(0.05, 10, 24), "epsilon_greedy": np.linspace(0.02, 1, 24)}
SGD_LEVELS = (0.1, 1.0, 3.0)  # lr · λ_max of the escapes; plain gradient descent is stable below 2
PORTRAIT = 33  # grid points a side
QUESTIONS = ("points", "escapes", "spectra", "barriers", "phase", "basins", "claims")
CLAIM_QUESTIONS = ("points", "escapes", "claims")


class Study(NamedTuple):
    """What the questions share."""

    lab: Lab
    payoff: np.ndarray
    model: Model
    points: Points


def start(lab: Lab) -> Study:
    """The game, the model and its zero-loss points."""
    payoff, model = lab.table(), lab.model()
    return Study(lab, payoff, model, search.find(model, payoff, lab.points, lab.seed))


def answers(lab: Lab, only_claims: bool = False) -> Iterator[tuple[str, Any]]:
    """The answer to each of QUESTIONS (or CLAIM_QUESTIONS), by name, as soon as it is there.

    Float64 throughout. Two questions are worked on at a time: most of the wait is compilation.
    """

    def locally(question: Callable[..., Any], *args: Any) -> Any:
        with jax.enable_x64(True):  # this holds for one thread
            return question(*args)

    pool = ThreadPoolExecutor(2)
    try:
        ahead = None if only_claims else pool.submit(locally, random_flows, lab)
        study = locally(start, lab)
        evidence = locally(gather, study)
        yield "points", points_of(study, evidence)
        wanted = {"escapes": pool.submit(locally, leave, study, evidence)}
        if not only_claims:
            wanted["spectra"] = pool.submit(locally, spectra_of, study, evidence)
            wanted["barriers"] = pool.submit(locally, barriers_of, study)
            wanted["phase"] = pool.submit(locally, portrait, study)
        out: dict[str, Any] = {}
        for name, future in wanted.items():
            out[name] = future.result()
            yield name, out[name]
        if ahead is not None:
            out["basins"] = locally(basins_of, study, ahead.result())
            yield "basins", out["basins"]
        yield "claims", locally(claims_of, study, evidence, out)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def gather(study: Study) -> list[claims.Evidence]:
    """Spectra at the lab's temperatures; nothing without points."""
    if not len(study.points.x):
        return []
    return claims.gather(
        study.model, study.payoff, study.points, list(study.lab.temperatures), None
    )


def points_of(study: Study, evidence: list[claims.Evidence]) -> dict[str, Any]:
    """How many zero-loss points there are, and their kinds."""
    found, payoff = study.points, study.payoff
    out: dict[str, Any] = {
        "size": study.model.free,
        "consistent": int(found.consistent.sum()),
        "inconsistent": int((~found.consistent).sum()),
        "starts": found.starts,
        "missed": found.missed,
        "optima": int((payoff == payoff.max()).sum()),
        "by_greedy_action": {
            " ".join(map(str, g)): int((found.chosen == g).all(1).sum())
            for g in np.unique(found.chosen, axis=0)
        },
    }
    if evidence:
        dims, counts = np.unique(evidence[-1].spectrum.tangent_dim, return_counts=True)
        out["dimension"] = dict(zip(map(str, dims), counts.tolist(), strict=True))
        out["rank_deficient"] = claims.rank_deficient(study.model, evidence[-1].spectrum)
    return out


def spectra_of(study: Study, evidence: list[claims.Evidence]) -> dict[str, Any]:
    """Verdicts, extreme eigenvalues, continuation; the same with hypernetworks."""
    if not evidence:
        return {"table": [], "along": {}, "lifted": []}
    found, rows = study.points, []
    for e in evidence:
        for kind, name in NAMES.items():
            mine = found.consistent == kind
            if mine.any():
                rows.append({"temperature": e.temperature, "kind": name, **_row(e, mine)})
    along: dict[str, Any] = {}
    for policy, levels in LEVELS.items():
        low, lowest = spectra.along(
            study.model, study.payoff, policy, levels, found.x, found.chosen
        )
        along[policy] = {"level": levels, "lowest_normal": low, "lowest": lowest}
    return {
        "table": rows, "along": along, "consistent": found.consistent, "lifted": _lifted(study)
    }  # fmt: skip


def _row(e: claims.Evidence, mine: np.ndarray) -> dict[str, Any]:
    s = e.spectrum
    words = ("unstable", "flat", "stable", "underflow")
    good = mine & claims.decided(e)
    verdicts = {word: int((s.verdict[mine] == word).sum()) for word in words}
    if not good.any():
        return {"points": int(mine.sum()), **verdicts}
    normal = [v.min() for v, ok in zip(s.normal, good, strict=True) if ok]
    return {
        "points": int(mine.sum()), **verdicts,
        "lowest": s.lowest[good].min(), "highest": s.highest[good].max(),
        "lowest_normal": min(normal), "median_lowest_normal": np.median(normal),
        "formula_error": s.formula_error[good].max(), "semi_error": s.semi_error[good].max(),
        "fastest_growth": s.growth[good].max(),
    }  # fmt: skip


def _lifted(study: Study) -> list[dict[str, Any]]:
    """The same points with the core's hypernetworks, extreme eigenvalues by Lanczos."""
    lab, model, found = study.lab, study.model, study.points
    if lab.mixer == "vdn" or lab.fixed_mixer:
        return []
    network = core.make(
        model.n_agents, model.n_actions, lab.mixer, embed_dim=lab.embed_dim, hypernetworks=True
    )
    chosen = np.concatenate([np.flatnonzero(found.consistent == k)[: LIFTED // 2] for k in NAMES])
    keys = jax.random.split(jax.random.key(lab.seed), len(chosen))

    def one(policy: Policy, args: Any) -> Any:
        x, g, key = args
        at = core.lift(model, network, x, key)
        y = jnp.asarray(study.payoff)
        return *spectra.extremes(network, y, policy, at, g), jnp.abs(network.q_tot(at) - y.ravel())

    args = (found.x[chosen], found.chosen[chosen], keys)
    run = jax.jit(lambda policy: jax.lax.map(lambda a: one(policy, a), args))
    out = []
    for tau in lab.temperatures:
        low, high, error = map(np.asarray, run(Policy.of("softmax", tau)))
        out.append({
            "temperature": tau, "size": network.size, "points": len(chosen), "lowest": low.min(),
            "highest": high.max(), "max_error": error.max(),
            "negative": int((low < -spectra.TOLERANCE * high).sum()),
        })  # fmt: skip
    return out


def leave(study: Study, evidence: list[claims.Evidence]) -> list[dict[str, Any]]:
    """Who leaves its greedy joint action beside zero-loss points, stochastically trained."""
    lab, found = study.lab, study.points
    if not evidence:
        return []
    policy = Policy.of("epsilon_greedy", lab.epsilon)
    run = spectra.compiled(study.model)
    stacked = run(jnp.asarray(study.payoff), policy, found.x, found.chosen)
    highest = spectra.of(stacked).highest
    out = []
    settings: list[tuple[str, float | None, np.ndarray]]
    settings = [("sgd", level, level / highest) for level in SGD_LEVELS]
    settings += [(lab.optimizer, None, np.full(len(highest), lab.lr))]
    for optimizer, level, lr in settings:
        outcome, pick = _beside(study, optimizer, lr, policy)
        for kind, name in NAMES.items():
            mine = found.consistent[pick] == kind
            if mine.any():
                part = escapes.Outcome(*(np.asarray(leaf)[mine] for leaf in outcome))
                lambdas = (lr * highest)[pick][mine]
                out.append(
                    {"optimizer": optimizer, "level": level, "kind": name, "lanes": int(mine.sum()),
                     "lr_lambda_max": np.percentile(lambdas, [0, 50, 100]),
                     "lr": np.percentile(lr[pick][mine], [0, 50, 100]),
                     **escapes.incidence(part, lab.updates), **_ends(study, part)}
                )  # fmt: skip
    return out


def _beside(
    study: Study, optimizer: str, lr: np.ndarray, policy: Policy
) -> tuple[escapes.Outcome, np.ndarray]:
    """Lanes that start beside the points, and which ones these are."""
    lab, found = study.lab, study.points
    kinds = [np.flatnonzero(found.consistent == kind) for kind in NAMES]
    kinds = [mine for mine in kinds if len(mine)]
    # Both kinds in equal parts, each point as often as needed.
    pick = np.concatenate([np.resize(mine, lab.lanes // len(kinds)) for mine in kinds])
    n = len(pick)
    key = jax.random.key(lab.seed + 1)
    starts = escapes.Start(
        _near(study, pick), jax.random.split(key, n), jnp.asarray(lr[pick]),
        jnp.broadcast_to(study.payoff, (n, *study.payoff.shape)),
    )  # fmt: skip
    return escapes.run(study.model, policy, starts, optimizer=optimizer, steps=lab.updates), pick


def _near(study: Study, pick: np.ndarray) -> Any:
    """Zero-loss points with noise on what moves, `[len(pick), D]`."""
    model = study.model
    noise = jax.random.normal(jax.random.key(study.lab.seed + 4), (len(pick), model.size))
    return study.points.x[pick] + study.lab.noise * core.held_fixed(model, noise)


def _ends(study: Study, outcome: escapes.Outcome) -> dict[str, Any]:
    optimal = np.asarray(outcome.decided) & search.is_optimal(
        study.payoff, np.asarray(outcome.chosen)
    )
    fit = np.asarray(outcome.max_error) < FIT_TOLERANCE  # False for NaN
    n = len(optimal)
    shares = {"optimal": optimal, "fit": fit, "both": optimal & fit}
    return {k: wilson(int(v.sum()), n)._asdict() for k, v in shares.items()}


def barriers_of(study: Study) -> dict[str, Any]:
    """Barriers, and the negation test."""
    payoff, lab = study.payoff, study.lab
    cells = study.model.joint_actions()
    leave_, reach = zip(*(barriers.to_reach(payoff, g) for g in cells), strict=True)
    return {
        "bounds": barriers.bounds(payoff),
        "measured": barriers.measured(study.model, payoff, 8, lab.seed),
        "to_leave": np.reshape(leave_, payoff.shape),
        "to_reach": np.reshape(reach, payoff.shape),
        "negation": {"y": _trained(study, payoff), "-y": _trained(study, -payoff)},
        "lanes": lab.lanes,
    }


def _trained(study: Study, payoff: np.ndarray) -> dict[str, Any]:
    """Rates of training from random starts; y and -y draw the same starts and keys."""
    lab, n = study.lab, study.lab.lanes
    x_key, key = jax.random.split(jax.random.key(lab.seed + 2))
    x0 = jax.vmap(study.model.init)(jax.random.split(x_key, n))
    starts = escapes.Start(
        x0, jax.random.split(key, n), jnp.full(n, 10 * lab.lr),
        jnp.broadcast_to(payoff, (n, *payoff.shape)),
    )  # fmt: skip
    policy = Policy.of("epsilon_greedy", lab.epsilon)
    outcome = escapes.run(study.model, policy, starts, optimizer=lab.optimizer, steps=lab.updates)
    return _ends(study._replace(payoff=payoff), outcome)


def _dynamics(lab: Lab) -> list[tuple[str, flows.Dynamics]]:
    """The policies and gradients of the flows, by name."""
    policies = {
        "uniform": Policy.of("uniform"),
        "softmax 1": Policy.of("softmax", 1.0),
        f"ε-greedy {lab.epsilon:g}": Policy.of("epsilon_greedy", lab.epsilon),
    }
    out = [(name, flows.Dynamics(p, 0.0)) for name, p in policies.items()]
    # For the other two the policy has no gradient, and both are the same.
    return [*out, ("softmax 1, full", flows.Dynamics(policies["softmax 1"], 1.0))]


Flows = tuple[Callable[..., flows.Flow], flows.Flow]


def random_flows(lab: Lab) -> Flows:
    """Flows from random starts under every dynamics, `[dynamics * starts]`; and the program."""
    payoff, model = lab.table(), lab.model()
    y = jnp.asarray(payoff)

    def one(args: tuple[flows.Dynamics, Any]) -> flows.Flow:
        return flows.flow(
            model, y, *args, time=lab.time, most_switches=MOST_SWITCHES, solver=lab.solver
        )

    device = jax.devices()[-1]  # the other questions are on the first

    # One at a time: a batch would take as many steps as its slowest flow.
    program = jax.jit(lambda dynamics, x: jax.lax.map(one, (dynamics, x)))

    def run(x0: Any) -> flows.Flow:
        every = _dynamics(lab)
        stacked = jax.tree.map(
            lambda *v: jnp.repeat(jnp.asarray(v, float), lab.starts), *(d for _, d in every)
        )
        lanes = jax.device_put((stacked, jnp.tile(x0, (len(every), 1))), device)
        return jax.device_get(program(*lanes))

    keys = jax.random.split(jax.random.key(lab.seed + 3), lab.starts)
    return run, run(jax.vmap(model.init)(keys))


def basins_of(study: Study, random: Flows) -> dict[str, Any]:
    """Where flows end, from random starts and from beside inconsistent and consistent points."""
    lab, found = study.lab, study.points
    run, flow = random
    out = {"random": _classify(study, flow)}
    for kind, name in NAMES.items():
        mine = np.flatnonzero(found.consistent == kind)
        if len(mine):
            pick = mine[np.linspace(0, len(mine) - 1, lab.starts).astype(int)]
            out[name] = _classify(study, run(_near(study, pick)))
    return {"starts": lab.starts, "time": lab.time, **out, "crossings": _crossings(study, flow)}


def _classify(study: Study, flow: flows.Flow) -> list[dict[str, Any]]:
    """Counts of ends by dynamics; what failed is counted as left out and is no success."""
    y, n = study.payoff.ravel(), study.lab.starts
    error = np.abs(np.asarray(jax.vmap(study.model.q_tot)(flow.x)) - y).max(-1)
    fit = error < FIT_TOLERANCE  # False for NaN
    optimal = search.is_optimal(study.payoff, np.asarray(flow.chosen))
    rows = []
    for k, (name, _) in enumerate(_dynamics(study.lab)):
        mine = np.zeros(len(fit), bool)
        mine[k * n : (k + 1) * n] = True
        ok = mine & flow.ok
        rows.append({
            "dynamics": name, "lanes": n,
            "fit, optimal": int((ok & fit & optimal).sum()),
            "fit, not optimal": int((ok & fit & ~optimal).sum()),
            "no fit, optimal": int((ok & ~fit & optimal).sum()),
            "no fit, not optimal": int((ok & ~fit & ~optimal).sum()),
            "left out": int((mine & ~flow.ok).sum()),
            "at rest": int((ok & flow.at_rest).sum()),
            "switched": int((ok & (flow.n_switches > 0)).sum()),
            "switches": int(flow.n_switches[ok].sum()),
        })  # fmt: skip
    return rows


def _crossings(study: Study, flow: flows.Flow) -> dict[str, Any]:
    """Changes of greedy actions of the uniform flows, each beside its barrier."""
    n, s = study.lab.starts, flow.switches
    table = barriers.bounds(study.payoff)
    rows = [
        (s.loss[k, j], table[s.agent[k, j], s.before[k, j], s.after[k, j]])
        for k in range(n)
        for j in range(s.time.shape[1])
        if np.isfinite(s.time[k, j])
    ]
    below = sum(loss < bound * (1 - 1e-6) for loss, bound in rows)
    return {"uniform_switches": len(rows), "below_the_barrier": int(below), "pairs": rows}


def portrait(study: Study) -> list[dict[str, Any]]:
    """Phase portraits at the fixed mixers of two points, in the plane of the first two agents.

    The coordinates are how far the best joint action's utilities are above the greedy ones' (at a
    consistent point: the second-best row's above the best's), all other utilities held.
    """
    out = []
    for kind, name in NAMES.items():
        mine = np.flatnonzero(study.points.consistent == kind)
        if len(mine):
            out.append({"kind": name, **_plane(study, int(mine[0]))})
    return out


def _plane(study: Study, k: int) -> dict[str, Any]:
    model, payoff = study.model, study.payoff
    x, g = study.points.x[k], study.points.chosen[k]
    best = np.argwhere(payoff == payoff.max())[0]
    q = model.utilities(x)
    other = [int(b if b != a else (a + 1) % len(q[0])) for a, b in zip(g, best, strict=True)]
    index = [i * model.n_actions + other[i] for i in (0, 1)]
    base = [float(q[i, g[i]]) for i in (0, 1)]
    gaps = [float(q[i, other[i]] - q[i, g[i]]) for i in (0, 1)]
    half = 1.5 * max(abs(v) for v in gaps)
    axis = np.linspace(-half, half, PORTRAIT)
    policy = Policy.of("softmax", 1.0)

    def at(u: Any, v: Any) -> Any:
        z = jnp.asarray(x).at[jnp.array(index)].set(jnp.array([base[0] + u, base[1] + v]))
        chosen = core.greedy(model, z)
        y = jnp.asarray(payoff)
        down = -core.field(model, y, policy, z, chosen, full=1.0)
        return core.loss(model, y, policy, z, chosen), down[jnp.array(index)]

    loss, down = jax.jit(jax.vmap(jax.vmap(at, (0, None)), (None, 0)))(axis, axis)
    return {
        "axis": axis, "loss": np.asarray(loss), "down": np.asarray(down), "at": gaps,
        "greedy": g, "other": other,
        "names": [f"q{i + 1}({other[i]}) - q{i + 1}({g[i]})" for i in (0, 1)],
    }  # fmt: skip


def claims_of(
    study: Study, evidence: list[claims.Evidence], out: dict[str, Any]
) -> list[dict[str, Any]]:
    """The table of claims; eq. 24 from the stochastic algorithm and the flows."""
    rows = claims.evaluate(study.model, study.payoff, study.points, evidence, study.lab.seed)
    won: dict[str, tuple[int, int]] = {}
    for r in out["escapes"]:
        if r["kind"] == "inconsistent":
            name = r["optimizer"] + (f" (lr·λ_max = {r['level']:g})" if r["level"] else "")
            won[name] = (r["both"]["successes"], r["lanes"])
    for r in out.get("basins", {}).get("inconsistent", []):
        won[f"flow ({r['dynamics']})"] = (r["fit, optimal"], r["lanes"] - r["left out"])
    if won:
        rows.append(claims.equation_24(won))
    return [row._asdict() for row in rows]
