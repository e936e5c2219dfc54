"""A small network for HAQ's agent."""

from __future__ import annotations

from typing import Any

import numpy as np

from impq_opt import GroupNames, Problem

# Three layers and the activations that two of them read; conv3 reads the picture.
LABELS = ("conv1", "conv2", "conv3", "conv1.out", "conv2.out")


def network(bits: Any = (2, 4, 8), **fields: Any) -> Problem:
    """Return three layers by kernel (4, 3 and 2 kernels), the second of which reads the output of the first."""
    sizes = np.array([18] * 4 + [36] * 3 + [10] * 2 + [400, 90])
    return Problem.from_sensitivities(
        sizes,
        np.random.default_rng(0).uniform(0.1, 2, 11),
        names=GroupNames(LABELS, ((4,), (3,), (2,), (), ())),
        kinds=[0] * 9 + [1] * 2,
        macs=[18 * 100] * 4 + [36 * 30] * 3 + [10] * 2 + [0, 0],
        lengths=[18] * 4 + [36] * 3 + [10] * 2 + [0, 0],
        reads=[-1] * 4 + [9] * 3 + [10] * 2 + [-1, -1],
        steps=[[-1, -1]] * 9 + [[0, 1], [1, 2]],
        bits=bits,
        **fields,
    )
