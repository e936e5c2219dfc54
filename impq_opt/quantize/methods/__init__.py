"""Methods of quantizing weights and activations, one file each, by name.

A new one is a file with a frozen dataclass that derives from :class:`Method`, and a line in :data:`METHODS`, or an
entry point in the group ``impq_opt.methods`` of another package. :func:`impq_opt.testing.check_method` says whether it
keeps the rules.
"""

from __future__ import annotations

from impq_opt.quantize.methods.activation import ActivationQuantizer
from impq_opt.quantize.methods.base import FLOAT_BITS, MOST_BITS, Method, Quantizer, whole_bits, widths_text
from impq_opt.registry import Registry

__all__ = [
    "FLOAT_BITS",
    "METHODS",
    "MOST_BITS",
    "ActivationQuantizer",
    "Method",
    "Quantizer",
    "load_method",
    "method_class",
    "method_names",
    "whole_bits",
    "widths_text",
]

METHODS: dict[str, str] = {
    "mid-rise": "impq_opt.quantize.methods.mid_rise:MidRise",  # no zero level, steps of the largest weight (IMPQ)
    "zero": "impq_opt.quantize.methods.zero:Zero",  # zero and the largest weight are levels (as llama.cpp's q4_0)
    "symmetric": "impq_opt.quantize.methods.symmetric:Symmetric",  # 2^B - 1 levels, as many integer kernels want them
    "integer": "impq_opt.quantize.methods.integer:Integer",  # 2^B levels, 2 M / (2^B - 1) apart (torchao, GPTQ)
    "asymmetric": "impq_opt.quantize.methods.asymmetric:Asymmetric",  # from the least to the largest weight
    "affine": "impq_opt.quantize.methods.affine:Affine",  # the same, with the larger of them and zero hit (MLX)
    "normal": "impq_opt.quantize.methods.normal:Normal",  # least squared error for normal weights (Max)
    "bwn": "impq_opt.quantize.methods.bwn:BWN",  # the sign
    "twn": "impq_opt.quantize.methods.twn:TWN",  # three levels, one scale
    "ttq": "impq_opt.quantize.methods.ttq:TTQ",  # three levels, two learned scales
    "elq": "impq_opt.quantize.methods.elq:ELQ",  # two or three levels, frozen in stages, the loss' change made small
    "dorefa": "impq_opt.quantize.methods.dorefa:DoReFa",  # equal steps of tanh w; of activations, up to 1
    "pact": "impq_opt.quantize.methods.pact:PACT",  # weights as dorefa; activations up to a learned clip value
    "lq-net": "impq_opt.quantize.methods.lq_net:LQNet",  # sums of fitted scales with signs; of activations, without
    "dbq": "impq_opt.quantize.methods.dbq:DBQ",  # sums of two ternary branches, sigmoids in training
    "uniq": "impq_opt.quantize.methods.uniq:UNIQ",  # equally probable bins, noise in training
    "rq": "impq_opt.quantize.methods.rq:RQ",  # equal steps with learned noise, relaxed in training
    "rq-st": "impq_opt.quantize.methods.rq:RQST",  # the same, sampled in training
}

_registry = Registry[Method]("method", METHODS, "impq_opt.methods")
method_names, method_class = _registry.names, _registry.find


def load_method(spec: str | Method) -> Method:
    """Return the method that a text such as ``"mid-rise"`` or ``"zero:over=tensor"`` names.

    Raises
    ------
    OptionError
        Unknown names, options or values, with near matches.
    """
    return spec if isinstance(spec, Method) else _registry.read(spec)
