"""Gradient transforms without their learning rate, which is traced.

RMSprop's decay and epsilon are PyMARL2's; the others are optax's defaults.
"""

from __future__ import annotations

import optax

from jaxvff.learning.options import OPTIMIZERS, OptimizerOptions


def adam() -> optax.GradientTransformation:
    """Adam."""
    return optax.scale_by_adam()


def rmsprop() -> optax.GradientTransformation:
    """RMSprop, with ε outside of the square root."""
    return optax.scale_by_rms(decay=0.99, eps=1e-5, eps_in_sqrt=False)


def radam() -> optax.GradientTransformation:
    """Rectified Adam."""
    return optax.scale_by_radam()


def sgd() -> optax.GradientTransformation:
    """Plain gradient descent."""
    return optax.identity()


def clipped(options: OptimizerOptions) -> optax.GradientTransformation:
    """The transform that a config asks for, after clipping by the global norm.

    Flattened: one vector instead of dozens of small leaves, less to compile and to launch.
    """
    clip = optax.clip_by_global_norm(options.grad_clip)
    return optax.flatten(optax.chain(clip, OPTIMIZERS[options.optimizer]()))
