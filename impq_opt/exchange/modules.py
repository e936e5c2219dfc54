"""Weights that targets cannot replace: they name modules, and some parameters are no module's own weight."""

from __future__ import annotations

import re
from collections.abc import Mapping

from impq_opt.groups.names import GroupNames

__all__ = ["bare_parameters"]

# Parameters of torch's own modules that are not called ``weight``: recurrent layers and attention.
_RECURRENT = re.compile(r"(?:^|\.)weight_(?:ih|hh|hr)(?:_l\d+)?(?:_reverse)?$")
_ATTENTION = re.compile(r"^(?P<stem>(?:.*\.)?)(?:in|q|k|v)_proj_weight$")
# torch.nn.MultiheadAttention gives the weight of its output projection to a function, and never calls the module.
_NEVER_CALLED = "NonDynamicallyQuantizableLinear"


def bare_parameters(names: GroupNames, types: Mapping[str, str]) -> dict[str, str]:
    """Return by layer what its weight is, where it is a parameter that no module of its own reads.

    Parameters
    ----------
    names : GroupNames
    types : mapping of str to str
        By label the class of the module, where it is known.
    """
    layers = dict(zip(names.layers, names.labels, strict=True))
    attentions = {match["stem"] for match in map(_ATTENTION.match, layers) if match}
    found = {}
    for layer, label in layers.items():
        module = layer.removesuffix(".weight")
        if _RECURRENT.search(layer):
            found[layer] = f"is a parameter of {types.get(label, 'a recurrent layer')}"
        elif _ATTENTION.match(layer):
            found[layer] = "is a parameter of MultiheadAttention"
        elif types.get(label) == _NEVER_CALLED or (
            module.endswith("out_proj") and module.removesuffix("out_proj") in attentions
        ):
            found[layer] = "is read by MultiheadAttention, not by a module of its own"
    return found
