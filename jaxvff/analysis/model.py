"""The state that the lab studies: a vector x of tabular utilities and a mixer's parameters.

Shape letters beside those of jaxvff.types: D entries of x (the first A * U are the utilities), M
joint actions, in the order of `payoff.ravel()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from jaxvff.mixers import qmix
from jaxvff.options import bind_mixer, choose
from jaxvff.types import Array, EnvSpec, JointStep, Params, UserError

# Methods whose Q_tot is a function of the utilities taken and of a few weights. QPLEX
# differentiates only a part of itself, QTRAN's joint value does not see the utilities.
MIXERS = ("nmqmix", "qmix", "vdn")


class Model(NamedTuple):
    """A factorised value of a one-step game."""

    n_agents: int
    n_actions: int
    size: int  # D
    init: Callable[[Array], Array]  # key -> x [D], from a distribution symmetric in sign
    q_tot: Callable[[Array], Array]  # x [D] -> Q_tot of every joint action [M]
    params: Callable[[Array], Params]  # x [D] -> the mixer's parameters
    free: int  # the first so many entries of x move: D, or A * U where the mixer is held fixed

    def utilities(self, x: Array) -> Array:
        """`x[..., D]` -> `[..., A, U]`."""
        n = self.n_agents * self.n_actions
        return x[..., :n].reshape(*x.shape[:-1], self.n_agents, self.n_actions)

    def joint_actions(self) -> np.ndarray:
        """All joint actions `[M, A]`."""
        return joint_actions(self.n_agents, self.n_actions)


def joint_actions(n_agents: int, n_actions: int) -> np.ndarray:
    """All joint actions `[M, A]`, in the order of `payoff.ravel()`."""
    return np.indices((n_actions,) * n_agents).reshape(n_agents, -1).T


def make(
    n_agents: int,
    n_actions: int,
    mixer: str = "nmqmix",
    *,
    embed_dim: int = 8,
    hypernetworks: bool = False,
    init_scale: float = 1.0,
    fixed_mixer: bool = False,
) -> Model:
    """The factorised value of one state.

    With one state the hypernetworks of QMIX output constants. Without them (the default) those
    constants are the parameters, the same functions in fewer coordinates: D = 39 instead of some
    thousands for two agents. With them, x holds all parameters of the core's own module.

    Args:
      n_agents: A.
      n_actions: U.
      mixer: a name in MIXERS.
      embed_dim: units of the mixing layer.
      hypernetworks: keep them; x is then all that the core trains, but for the utility network.
      init_scale: factor on the standard normal utilities.
      fixed_mixer: the dynamics move the utilities only, as the paper's q.
    """
    choose(mixer, MIXERS, "mixer")
    if hypernetworks:
        init_mixer, mix = _network(n_agents, n_actions, mixer, embed_dim)
    else:
        init_mixer, mix = _direct(n_agents, mixer, embed_dim)
    zero = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape), jax.eval_shape(init_mixer, jax.random.key(0))
    )
    flat, unravel = ravel_pytree(zero)
    dtype = jax.dtypes.canonicalize_dtype(float)  # float64 in the lab
    n_q = n_agents * n_actions
    joint = joint_actions(n_agents, n_actions)

    def init(key: Array) -> Array:
        q_key, mixer_key = jax.random.split(key)
        q = init_scale * jax.random.normal(q_key, (n_q,), dtype)
        return jnp.concatenate([q, ravel_pytree(init_mixer(mixer_key))[0].astype(dtype)])

    def q_tot(x: Array) -> Array:
        q = jnp.asarray(x[:n_q]).reshape(n_agents, n_actions)
        params = unravel(x[n_q:])
        return jax.vmap(lambda action: mix(params, q[np.arange(n_agents), action]))(joint)

    size = n_q + flat.size
    free = n_q if fixed_mixer else size
    return Model(n_agents, n_actions, size, init, q_tot, lambda x: unravel(x[n_q:]), free)


Mix = Callable[[Params, Array], Array]  # (mixer parameters, utilities taken [A]) -> Q_tot []


def _direct(n_agents: int, mixer: str, embed_dim: int) -> tuple[Callable[[Array], Params], Mix]:
    """VDN, and QMIX's mixing layers with their weights as parameters."""
    if mixer == "vdn":
        return lambda key: {}, lambda params, q: jnp.sum(q)
    shapes = {"w1": (n_agents, embed_dim), "b1": (embed_dim,), "w2": (embed_dim,), "b2": ()}

    def init(key: Array) -> Params:
        keys = dict(zip(shapes, jax.random.split(key, len(shapes)), strict=True))
        params = {name: jax.random.normal(keys[name], shape) for name, shape in shapes.items()}
        return params | {"w2": params["w2"] * embed_dim**-0.5}

    def mix(params: Params, q: Array) -> Array:
        return qmix.mix(q, **params, monotonic=mixer == "qmix")

    return init, mix


def _network(
    n_agents: int, n_actions: int, mixer: str, embed_dim: int
) -> tuple[Callable[[Array], Params], Mix]:
    """The core's module, hypernetworks and all, in the one state [1]."""
    spec = EnvSpec(n_agents, n_actions, obs_size=1, state_size=1, episode_limit=1)
    options: dict[str, Any] = {"name": mixer}
    if mixer != "vdn":
        options["embed_dim"] = embed_dim
    module = bind_mixer(options, spec, hidden_dim=1)

    def step(q: Array) -> JointStep:
        none = jnp.zeros((n_agents, n_actions), q.dtype)
        return JointStep(q, q, none, jnp.zeros((n_agents, 1), q.dtype), jnp.ones(1, q.dtype))

    def init(key: Array) -> Params:
        return module.init(key, step(jnp.zeros(n_agents)))

    def mix(params: Params, q: Array) -> Array:
        return module.apply(params, step(q))  # type: ignore[return-value]

    return init, mix


def lift(model: Model, network: Model, x: Array, key: Array) -> Array:
    """A point of NM-QMIX or QMIX as one of the same model with the core's hypernetworks.

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
    want = model.params(x)
    drawn = network.params(network.init(key))
    layers = dict(drawn["params"])
    for name in ("w1", "w2", "b2"):
        first, last = layers[f"hyper_{name}"]["layers_0"], layers[f"hyper_{name}"]["layers_2"]
        made = jax.nn.relu(first["kernel"][0] + first["bias"]) @ last["kernel"]
        layers[f"hyper_{name}"] = {
            "layers_0": first,
            "layers_2": last | {"bias": want[name].reshape(made.shape) - made},
        }
    layers["hyper_b1"] = layers["hyper_b1"] | {"bias": want["b1"] - layers["hyper_b1"]["kernel"][0]}
    n_q = model.n_agents * model.n_actions
    return jnp.concatenate([x[:n_q], ravel_pytree({"params": layers})[0]])


class Policy(NamedTuple):
    """How every agent draws its action: a mixture of three distributions, weights adding to 1.

    One type for all policies, with numbers in it that a program may trace: a table of temperatures
    and of exploration rates is one compiled program.
    """

    uniform: Any
    softmax: Any
    greedy: Any
    temperature: Any  # of the softmax part, in units of the utilities

    @staticmethod
    def of(kind: str, level: float = 1.0) -> Policy:
        """`uniform`, `softmax` at a temperature, or `epsilon_greedy` at an exploration rate."""
        if kind == "uniform":
            return Policy(1.0, 0.0, 0.0, 1.0)
        if kind == "softmax":
            return Policy(0.0, 1.0, 0.0, level)
        if kind == "epsilon_greedy":
            return Policy(level, 0.0, 1.0 - level, 1.0)
        raise UserError(f"policy {kind!r} is unknown; one of uniform, softmax, epsilon_greedy")


def greedy(model: Model, x: Array) -> Array:
    """The joint greedy action `[A]`; action 0 where utilities tie or are NaN, so see `margin`."""
    return jnp.argmax(model.utilities(x), axis=-1)


def margin(q: Array, chosen: Array) -> Array:
    """How far each agent's chosen action is above its best other one, `[A]`."""
    mine = jnp.arange(q.shape[-1]) == chosen[:, None]
    others = jnp.max(jnp.where(mine, -jnp.inf, q), axis=-1)
    return jnp.sum(jnp.where(mine, q, 0.0), axis=-1) - others


def joint_probs(model: Model, policy: Policy, q: Array, chosen: Array) -> Array:
    """μ of every joint action `[M]` (eq. 13); `chosen[A]` is what the greedy part takes."""
    one_hot = jax.nn.one_hot(chosen, model.n_actions, dtype=q.dtype)
    soft = jax.nn.softmax(q / policy.temperature, axis=-1)
    probs = policy.uniform / model.n_actions + policy.softmax * soft + policy.greedy * one_hot
    return jnp.prod(probs[np.arange(model.n_agents), model.joint_actions()], axis=-1)


def loss(model: Model, payoff: Array, policy: Policy, x: Array, chosen: Array) -> Array:
    """L(x) = Σ_a μ(a; q) (y(a) - Q_tot(a; x))², `[]` (eq. 9 and 14)."""
    mu = joint_probs(model, policy, model.utilities(x), chosen)
    return jnp.sum(mu * (payoff.ravel() - model.q_tot(x)) ** 2)


def field(
    model: Model, payoff: Array, policy: Policy, x: Array, chosen: Array, *, full: Any
) -> Array:
    """The gradient that a trajectory descends, `[D]`.

    Args:
      model: the factorised value.
      payoff: `[U] * A`.
      policy: of the behaviour.
      x: `[D]`.
      chosen: the greedy joint action `[A]`, constant but at its jumps.
      full: factor on the policy term of eq. 16. 1: the gradient of eq. 14; 0: the semi-gradient,
        with the policy held fixed, which Q-learning follows.
    """

    def descended(z: Array) -> Array:
        mu = joint_probs(model, policy, model.utilities(z), chosen)
        held = jax.lax.stop_gradient(mu)
        weight = held + full * (mu - held)
        return jnp.sum(weight * (payoff.ravel() - model.q_tot(z)) ** 2)

    return held_fixed(model, jax.grad(descended)(x))


def held_fixed(model: Model, grad: Array) -> Array:
    """A gradient `[D]`, zero where the model does not move."""
    return jnp.where(jnp.arange(model.size) < model.free, grad, 0.0)
