"""What an agent has to know beside its parameters: sizes, its inputs, the layers of its network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxvff.core.errors import UserError
from jaxvff.core.registry import load
from jaxvff.core.types import EnvSpec
from jaxvff.networks.options import NORMS, UTILITIES
from jaxvff.networks.utility import Utility, network

HEADS = "jaxvff.networks.heads"
SIZES = ("n_agents", "n_actions", "obs_size", "hidden_dim")
NAMES, SWITCHES = ("utility", "norm", "head"), ("shared", "agent_id", "last_action")
_SAID = {int: "whole number above 0", str: "text", bool: "true or false"}
# Those that policies/act.py knows.
PORTABLE_HEADS = ("attached", "detached", "successor")


class Layout(NamedTuple):
    """What policy.json says under "network"; plain values, in the order of the shape legend."""

    n_agents: int
    n_actions: int
    obs_size: int
    utility: str  # a name in networks.options.UTILITIES
    hidden_dim: int
    norm: str
    head: str  # a name in networks/heads.py, or a reference `package.module:name`
    shared: bool  # one set of parameters for all agents
    agent_id: bool  # a one-hot agent id is the last of the inputs
    last_action: bool  # the previous action, one-hot, stands between observation and id
    context: tuple[float, ...] = ()  # what every agent knows in all episodes; empty: nothing
    image: tuple[int, ...] = ()  # [height, width, channels] of an observation; empty: it is none

    @classmethod
    def of(cls, network: Utility, head: str, context: np.ndarray | None) -> Layout:
        """Of a utility network.

        Args:
          network: of the team.
          head: the reference that the method has for it.
          context: that greedy play always has, `[C]`; None: the method draws nothing.
        """
        spec, module = network.spec, network.net
        kinds = [name for name in UTILITIES if UTILITIES[name] is type(module)]
        return cls(
            n_agents=spec.n_agents,
            n_actions=spec.n_actions,
            obs_size=spec.obs_size,
            utility=kinds[0],
            hidden_dim=module.hidden_dim,
            norm=module.norm,
            head=head.removeprefix(f"{HEADS}:"),
            shared=network.shared,
            agent_id=network.agent_id,
            last_action=network.last_action,
            context=() if context is None else tuple(map(float, context)),
            image=spec.obs_shape,
        )

    def network(self) -> Utility:
        """The functions of the networks; the state, which no agent sees, has size 0.

        Raises:
          UserError: a kind of network or a head that is not here.
        """
        # By name in a table alone: a policy from somebody else must not choose what is imported.
        if self.head not in PORTABLE_HEADS or self.utility not in UTILITIES:
            raise UserError(
                f"the policy has utility={self.utility!r} and head={self.head!r}, and this version "
                f"of jaxvff reads {', '.join(UTILITIES)} with {', '.join(PORTABLE_HEADS)}; take "
                "the version that policy.json names"
            )
        kind, values = UTILITIES[self.utility], load(f"{HEADS}:{self.head}")
        sizes = (self.n_agents, self.n_actions, self.obs_size)
        spec = EnvSpec(*sizes, state_size=0, episode_limit=0, obs_shape=self.image)
        return Utility(
            net=network(kind, spec, self.hidden_dim, values, self.norm),
            spec=spec,
            shared=self.shared,
            agent_id=self.agent_id,
            last_action=self.last_action,
            context_size=len(self.context),
        )

    def inputs(self) -> list[str]:
        """What an agent's network sees, in order, for people."""
        image = f", an image {list(self.image)}, flattened" if self.image else ""
        parts = [f"observation: {self.obs_size}{image}"]
        if self.last_action:
            parts.append(f"own last action, one-hot: {self.n_actions} (zeros in a first step)")
        if self.agent_id:
            parts.append(f"own number, one-hot: {self.n_agents}")
        return parts

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> Layout:
        """From JSON values.

        Raises:
          KeyError, TypeError, ValueError: one is missing, or of another type.
        """
        for name, kind in (*_of(int, SIZES), *_of(str, NAMES), *_of(bool, SWITCHES)):
            if type(told[name]) is not kind or (kind is int and told[name] < 1):
                raise ValueError(f"network.{name} is {told[name]!r}, not a {_SAID[kind]}")
        if told["norm"] not in NORMS:
            raise ValueError(f"network.norm is {told['norm']!r}, not {' or '.join(NORMS)}")
        # Policies from before there were networks for images say nothing of one.
        layout = cls(**{"image": ()} | {name: told[name] for name in cls._fields if name in told})
        context = tuple(float(x) for x in layout.context)
        if not np.isfinite(context).all():
            raise ValueError("network.context is not finite")
        image = tuple(layout.image)
        if any(type(size) is not int or size < 1 for size in image):
            raise ValueError(f"network.image is {list(image)}, not whole numbers above 0")
        return layout._replace(context=context, image=image)

    def difference(self, other: Layout) -> str | None:
        """The first thing in which a network with parameters of this one differs, in words.

        Teams of other sizes may share parameters, where no agent has its own or sees its number.
        """
        one_for_all = self.shared and not self.agent_id
        images = ("image",) if self.utility == "cnn" else ()
        for name in (*SWITCHES, *SIZES, *NAMES, *images):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs and not (name == "n_agents" and one_for_all):
                there, here = (str(x).lower() for x in (mine, theirs))
                return f"{name}={there} there and {here} here"
        return None


def _of(kind: type, names: Sequence[str]) -> list[tuple[str, type]]:
    return [(name, kind) for name in names]
