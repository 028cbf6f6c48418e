"""The model that the lab studies: tabular utilities and the parameters of a mixer, in one vector.

Shape letters beside those of jaxvff.core.types: D entries of the vector x (the first A * U are the
utilities), M joint actions in the order of `payoff.ravel()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxvff.core.errors import check_name
from jaxvff.core.types import Array, EnvSpec, JointStep, Params
from jaxvff.lab.settings import MIXERS, StabilityOptions
from jaxvff.mixers import qmix
from jaxvff.settings import build


class TabularModel(NamedTuple):
    """A factorised value of a game of one step, as functions of x."""

    n_agents: int
    n_actions: int
    size: int  # D
    init: Callable[[Array], Array]  # key -> x [D], from a distribution symmetric in sign
    q_tot: Callable[[Array], Array]  # x [D] -> Q_tot of every joint action [M]
    params: Callable[[Array], Params]  # x [D] -> the mixer's parameters
    n_moving: int  # the first so many entries of x move: D, or A * U where the mixer is fixed

    def utilities(self, x: Array) -> Array:
        """`x[..., D]` -> `[..., A, U]`."""
        n = self.n_agents * self.n_actions
        return x[..., :n].reshape(*x.shape[:-1], self.n_agents, self.n_actions)

    def joint_actions(self) -> np.ndarray:
        """All joint actions `[M, A]`."""
        return joint_actions(self.n_agents, self.n_actions)


Mix = Callable[[Params, Array], Array]  # (mixer parameters, utilities taken [A]) -> Q_tot []


class MixerFunctions(NamedTuple):
    """A mixer as pure functions, in the one state of the game."""

    init: Callable[[Array], Params]  # key -> parameters
    mix: Mix


def joint_actions(n_agents: int, n_actions: int) -> np.ndarray:
    """All joint actions `[M, A]`, in the order of `payoff.ravel()`."""
    return np.indices((n_actions,) * n_agents).reshape(n_agents, -1).T


def asked_for(options: StabilityOptions, payoff: np.ndarray) -> TabularModel:
    """The model that the lab's options ask for, of a game with payoffs `[U] * A`."""
    return make(
        payoff.ndim,
        payoff.shape[0],
        options.mixer,
        embed_dim=options.embed_dim,
        init_scale=options.init_scale,
        fixed_mixer=options.fixed_mixer,
    )


def make(
    n_agents: int,
    n_actions: int,
    mixer: str = "nmqmix",
    *,
    embed_dim: int = 8,
    hypernetworks: bool = False,
    init_scale: float = 1.0,
    fixed_mixer: bool = False,
) -> TabularModel:
    """The factorised value of one state.

    With one state the hypernetworks of QMIX output constants. Without them (the default) those
    constants are the parameters: the same functions in fewer coordinates, D = 39 instead of some
    thousands for two agents. With them, x holds all parameters of the mixer that is trained
    elsewhere (jaxvff.mixers).

    Args:
      n_agents: A.
      n_actions: U.
      mixer: a name in MIXERS.
      embed_dim: units of the mixing layer.
      hypernetworks: whether the mixer has them.
      init_scale: factor on the standard normal utilities.
      fixed_mixer: the dynamics move the utilities alone, which are the paper's q.
    """
    check_name(mixer, MIXERS, "mixer")
    if hypernetworks:
        init_mixer, mix = _with_hypernetworks(n_agents, n_actions, mixer, embed_dim)
    else:
        init_mixer, mix = _without_hypernetworks(n_agents, mixer, embed_dim)
    shapes = jax.eval_shape(init_mixer, jax.random.key(0))
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes))
    dtype = jax.dtypes.canonicalize_dtype(float)  # float64 in the lab
    n_q = n_agents * n_actions

    def init(key: Array) -> Array:
        q_key, mixer_key = jax.random.split(key)
        q = init_scale * jax.random.normal(q_key, (n_q,), dtype)
        return jnp.concatenate([q, ravel_pytree(init_mixer(mixer_key))[0].astype(dtype)])

    def params(x: Array) -> Params:
        return unravel(x[n_q:])

    def q_tot(x: Array) -> Array:
        q = jnp.asarray(x[:n_q]).reshape(n_agents, n_actions)
        return _joint_values(mix, params(x), q)

    size = n_q + flat.size
    return TabularModel(
        n_agents=n_agents,
        n_actions=n_actions,
        size=size,
        init=init,
        q_tot=q_tot,
        params=params,
        n_moving=n_q if fixed_mixer else size,
    )


def _joint_values(mix: Mix, params: Params, q: Array) -> Array:
    """Q_tot of every joint action `[M]`, of utilities `q[A, U]`."""
    agents = np.arange(len(q))
    return jax.vmap(lambda action: mix(params, q[agents, action]))(joint_actions(*q.shape))


def _without_hypernetworks(n_agents: int, mixer: str, embed_dim: int) -> MixerFunctions:
    """VDN, or QMIX's mixing layers with their weights as parameters."""
    if mixer == "vdn":
        return MixerFunctions(init=lambda key: {}, mix=lambda params, q: jnp.sum(q))
    shapes = {"w1": (n_agents, embed_dim), "b1": (embed_dim,), "w2": (embed_dim,), "b2": ()}

    def init(key: Array) -> Params:
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        params = {name: jax.random.normal(keys[name], shape) for name, shape in shapes.items()}
        return params | {"w2": params["w2"] * embed_dim**-0.5}

    def mix(params: Params, q: Array) -> Array:
        return qmix.mix(q, **params, monotonic=mixer == "qmix")

    return MixerFunctions(init, mix)


def _with_hypernetworks(
    n_agents: int, n_actions: int, mixer: str, embed_dim: int
) -> MixerFunctions:
    """The mixer that is trained elsewhere, hypernetworks included, in the one state [1]."""
    spec = EnvSpec(n_agents, n_actions, obs_size=1, state_size=1, episode_limit=1)
    asked: dict[str, object] = {"name": mixer}
    if mixer != "vdn":
        asked["embed_dim"] = embed_dim
    module = build.mixer(asked, spec, hidden_dim=1)

    def step(q: Array) -> JointStep:
        return JointStep(
            q_taken=q,
            q_max=q,
            action=jnp.zeros((n_agents, n_actions), q.dtype),
            features=jnp.zeros((n_agents, 1), q.dtype),
            state=jnp.ones(1, q.dtype),
        )

    def init(key: Array) -> Params:
        return module.init(key, step(jnp.zeros(n_agents)))

    def mix(params: Params, q: Array) -> Array:
        return module.apply(params, step(q))  # type: ignore[return-value]

    return MixerFunctions(init, mix)


def lift(model: TabularModel, network: TabularModel, x: Array, key: Array) -> Array:
    """A point of NM-QMIX or QMIX as a point of the same mixer with hypernetworks.

    The last biases of random hypernetworks make up for whatever these output, so Q_tot is the same
    function of the utilities.

    Args:
      model: without hypernetworks.
      network: with them.
      x: `[D]` of `model`.
      key: of the random hypernetworks.

    Returns:
      `[D']` of `network`.
    """
    weights = model.params(x)
    layers = dict(network.params(network.init(key))["params"])
    for name in ("w1", "w2", "b2"):
        first, last = layers[f"hyper_{name}"]["layers_0"], layers[f"hyper_{name}"]["layers_2"]
        output = jax.nn.relu(first["kernel"][0] + first["bias"]) @ last["kernel"]
        layers[f"hyper_{name}"] = {
            "layers_0": first,
            "layers_2": last | {"bias": weights[name].reshape(output.shape) - output},
        }
    layers["hyper_b1"] = layers["hyper_b1"] | {
        "bias": weights["b1"] - layers["hyper_b1"]["kernel"][0]
    }
    n_q = model.n_agents * model.n_actions
    return jnp.concatenate([x[:n_q], ravel_pytree({"params": layers})[0]])
