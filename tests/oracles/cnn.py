"""Convolutions over an image as slow loops in NumPy, one cell and one channel at a time.

Written from the sum itself: out[i, j, f] = bias[f] + Σ_{a, b in -1..1, c} in[i+a, j+b, c] w[a, b, c, f],
with zeros beyond the edge.
"""

from __future__ import annotations

import numpy as np

from tests.oracles.gru import dense


def convolution(kernel: np.ndarray, bias: np.ndarray, image: np.ndarray) -> np.ndarray:
    """`kernel[3, 3, C, F]`, `bias[F]`, `image[height, width, C]` -> `[height, width, F]`."""
    height, width, channels = image.shape
    out = np.zeros((height, width, len(bias)))
    for i in range(height):
        for j in range(width):
            for f in range(len(bias)):
                out[i, j, f] = bias[f]
                for a in range(-1, 2):
                    for b in range(-1, 2):
                        if 0 <= i + a < height and 0 <= j + b < width:
                            for c in range(channels):
                                out[i, j, f] += image[i + a, j + b, c] * kernel[a + 1, b + 1, c, f]
    return out


def utility(params: dict, image: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """`q[U]` of one agent that sees `image[height, width, C]` and `rest`, its other inputs."""
    seen = image.astype(np.float64)
    for name in ("Dense_0", "Dense_1"):
        kernel, bias = (np.asarray(params[name][x], np.float64) for x in ("kernel", "bias"))
        kernel = kernel.reshape(3, 3, seen.shape[-1], -1)
        seen = np.maximum(convolution(kernel, bias, seen), 0)
    features = np.maximum(dense(params["Dense_2"], np.concatenate([seen.ravel(), rest])), 0)
    return dense(params["Dense_3"], features)
