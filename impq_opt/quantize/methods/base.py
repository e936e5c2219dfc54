"""What a method is: a name and options, and the modules that it makes for one weight and for one activation tensor."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from impq_opt.quantize.methods.activation import ActivationQuantizer, UniformActivation
from impq_opt.quantize.methods.checks import (
    ALL_WIDTHS,
    FLOAT_BITS,
    MOST_BITS,
    Kept,
    check_choice,
    check_sizes,
    exact,
    whole_bits,
    widths_text,
)
from impq_opt.registry import spec_of
from impq_opt.training import Objective

__all__ = [
    "FLOAT_BITS",
    "MOST_BITS",
    "Method",
    "Moment",
    "Quantizer",
    "check_choice",
    "check_sizes",
    "exact",
    "whole_bits",
    "widths_text",
]


class Method(ABC):
    """How weights and activations are rounded, by name: a frozen dataclass whose fields are the method's options.

    A problem names one for each weight (``Problem.grids``), and for activations where they are not rounded as in IMPQ;
    whoever measures, quantizes, validates or packs makes the quantizers from that name.

    Attributes
    ----------
    name, summary, source : str
        ``source`` is the paper or the format that it follows.
    has_zero : bool
        Zero is always a level, so that a weight of exactly 0 stays 0 at every precision.
    straight_through : bool
        The gradient of the rounded weight passes unchanged to the latent one.
    widths : sequence of int
        The precisions that it has, in bits of a code. A method of three levels has one, of 2 bits.
    needs_training : bool
        Its levels are not near the weights before a network was trained with them: what it would do to a float network
        says nothing, so damages are measured at weights that it rounded.
    training : str
        What training does besides rounding, in a few words.
    leaves_float : tuple of str
        Which layers the paper leaves in float, ``"first"`` or ``"last"``. Nothing is left out unless asked for.
    activations : str
        What its own rule for activations is, in a few words; empty where it has none, so that they are rounded as in
        IMPQ.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    has_zero: ClassVar[bool] = False
    straight_through: ClassVar[bool] = True
    widths: ClassVar[Sequence[int]] = ALL_WIDTHS
    needs_training: ClassVar[bool] = False
    training: ClassVar[str] = "straight-through gradient"
    leaves_float: ClassVar[tuple[str, ...]] = ()
    activations: ClassVar[str] = ""

    @property
    def spec(self) -> str:
        """Name and options that are not the usual ones, as :func:`load_method` reads them: ``zero:over=tensor``."""
        return spec_of(self)

    @abstractmethod
    def levels(self, bits: int) -> int:
        """Return the most values that the weights of one range take at ``bits``."""

    def effective_bits(self, bits: int) -> float:
        """Return what a weight says at ``bits``, log2 of its levels: 1.58 bits for three levels in codes of 2 bits."""
        return math.log2(self.levels(bits))

    @abstractmethod
    def quantizer(self, shape: tuple[int, ...] | torch.Size, bits: npt.ArrayLike, sizes: npt.ArrayLike) -> Quantizer:
        """Return a quantizer of one weight.

        Parameters
        ----------
        shape : sequence of int
            Of the weight; output kernels first.
        bits : array of int (G,)
            Precision of each group; groups are consecutive runs of the weight in C order.
        sizes : array of int (G,)
            Elements of each group; together they are the weight.

        Raises
        ------
        OptionError
            A precision that the method has not, or groups that it cannot tell apart.
        """

    def objective(self, objective: Objective, network: nn.Module, weights: Mapping[str, QuantizedWeight]) -> Objective:
        """Return what training makes small where these weights of a network are quantized so: ``objective`` and terms.

        Parameters
        ----------
        objective : Objective
            Without them.
        network : nn.Module
            The quantized network, without wrappers.
        weights : mapping of str to QuantizedWeight
            The weights that this method quantizes.
        """
        return objective

    def width(self, bits: float) -> int:
        """Return a precision as a whole number.

        Raises
        ------
        OptionError
            Unless the method has it.
        """
        return int(whole_bits([bits], self.widths, f"{self.name} has")[0])

    def activation(self, bits: float, span: float, label: str = "", *, signed: bool = False) -> ActivationQuantizer:
        """Return a quantizer of one activation tensor: IMPQ's, unless the method has a rule of its own.

        Parameters
        ----------
        bits : int
        span : float
            Length of the interval that the tensor was measured to need, such as the clip value of a rectifier's output.
        label : str
            The activation group that it quantizes.
        signed : bool
            The tensor is not the output of a rectifier. Published methods have rules for those alone, and round others
            as IMPQ does.

        Raises
        ------
        OptionError
            A precision that the method has not, or a span that is not positive and finite.
        """
        return UniformActivation(bits, span, label, signed=signed)

    @abstractmethod
    def spans(self, weight: Tensor) -> Tensor | None:
        """Return the span (out,), float64, of every output kernel: the step at B bits is the span times 2^-B.

        None where steps are not so, or not uniform: damages then rest on the measured error alone.
        """


class Moment(NamedTuple):
    """Where training stands before a step, as a quantizer sees it: a function of the course alone.

    Parameters
    ----------
    share : float
        Steps done, of all: 0 before the first, below 1 before the last.
    place, places : int
        The weight's number among the quantized ones, in the order of the network's modules, and how many there are.
    """

    share: float = 0.0
    place: int = 0
    places: int = 1


@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """One quantized weight tensor of a network.

    Parameters
    ----------
    name : str
        The parameter's name in the float network.
    latent : Tensor
        The float weight that training moves.
    quantizer : Quantizer
    """

    name: str
    latent: Tensor
    quantizer: Quantizer

    @property
    def value(self) -> Tensor:
        """The quantized weight."""
        with torch.no_grad():
            return self.quantizer.rounded(self.latent)


class Quantizer(Kept):
    """A method on one weight, for use as a torch parametrization.

    Whole codes and *side information* (scales, codebooks) stand for the rounded weight: ``values(codes(w), side(w))``
    is ``rounded(w)``, bit for bit, which the network computes with in eval mode. In training mode it computes with
    ``relaxed(w)``, the same unless a method says otherwise, and what is ``frozen`` is rounded and gets no gradient.
    Arithmetic is in float32, or in float64 for weights of float64; the rounded weight has the type of the latent one,
    each value rounded to it once.

    Attributes
    ----------
    method : Method
    shape : tuple of int
    group_bits, group_sizes : ndarray of int64 (G,)
    """

    method: Method
    shape: tuple[int, ...]
    group_bits: npt.NDArray[np.int64]
    group_sizes: npt.NDArray[np.int64]

    def __init__(self) -> None:
        super().__init__()
        self.eval()  # by itself; on a network it is in the mode of the layer

    def codes(self, weight: Tensor) -> Tensor:
        """Return the codes, of the weight's shape, whole numbers from 0 to 2^B - 1, as uint8 or int32."""
        raise NotImplementedError

    def side(self, weight: Tensor) -> dict[str, Tensor]:
        """Return by name what decoding needs beside the codes: what a packed file stores besides them."""
        raise NotImplementedError

    def values(self, codes: Tensor, side: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Return the weights of type ``dtype`` that ``codes`` stand for; of the type of the arithmetic unless given."""
        raise NotImplementedError

    def rounded(self, weight: Tensor) -> Tensor:
        """Return the rounded weight, as it is at test, with the method's gradient."""
        raise NotImplementedError

    def relaxed(self, weight: Tensor) -> Tensor:
        """Return what stands for the weight in training; what it draws is drawn from torch's generator."""
        return self.rounded(weight)

    def frozen(self, weight: Tensor) -> Tensor | None:
        """Return which entries keep their values through the step (bool, broadcastable to the weight); None: none."""
        return None

    def before_step(self, weight: Tensor, moment: Moment) -> None:
        """Do what the method wants done before a training step, in place: to the latent ``weight``, or what is kept.

        Called without gradients. What must last from step to step is in parameters and persistent buffers; all else
        that is set here follows from the ``moment``. So training goes on from saved tensors as if it had never stopped.
        """

    def forward(self, weight: Tensor) -> Tensor:
        if not self.training:
            return self.rounded(weight)
        value, frozen = self.relaxed(weight), self.frozen(weight)
        return value if frozen is None else torch.where(frozen, self.rounded(weight).detach(), value)

    def side_bits(self, weight: Tensor) -> int:
        """Return the bits that the side information takes."""
        return sum(8 * tensor.nbytes for tensor in self.side(weight).values())
