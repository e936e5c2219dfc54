"""Arguments of calls by their names, and the windows of convolutions and pools."""

from __future__ import annotations

from typing import Any

from torch import fx

from impq_opt.tracing.nodes import module_of

__all__ = ["Pair", "Sides", "arguments", "padded", "pair", "place_of", "windows_of"]

Pair = tuple[int, int]
Sides = tuple[Pair, Pair]


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return what a call of torch's is given, by the names of its schema, defaults too."""
    schema: Any = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    defaults = {argument.name: argument.default_value for argument in schema.arguments}
    return defaults | given | dict(node.kwargs)


def place_of(node: fx.Node) -> str:
    """Return where a call is, for people: its module, or its own name where it is in none."""
    return module_of(node) or node.name


def pair(value: Any) -> Pair:
    """Return down and across of what torch takes as one number or two."""
    values = tuple(int(v) for v in value) if isinstance(value, (list, tuple)) else (int(value),)
    return values[0], values[-1]


def padded(value: Any, kernel: Pair, dilation: Pair) -> Sides:
    """Return the padding of a convolution, before and after, down and across."""
    if value == "same":  # torch puts the odd one behind
        totals = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return (totals[0] // 2, totals[0] - totals[0] // 2), (totals[1] // 2, totals[1] - totals[1] // 2)
    down, across = (0, 0) if value == "valid" else pair(value)
    return (down, down), (across, across)


def windows_of(size: Pair, out: Pair, kernel: Pair, stride: Pair, dilation: Pair, padding: Pair) -> Sides:
    """Return the padding of a pool that puts out ``out`` windows of an input, more of it where it rounds up."""

    def sides(k: int) -> Pair:
        needed = (out[k] - 1) * stride[k] + dilation[k] * (kernel[k] - 1) + 1 - size[k] - padding[k]
        return padding[k], max(padding[k], needed)

    return sides(0), sides(1)
