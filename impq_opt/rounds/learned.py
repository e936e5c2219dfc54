"""What quantizers learn besides the weights, from a file and from round to round."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from impq_opt.networks.matching import versioned
from impq_opt.quantize import activation_quantizers, quantized_weights

__all__ = ["carry", "restore"]


def restore(quantized: nn.Module, learned: Mapping[str, Tensor]) -> None:
    """Give the quantizers what :func:`impq_opt.quantize.learned_of` told of them; what has no place is left out."""
    places = quantized.state_dict()
    fits = {name: t for name, t in learned.items() if name in places and places[name].shape == t.shape}
    quantized.load_state_dict(versioned(quantized, fits), strict=False)


def carry(before: nn.Module, quantized: nn.Module) -> None:
    """Give the quantizers of a round what those of the round before learned, where it still means the same.

    That is for weights all of whose groups keep their precisions, and for activations where the shapes are the same.
    """
    weights, activations = quantized_weights(before), activation_quantizers(before)
    for name, weight in quantized_weights(quantized).items():
        old = weights[name].quantizer if name in weights else None
        if old is not None and np.array_equal(old.group_bits, weight.quantizer.group_bits):
            weight.quantizer.load_state_dict(old.state_dict())
    for label, quantizer in activation_quantizers(quantized).items():
        if label in activations:  # a rectifier that was in float learned nothing
            restore(quantizer, activations[label].state_dict())
