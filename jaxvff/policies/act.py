"""A policy that was exported from jaxvff, in NumPy alone. Copy this file where you need it.

    team = Team("policy")              # the folder with policy.json
    team.reset(n)                      # n games begin
    action = team.act(obs, avail)      # obs [n, A, O], avail [n, A, U] bool -> [n, A] int

or `agent = Agent("policy", i)` for one agent alone, without the A: it reads its own file and no
other. O is the size of an observation, U the number of actions.
"""

from __future__ import annotations

import json
import pathlib

import numpy as np
import numpy.typing as npt


class Agent:
    """One agent: what it sees and what it remembers decide what it does."""

    def __init__(self, folder: str | pathlib.Path, number: int) -> None:
        """Read policy.json and the parameters of agent `number`, counted from 0."""
        folder = pathlib.Path(folder)
        told = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
        self.net, self.number = told["network"], number
        shared = self.net["shared"]
        self.weights = read(folder / ("agents" if shared else f"agent_{number}"))
        self.reset()

    def reset(self, n: int = 1) -> None:
        """`n` games begin."""
        self.carry = np.zeros((n, self.net["hidden_dim"]), np.float32)
        self.last_action, self.begins = np.zeros(n, int), np.ones(n, bool)

    def act(
        self,
        obs: npt.ArrayLike,
        avail: npt.ArrayLike | None = None,
        is_first: np.ndarray | None = None,
    ) -> np.ndarray:
        """The actions `[n]` of the largest utility among those that are available.

        `is_first` `[n]` bool: games that begin anew in this step; None: none, after `reset` all.
        """
        q = self.utilities(obs, is_first)
        self.last_action = np.argmax(q if avail is None else np.where(avail, q, -np.inf), axis=-1)
        return self.last_action

    def utilities(self, obs: npt.ArrayLike, is_first: np.ndarray | None = None) -> np.ndarray:
        """The values `[n, U]` of this agent's actions; it remembers what it has seen."""
        net, begins = self.net, self.begins
        if is_first is not None:
            begins = begins | np.asarray(is_first, bool)
        self.begins = np.zeros_like(begins)
        parts = [np.asarray(obs, np.float32)]
        if net["last_action"]:
            parts.append(one_hot(self.last_action, net["n_actions"]) * ~begins[:, None])
        if net["agent_id"]:
            parts.append(one_hot(np.full(len(begins), self.number), net["n_agents"]))
        x = np.concatenate(parts, axis=-1)
        if net["utility"] == "cnn":
            return self.head(3, x, self.hidden(2, self.seen(x)))
        features = self.hidden(0, x)
        if net["utility"] == "gru":
            features = self.carry = self.gru(np.where(begins[:, None], 0, self.carry), features)
            return self.head(1, x, features)
        return self.head(2, x, self.hidden(1, features))

    def seen(self, x: np.ndarray) -> np.ndarray:
        """What two convolutions make of the image that inputs begin with, and the other inputs."""
        size = int(np.prod(self.net["image"]))
        image = x[:, :size].reshape(len(x), *self.net["image"])
        image = self.hidden(1, neighbours(self.hidden(0, neighbours(image))))
        return np.concatenate([image.reshape(len(x), -1), x[:, size:]], axis=-1)

    def hidden(self, number: int, x: np.ndarray) -> np.ndarray:
        """A dense layer with what comes after it."""
        return relu(self.norm(number, self.dense(number, x)))

    def head(self, layer: int, x: np.ndarray, features: np.ndarray) -> np.ndarray:
        """Values of the actions: see jaxvff/networks/heads.py."""
        if self.net["head"] == "attached":
            return self.dense(layer, features)
        if self.net["head"] == "detached":
            hidden = self.dense(layer, np.concatenate([features, x], axis=-1))
            return self.dense(layer + 1, np.where(hidden >= 0, hidden, 0.01 * hidden))
        # successor: of the target task, which counts what is earned and what it costs as they are
        task = np.ones((len(features), 2), np.float32)
        hidden = relu(self.dense(layer, np.concatenate([features, task], axis=-1)))
        return self.dense(layer + 1, hidden).reshape(len(features), -1, 2).sum(axis=-1)

    def gru(self, h: np.ndarray, x: np.ndarray) -> np.ndarray:
        """What is remembered after a step."""
        from_x = np.split(self.layer("gates", x), 3, axis=-1)
        from_h = np.split(h @ self.weights["params/memory_kernel"], 3, axis=-1)
        r, z = (0.5 + 0.5 * np.tanh(0.5 * (from_x[i] + from_h[i])) for i in range(2))
        recalled = from_h[2] + self.weights["params/memory_bias"]
        return (1 - z) * np.tanh(from_x[2] + r * recalled) + z * h

    def norm(self, number: int, x: np.ndarray) -> np.ndarray:
        """Layer normalisation, where the network has it."""
        if self.net["norm"] == "none":
            return x
        mean = x.mean(axis=-1, keepdims=True)
        spread = np.maximum((x * x).mean(axis=-1, keepdims=True) - mean * mean, 0)
        name = f"params/LayerNorm_{number}/"
        scale = self.weights[name + "scale"] / np.sqrt(spread + 1e-6)
        return (x - mean) * scale + self.weights[name + "bias"]

    def dense(self, number: int, x: np.ndarray) -> np.ndarray:
        """A dense layer."""
        return self.layer(f"Dense_{number}", x)

    def layer(self, name: str, x: np.ndarray) -> np.ndarray:
        """A matrix and its bias."""
        return x @ self.weights[f"params/{name}/kernel"] + self.weights[f"params/{name}/bias"]


class Team:
    """All agents: arrays have an axis A more."""

    def __init__(self, folder: str | pathlib.Path) -> None:
        """Read all files of a policy."""
        told = json.loads((pathlib.Path(folder) / "policy.json").read_text(encoding="utf-8"))
        self.agents = [Agent(folder, i) for i in range(told["network"]["n_agents"])]

    def reset(self, n: int = 1) -> None:
        """`n` games begin."""
        for agent in self.agents:
            agent.reset(n)

    def act(
        self,
        obs: npt.ArrayLike,
        avail: npt.ArrayLike | None = None,
        is_first: np.ndarray | None = None,
    ) -> np.ndarray:
        """The actions `[n, A]`, of `obs[n, A, O]`, `avail[n, A, U]` and `is_first[n]`."""
        obs = np.asarray(obs)
        free = [None if avail is None else np.asarray(avail)[:, i] for i in range(len(self.agents))]
        acted = [a.act(obs[:, i], free[i], is_first) for i, a in enumerate(self.agents)]
        return np.stack(acted, axis=1)


def one_hot(index: np.ndarray, n: int) -> np.ndarray:
    """`[..., n]`, 1 at an index."""
    return np.eye(n, dtype=np.float32)[index]


def neighbours(image: np.ndarray) -> np.ndarray:
    """Every cell of `[n, height, width, C]` with the eight around it; zeros beyond the edge."""
    height, width = image.shape[1:3]
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.concatenate(shifted, axis=-1)


def relu(x: np.ndarray) -> np.ndarray:
    """The larger of x and 0."""
    return np.maximum(x, 0)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a .safetensors file of float32."""
    data = path.with_suffix(".safetensors").read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    arrays = json.loads(data[8:begin].decode())
    arrays.pop("__metadata__", None)
    out = {}
    for name, about in arrays.items():
        first, end = about["data_offsets"]
        flat = np.frombuffer(data[begin + first : begin + end], "<f4")
        out[name] = flat.reshape(about["shape"])
    return out
