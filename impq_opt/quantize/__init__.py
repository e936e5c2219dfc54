"""Quantizers, quantized copies of networks from allocations, and packed integer codes."""

from impq_opt.problem.coded import choice_of_codes, code_bits
from impq_opt.quantize.hooks import HowToTrain, before_step, training_of
from impq_opt.quantize.methods import METHODS, ActivationQuantizer, Method, Quantizer, load_method
from impq_opt.quantize.methods.activation import UniformActivation
from impq_opt.quantize.methods.base import QuantizedWeight
from impq_opt.quantize.methods.uniform import WeightQuantizer
from impq_opt.quantize.network import (
    WeightSize,
    activation_quantizers,
    clips_by_norms,
    learned_of,
    quantize,
    quantize_traced,
    quantized_weights,
    state_of,
    storage_bits,
    weight_size,
)
from impq_opt.quantize.origin import of_other_weights
from impq_opt.quantize.packing import PackedSize, Unpacked, pack, packed, unpack, unpack_into

__all__ = [
    "METHODS",
    "ActivationQuantizer",
    "HowToTrain",
    "Method",
    "PackedSize",
    "QuantizedWeight",
    "Quantizer",
    "UniformActivation",
    "Unpacked",
    "WeightQuantizer",
    "WeightSize",
    "activation_quantizers",
    "before_step",
    "choice_of_codes",
    "clips_by_norms",
    "code_bits",
    "learned_of",
    "load_method",
    "of_other_weights",
    "pack",
    "packed",
    "quantize",
    "quantize_traced",
    "quantized_weights",
    "state_of",
    "storage_bits",
    "training_of",
    "unpack",
    "unpack_into",
    "weight_size",
]
