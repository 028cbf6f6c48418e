"""Battles of SMAX in replay: what units are and do, from which observations are rebuilt."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxvff.core.types import Array, Codec, EnvParams, Segment
from jaxvff.envs.smax_observer import OTHER_FEATURES, OWN_FEATURES, Observer, Units

# Where the features of another unit in an observation say what it did last.
MOVEMENT, TARGET = slice(3, 5), 5


class CompactCodec:
    """Stores four numbers a unit, the enemies' actions, and a bit for each unit that an agent sees.

    Observations and states are rebuilt from these bit for bit.
    """

    def __init__(self, observer: Observer, n_actions: int) -> None:
        """How many numbers and bits there are.

        Args:
          observer: which rebuilds what it showed.
          n_actions: of an agent.
        """
        self.observer, self.n_actions = observer, n_actions
        self.n_units, self.n_allies = observer.n_units, observer.n_allies
        self.own_size = OWN_FEATURES + observer.n_types
        self.other_size = OTHER_FEATURES + observer.n_types
        # Where, among the others, an ally sees the enemies.
        self.enemies = self.n_allies - 1 + np.arange(self.n_units - self.n_allies)

    def codec(self) -> Codec:
        """Its two functions."""
        return Codec(self.pack, self.unpack)

    def pack(self, segment: Segment) -> dict[str, Array]:
        """What replay stores of a segment: arrays `[T, ...]`."""
        n, n_slots = self.n_units, len(segment.reward)
        units = segment.state[:, : n * self.own_size].reshape(-1, n, self.own_size)
        numbers = units[..., :OWN_FEATURES]
        others = segment.obs[..., : (n - 1) * self.other_size]
        others = others.reshape(-1, self.n_allies, n - 1, self.other_size)
        visible = others[..., 0] > 0  # whoever is seen has health
        enemy_action = self._enemy_actions(others, visible)
        flags = jnp.stack([segment.terminated, segment.is_first, segment.mask], axis=-1)
        stored = {
            "numbers": numbers,
            "enemy": enemy_action.astype(jnp.uint8),
            "action": segment.action.astype(jnp.uint8),
            "reward": segment.reward,
            "visible": _to_bits(visible.reshape(n_slots, -1)),
            "avail": _to_bits(segment.avail.reshape(n_slots, -1)),
            "flags": _to_bits(flags),
        }
        if self.observer.random_types:
            stored["type"] = segment.state[:, -n:].astype(jnp.uint8)
        return stored

    def _enemy_actions(self, others: Array, visible: Array) -> Array:
        """The enemies' last actions `[T, E]`, as the observations tell them.

        Args:
          others: `[T, A, n-1, features]`, what each agent observes of the other units.
          visible: `[T, A, n-1]` bool.
        """
        observer = self.observer
        enemy = others[:, :, self.enemies]  # [T, A, E, features]
        # All who see an enemy see the same action. Where nobody does, the features are zeros.
        witness = jnp.argmax(visible[:, :, self.enemies], axis=1)[:, None, :, None]
        seen = jnp.take_along_axis(enemy, witness, axis=1)[:, 0, :, MOVEMENT.start : TARGET + 1]
        target = jnp.round(seen[..., 2] * observer.last_action[-1])
        moved = jnp.argmax(seen[..., :2] @ observer.moves[:4].T, axis=-1)
        still = ~jnp.any(seen[..., :2] != 0, axis=-1)
        return jnp.where(target > 0, target, jnp.where(still, observer.stop, moved))

    def unpack(self, stored: dict[str, Array], params: EnvParams) -> Segment:
        """The segment of T slots that was packed."""
        a, n, n_slots = self.n_allies, self.n_units, len(stored["reward"])
        terminated, is_first, mask = _from_bits(stored["flags"], 3).T
        action = stored["action"].astype(jnp.int32)
        units = self._units(stored, action, is_first)
        visible = _from_bits(stored["visible"], a * (n - 1)).reshape(n_slots, a, n - 1)
        return Segment(
            obs=jax.vmap(self.observer.obs)(units, visible),
            state=jax.vmap(self.observer.state)(units),
            avail=_from_bits(stored["avail"], a * self.n_actions).reshape(
                n_slots, a, self.n_actions
            ),
            action=action,
            reward=stored["reward"],
            terminated=terminated,
            is_first=is_first,
            mask=mask,
        )

    def _units(self, stored: dict[str, Array], action: Array, is_first: Array) -> Units:
        """All units in T slots, with leaves `[T, n, ...]`.

        Args:
          stored: what `pack` made.
          action: `[T, A]` int, the agents'.
          is_first: `[T]` bool.
        """
        observer, stop = self.observer, self.observer.stop
        before = jnp.concatenate([jnp.full((1, self.n_allies), stop), action[:-1]])
        before = jnp.where(is_first[:, None], stop, before)
        if observer.random_types:
            types = stored["type"]
        else:
            types = jnp.tile(observer.fixed_types, (len(action), 1))
        health, position, cooldown = jnp.split(stored["numbers"], (1, 3), axis=-1)
        health, cooldown = health[..., 0], cooldown[..., 0]
        if observer.scale_state:
            # The sides of the map are powers of two: no bit is lost.
            position, ready = position * observer.map_size, cooldown
        else:
            ready = observer.ready(cooldown, types)
        return Units(
            health=health,
            position=position,
            cooldown=cooldown,
            ready=ready,
            type=types.astype(jnp.int32),
            last=jnp.concatenate([before, stored["enemy"].astype(jnp.int32)], axis=-1),
        )


def _to_bits(x: Array) -> Array:
    """`[T, k]` bool -> `[T, ceil(k / 8)]` uint8."""
    return jnp.packbits(x, axis=-1)


def _from_bits(x: Array, k: int) -> Array:
    """`[T, ceil(k / 8)]` uint8 -> `[T, k]` bool."""
    return jnp.unpackbits(x, axis=-1, count=k).astype(bool)
