"""Where a network's weights and activations lie."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ActivationSite", "Use", "WeightSite"]


@dataclass(frozen=True)
class Use:
    """One call that multiplies by a weight.

    Parameters
    ----------
    node : str
        Name of the call in the graph.
    dimensions : int
        Spatial dimensions of a convolution; 0 for all else.
    stride, dilation : tuple of int
        Of a convolution.
    padding : tuple of (int, int)
        Before and after, per spatial dimension.
    groups : int
    reads : tuple of str
        Nodes of the activation sites that this call reads; empty where it reads the network's input.
    macs : int
        Multiply-accumulates per sample.
    length : int
        Length of its dot products.
    operand : str
        The node that the weight comes from; "" for a convolution or linear layer that reads a parameter as it is.
    views : tuple of str
        The calls, in order, that make the operand from the parameter.
    """

    node: str
    dimensions: int
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    reads: tuple[str, ...]
    macs: int
    length: int
    operand: str = ""
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightSite:
    """A weight tensor (out, in / groups, *kernel): its name, the parameter, and every call that uses it."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    uses: tuple[Use, ...]

    @property
    def length(self) -> int:
        """Length of its dot products."""
        return max(use.length for use in self.uses)


@dataclass(frozen=True)
class ActivationSite:
    """A tensor that a quantizer would see: name, node, shape per sample, and the clip that the calls imply.

    ``clip`` and ``rule`` are as :func:`impq_opt.tracing.clips.clip_of` says; NaN and "" where the range must be
    measured. ``steps`` are the first and last call at which the tensor is in memory.
    """

    name: str
    node: str
    shape: tuple[int, ...]
    clip: float
    rule: str
    steps: tuple[int, int]
