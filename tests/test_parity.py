"""Mixers, TD(λ) and losses agree with the published codes' numbers: 1e-5 in float32, 1e-9 in float64.

The float32 tolerance is relative to the largest value of the array: sums of a few dozen products
lose about two digits of float32's seven.
"""

from __future__ import annotations

import ast
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvff.core.actions import masked
from jaxvff.core.types import EnvSpec, JointStep, Segment
from jaxvff.losses.contract import LossInput, Model
from jaxvff.losses.resq import ResqLoss
from jaxvff.losses.targets import Bootstrap, greedy_by_online, td_lambda, td_lambda_return
from jaxvff.mixers.maven import Maven
from jaxvff.mixers.pow_qmix import PowQmix
from jaxvff.mixers.qatten import Qatten
from jaxvff.mixers.qfix import Qfix
from jaxvff.mixers.qmix import Qmix
from jaxvff.mixers.qplex import Qplex
from jaxvff.mixers.qtran import Qtran
from jaxvff.mixers.resq import Resq
from jaxvff.mixers.wqmix import CentralFF
from jaxvff.networks.heads import Given, by_latent
from jaxvff.networks.utility import Gru

ROOT = Path(os.environ.get("JAXVFF_PARITY_DIR", Path(__file__).parent / "data" / "parity"))
CASES = sorted(ROOT.glob("case*/*.npz"))

# Our submodule -> the reference's, for the names that differ; {i} runs over heads or kernels.
NAMES: dict[str, dict[str, str]] = {
    "qatten": {
        "query_{i}": "query_embedding_layers.{i}",
        "key_{i}": "key_embedding_layers.{i}",
        "head_weight": "head_embedding_layer",
        "constant": "constrant_value_layer",
    },
    "qplex": {
        "weight": "hyper_w_final",
        "bias": "V",
        "key_{i}": "si_weight.key_extractors.{i}",
        "agents_{i}": "si_weight.agents_extractors.{i}",
        "actions_{i}": "si_weight.action_extractors.{i}",
    },
    "qtran": {"encode": "action_encoding", "q": "Q", "v": "V"},
    "central_ff": {"net": "net", "v": "V"},
    "qmix": {
        "hyper_w1": "hyper_w1",
        "hyper_b1": "hyper_b1.0",
        "hyper_w2": "hyper_w2",
        "hyper_b2": "hyper_b2",
    },
}
NAMES["nmqmix"] = NAMES["qmix"]
# PyMARL's QMIX, which QFIX fixes and which is ResQ's main function, has other names than PyMARL2's.
_PYMARL_QMIX = {
    "qmix/hyper_w1": "{}.hyper_w_1",
    "qmix/hyper_b1": "{}.hyper_b_1",
    "qmix/hyper_w2": "{}.hyper_w_final",
    "qmix/hyper_b2": "{}.V",
}
NAMES["qfix"] = {"weight": "w_module.module", "bias": "b_module"} | {
    ours: theirs.format("inner_mixer") for ours, theirs in _PYMARL_QMIX.items()
}
NAMES["pow_recogniser"] = {
    "recogniser_w1": "lambda_hypernet.hyper_w_1",
    "recogniser_w2": "lambda_hypernet.hyper_w_final",
    "recogniser_v": "V",
}
NAMES["resq"] = {
    **{ours: theirs.format("qmix") for ours, theirs in _PYMARL_QMIX.items()},
    "residual_ff/net": "residual.net",
    "residual_ff/v": "residual.V",
    "central_ff/net": "central.net",
    "central_ff/v": "central.V",
}
NAMES["resq_target"] = {
    "central_ff/net": "target_central.net",
    "central_ff/v": "target_central.V",
}


@pytest.fixture(params=[False, True], ids=["float32", "float64"])
def tolerance(request: pytest.FixtureRequest):
    with jax.enable_x64(request.param):
        yield 1e-9 if request.param else 1e-5


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], EnvSpec]:
    with np.load(path, allow_pickle=True) as file:
        data = {k: file[k] for k in file.files}
    meta = ast.literal_eval(str(data.pop("meta")))
    spec = EnvSpec(
        meta["agents"], meta["actions"], 1, meta["state"], 1, meta.get("agent_own_state_size", 0)
    )
    return data, meta, spec


def params_of(data: dict[str, np.ndarray], kind: str) -> dict[str, Any]:
    """Torch's weights as our parameter tree: transposed, and Sequential's layers_<k>."""
    tree: dict[str, Any] = {}
    patterns = NAMES[kind]
    for key, value in data.items():
        if not key.startswith("w:"):
            continue
        path, leaf = key[2:].rsplit(".", 1)
        for ours, theirs in patterns.items():
            for i in range(16) if "{i}" in ours else [0]:
                prefix = theirs.format(i=i)
                if path != prefix and not path.startswith(prefix + "."):
                    continue
                node = tree
                for module in ours.format(i=i).split("/"):
                    node = node.setdefault(module, {})
                if path != prefix:
                    node = node.setdefault(f"layers_{path[len(prefix) + 1 :]}", {})
                node["kernel" if leaf == "weight" else "bias"] = jnp.asarray(value.T)
    n_leaves = sum(k.startswith("w:") for k in data)
    assert len(jax.tree.leaves(tree)) == n_leaves, "a weight of the reference has no place"
    return {"params": tree}


def joint_steps(data: dict[str, np.ndarray], spec: EnvSpec) -> JointStep:
    b, t = data["states"].shape[:2]
    a, u = spec.n_agents, spec.n_actions
    action = data.get("actions", np.zeros((b, t, a), int))
    zeros = np.zeros((b, t, a))
    return JointStep(
        q_taken=jnp.asarray(data.get("agent_qs", zeros)),
        q_max=jnp.asarray(data.get("max_agent_qs", zeros)),
        action=jax.nn.one_hot(action, u, dtype=jnp.zeros(()).dtype),
        features=jnp.asarray(data.get("hidden_states", np.zeros((b, t, a, 1)))),
        state=jnp.asarray(data["states"]),
    )


def make(kind: str, meta: dict[str, Any], spec: EnvSpec) -> nn.Module:
    e, h = meta["embed"], meta["hypernet"]
    return {
        "qmix": lambda: Qmix(spec, e, h, monotonic=True),
        "nmqmix": lambda: Qmix(spec, e, h, monotonic=False),
        "qatten": lambda: Qatten(spec, e, h, meta.get("heads", 4)),
        "qplex": lambda: Qplex(spec, h, h, meta["kernels"]),
        "qtran": lambda: Qtran(spec, meta["hidden"], e),
        "central_ff": lambda: CentralFF(spec, h),
        "qfix": lambda: Qfix(spec, h, meta["fixee"], meta["form"], e),
        "pow_recogniser": lambda: PowQmix(spec, recogniser_dim=h, recogniser_embed_dim=e),
        "resq": lambda: Resq(spec, e, h, meta["central"]),
    }[kind]()


def close(ours: jax.Array, theirs: np.ndarray, tolerance: float) -> None:
    scale = max(1.0, float(np.abs(theirs).max()))
    np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, rtol=0, atol=tolerance)


def paths(*kinds: str) -> list:
    found = [p for p in CASES if any(p.match(f"{kind}.npz") for kind in kinds)]
    assert found, f"no {kinds} under {ROOT}"
    return [pytest.param(p, id=f"{p.parent.name}-{p.stem}") for p in found]


@pytest.mark.parametrize("path", paths("qmix", "nmqmix", "qatten", "qplex", "central_ff", "qfix_*"))
def test_mixer_and_its_gradients_agree(path: Path, tolerance: float) -> None:
    data, meta, spec = load(path)
    kind = "qfix" if "fixee" in meta else path.stem
    mixer, params = make(kind, meta, spec), params_of(data, kind)
    steps = joint_steps(data, spec)

    def total(q_taken: jax.Array, q_max: jax.Array) -> tuple[jax.Array, jax.Array]:
        mine = steps._replace(q_taken=q_taken, q_max=q_max)
        q_tot = jax.vmap(jax.vmap(lambda s: mixer.apply(params, s)))(mine)
        return jnp.sum(q_tot), q_tot

    grads, q_tot = jax.grad(total, (0, 1), has_aux=True)(steps.q_taken, steps.q_max)
    close(q_tot, data["q_tot"], tolerance)
    close(grads[0], data["dqtot_dq"], tolerance)
    if "dqtot_dmaxq" in data:
        close(grads[1], data["dqtot_dmaxq"], tolerance)


@pytest.mark.parametrize("path", paths("qtran"))
def test_qtran_joint_and_state_values_agree(path: Path, tolerance: float) -> None:
    data, meta, spec = load(path)
    mixer, params = make("qtran", meta, spec), params_of(data, "qtran")
    steps = joint_steps(data, spec)
    q_jt = jax.vmap(jax.vmap(lambda s: mixer.apply(params, s)))(steps)
    v = jax.vmap(jax.vmap(lambda s: mixer.apply(params, s, method=Qtran.state_value)))(steps.state)
    close(q_jt, data["joint_q"], tolerance)
    close(v, data["state_v"], tolerance)


@pytest.mark.parametrize("path", paths("pow_recogniser"))
def test_the_recogniser_of_pow_qmix_agrees(path: Path, tolerance: float) -> None:
    data, meta, spec = load(path)
    mixer, params = make("pow_recogniser", meta, spec), params_of(data, "pow_recogniser")
    steps = joint_steps(data, spec)
    f = lambda s: mixer.apply(params, s, method=PowQmix.advantage)
    v = lambda s: mixer.apply(params, s, method=PowQmix.state_value)
    advantage = jax.vmap(jax.vmap(f))(steps)
    close(advantage, data["advantage"], tolerance)
    close(advantage + jax.vmap(jax.vmap(v))(steps.state), data["q_r"], tolerance)


@pytest.mark.parametrize("path", paths("resq_loss"))
def test_resq_loss_and_its_gradients_agree(path: Path, tolerance: float) -> None:
    """The authors' learner on given utilities: acting, residual, central, and those of targets."""
    data, meta, spec = load(path)
    split = lambda kind: {
        k: v for k, v in data.items() if k.startswith("w:target") == kind.endswith("target")
    }
    mixers = {kind: params_of(split(kind), kind) for kind in ("resq", "resq_target")}
    model = Model(
        utility=SimpleNamespace(unroll=lambda q, segment: (q, jnp.zeros((*q.shape[:2], 1)))),  # type: ignore[arg-type]
        mixer=make("resq", meta, spec),
        bootstrap=greedy_by_online,
        returns=td_lambda_return,
        n_step=1,
    )
    fields = ("avail", "reward", "terminated", "mask")
    segments = Segment(
        obs=jnp.zeros(data["mask"].shape),
        state=jnp.asarray(data["states"]),
        action=jnp.asarray(data["actions"]),
        is_first=jnp.zeros(data["mask"].shape, bool),
        **{name: jnp.asarray(data[name]) for name in fields},
    )

    def one(q: dict[str, jax.Array], old: dict[str, jax.Array], segment: Segment) -> jax.Array:
        x = LossInput(
            model,
            q | {"mixer": mixers["resq"]},
            old | {"mixer": mixers["resq_target"]},
            segment,
            SimpleNamespace(gamma=meta["gamma"], td_lambda=meta["td_lambda"]),
        )
        return ResqLoss()(x).per_slot

    online = {k: jnp.asarray(data[f"q_{k}"]) for k in ("utility", "residual", "central")}
    old = {k: jnp.asarray(data[f"q_target_{k}"]) for k in ("utility", "central")}
    mean = lambda q: jnp.sum(jax.vmap(one)(q, old, segments)) / data["mask"].sum()
    loss, grads = jax.value_and_grad(mean)(online)
    close(loss, data["loss"], tolerance)
    for name, grad in grads.items():
        close(grad, data[f"dq_{name}"], tolerance)


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem) for p in CASES if "td_lambda" in p.stem]
)
def test_td_lambda_agrees(path: Path, tolerance: float) -> None:
    data, meta, _ = load(path)

    def targets(reward: Any, terminated: Any, mask: Any, value: Any) -> jax.Array:
        # PyMARL2 keeps T-1 transitions beside T values; our last slot has no transition.
        pad = lambda x: jnp.append(jnp.asarray(x), 0.0)
        discount = meta["gamma"] * (1 - pad(terminated))
        x = Bootstrap(pad(reward), discount, jnp.asarray(value), pad(mask) > 0)
        return td_lambda(x, meta["td_lambda"])[:-1]

    ours = jax.vmap(targets)(
        data["rewards"], data["terminated"], data["mask"], data["target_q_tot"]
    )
    close(ours * data["mask"], data["returns"] * data["mask"], tolerance)


def torch_gru(data: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """A GRU cell of PyTorch in our names; its two biases of r and z only ever occur as a sum."""
    of_input, of_memory = (data[f"{name}.bias_{own}"] for own in ("ih", "hh"))
    gates, candidate = np.split(of_memory, [2 * len(of_memory) // 3])
    return {
        "gates": {
            "kernel": jnp.asarray(data[f"{name}.weight_ih"].T),
            "bias": jnp.asarray(of_input + np.concatenate([gates, 0 * candidate])),
        },
        "memory_kernel": jnp.asarray(data[f"{name}.weight_hh"].T),
        "memory_bias": jnp.asarray(candidate),
    }


def layer(data: dict[str, np.ndarray], name: str) -> dict[str, Any]:
    """A linear layer of PyTorch in flax's names."""
    return {
        "kernel": jnp.asarray(data[f"{name}.weight"].T),
        "bias": jnp.asarray(data[f"{name}.bias"]),
    }


@pytest.mark.parametrize("path", paths("maven"))
def test_mavens_utilities_and_discriminator_agree(path: Path, tolerance: float) -> None:
    data, meta, spec = load(path)
    net = Gru(spec.n_actions, meta["hidden"], by_latent)
    params = {
        "Dense_0": layer(data, "w:fc1"),
        **torch_gru(data, "w:rnn"),
        "Dense_1": layer(data, "w:hyper_noise_fc1"),
    }
    given = Given(
        jnp.repeat(jnp.asarray(data["z"])[:, None], spec.n_agents, axis=1),
        jnp.tile(jnp.eye(spec.n_agents), (len(data["z"]), 1, 1)),
    )
    carry, q, _ = net.apply(
        {"params": params},
        jnp.asarray(data["hidden"]),
        jnp.asarray(data["inputs"])[None],
        jnp.array([False]),
        jax.tree.map(lambda x: x[None], given),
    )
    close(carry[0], data["h"], tolerance)
    close(q[0], data["q"], tolerance)

    size = meta["layers"] * 2 + 1
    guessing = {f"layers_{i}": layer(data, f"d:model.{i}") for i in range(0, size, 2)}
    mixer = Maven(
        spec,
        meta["latents"],
        discriminator_dim=meta["discriminator"],
        discriminator_layers=meta["layers"],
    )

    def surprise(q: jax.Array, avail: jax.Array, state: jax.Array, z: jax.Array) -> jax.Array:
        behaviour = jax.nn.softmax(masked(q, avail), axis=-1)
        params = {"params": {"discriminator": guessing}}
        logits = mixer.apply(params, behaviour, state, method=Maven.guess)
        return -jnp.sum(z * jax.nn.log_softmax(logits))

    rows = (jnp.asarray(data[k]) for k in ("q", "avail", "states", "z"))
    values, slopes = jax.vmap(jax.value_and_grad(surprise))(*rows)
    close(values, data["cross_entropy"], tolerance)
    close(slopes, data["dce_dq"], tolerance)
