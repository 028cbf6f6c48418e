"""What a loss takes and returns, and what a method may remember of the segments in replay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax

from jaxvff.core.types import Array, EnvSpec, Metrics, Params, Segment, Traced, Tree
from jaxvff.losses.options import SearchOptions
from jaxvff.losses.targets import BootstrapRule, Return
from jaxvff.networks.utility import Utility


class Model(NamedTuple):
    """The pure functions that a loss calls: networks and target rules, no parameters."""

    utility: Utility
    mixer: nn.Module
    bootstrap: BootstrapRule
    returns: Return
    n_step: int
    # Names of the sets of utility parameters: "utility" acts; a method may have others beside it.
    utility_sets: tuple[str, ...] = ("utility",)
    # What the team draws for an episode, a networks.contexts.Context with parameters "context";
    # None: nothing
    context: nn.Module | None = None


class LossInput(NamedTuple):
    """Everything that the loss of one segment may look at."""

    model: Model
    params: Params  # online: {"utility", "mixer", ...}
    target_params: Params  # of the target network, the same structure
    segment: Segment
    traced: Traced
    recalled: Tree = ()  # what the method's SegmentMemory knows of this segment
    targets: Array | None = None  # Loss.targets of before; None: they are to be made now


class LossOutput(NamedTuple):
    """The loss of one segment, slot by slot."""

    per_slot: Array  # [T], 0 where the mask is False
    metrics: Metrics  # [T] each, 0 where the mask is False; "td_error_abs" is among them
    found: Tree = ()  # what the method's SegmentMemory may keep


class Loss(ABC):
    """The loss of a method; a frozen dataclass whose fields are its options."""

    @abstractmethod
    def __call__(self, x: LossInput) -> LossOutput:
        """The loss of one segment."""

    def targets(self, x: LossInput) -> Array | None:
        """TD targets `[T, ...]` that several updates may share: they become LossInput.targets.

        None, unless a loss says otherwise: they depend on what is learned in between.
        """
        return None


class Evaluated(NamedTuple):
    """What a batch of M different segments came to; they stand for B sampled ones."""

    found: Tree  # LossOutput.found, leaves [M, ...]
    row: Tree  # SegmentMemory rows of the sampled segments, leaves [B]
    example: Array  # [M] int, the sampled segment that each one stands for
    copies: Array  # [M] how many (or with which weight) each one stands for; 0: none
    mean: Callable[[Array], Array]  # [M, T] -> [], over the valid slots of the batch


# (f, what f takes of each segment [M, ...], what is recalled of it [M, ...]) -> outputs [M, ...]
OverBatch = Callable[[Callable[[Tree, Tree], Tree], Tree, Tree], Tree]


class SegmentMemory(NamedTuple):
    """What a method remembers of every segment in replay, as pure functions of its own state.

    Most methods remember nothing (`no_memory`). A row says where a segment's memory is; replay
    keeps it beside the segment.
    """

    init: Callable[[Array, EnvSpec, int, int], Tree]  # (key, spec, segments in replay, slots)
    add: Callable[[Tree, Segment], tuple[Tree, Tree]]  # (state, segments [N]) -> (state, rows [N])
    recall: Callable[[Tree, Tree, Array], Tree]  # (state, rows [M], key) -> recalled [M, ...]
    over_batch: OverBatch  # how a function of one segment is applied to a batch
    update: Callable[[Tree, Evaluated], Tree]  # (state, what a batch came to) -> state


def no_memory(options: SearchOptions) -> SegmentMemory:
    """Of a method that remembers nothing of a segment: no state, and no cost."""
    return SegmentMemory(
        init=lambda key, spec, capacity, n_slots: (),
        add=lambda state, segments: ((), ()),
        recall=lambda state, rows, key: (),
        over_batch=lambda f, inputs, recalled: jax.vmap(f)(inputs, recalled),
        update=lambda state, evaluated: (),
    )
