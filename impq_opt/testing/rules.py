"""What all conformance suites raise, and the problem that those of costs and formats look at."""

from __future__ import annotations

import numpy as np

from impq_opt.problem.declaration import Group
from impq_opt.problem.problem import Problem

__all__ = ["ConformanceError", "blocks", "rule"]


class ConformanceError(AssertionError):
    """A plug-in broke one of the rules."""


def rule(kept: bool, whose: object, text: str) -> None:
    """Raise ConformanceError that names the plug-in, or the case, and the rule, unless it was kept."""
    if not kept:
        raise ConformanceError(f"{whose}: {text}")


def blocks(bits: tuple[float, ...] = (2, 3, 4, 5, 6, 8, 16), *, activations: bool = False, seed: int = 0) -> Problem:
    """Return a problem of two transformer blocks and a head, sizes whole multiples of 256, damages drawn by ``seed``.

    With ``activations`` every block has an input, which its layers read, and all layers have multiply-accumulates.
    """
    rng = np.random.default_rng(seed)
    attention = [f"self_attn.{part}_proj" for part in "qkvo"]
    parts = [*attention, *(f"mlp.{part}_proj" for part in ("gate", "up", "down"))]
    groups = []
    for block in range(2):
        name = f"model.layers.{block}"
        for part in parts:
            rows = int(rng.integers(1, 5))
            groups.append(
                Group(
                    f"{name}.{part}", size=256 * rows, sensitivity=float(10 ** rng.uniform(-3, 1)), bits=bits,
                    macs=256 * rows * 7, length=256, reads=f"{name}.input" if activations else "",
                )
            )  # fmt: skip
        if activations:
            groups.append(
                Group(
                    f"{name}.input", size=7 * 256, sensitivity=float(10 ** rng.uniform(-3, 1)), bits=bits,
                    kind="activation", steps=(3 * block, 3 * block + 2),
                )
            )  # fmt: skip
    groups.append(Group("lm_head", size=2560, sensitivity=0.5, bits=bits, macs=2560 * 7, length=256))
    return Problem.declare(groups, bound=0.05)
