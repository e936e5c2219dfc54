"""Layers that serving engines fuse, and that must therefore share one precision."""

from __future__ import annotations

import re

from impq_opt.groups.names import GroupNames
from impq_opt.problem.problem import Problem

__all__ = ["fused_ties", "layer_ties"]

# Projections that are stored as one matrix at inference: attention's inputs, and the two inputs of a gated MLP. The
# experts of a mixture are one tensor.
_FUSED = [
    re.compile(pattern)
    for pattern in (
        r"^(?P<stem>.*?)\.(?:q_proj|k_proj|v_proj)$",
        r"^(?P<stem>.*?)\.(?:q_a_proj|kv_a_proj_with_mqa)$",  # latent attention (MLA)
        r"^(?P<stem>.*?)\.(?:query|key|value)$",  # BERT, ViT
        # diffusers: to_q belongs to k and v where all three read the same, and cross-attention is called attn2
        r"^(?P<stem>.*?(?<!\.attn2))\.(?:to_q|to_k|to_v)$",
        r"^(?P<stem>.*?\.attn2)\.(?:to_k|to_v)$",
        r"^(?P<stem>.*?)\.(?:add_q_proj|add_k_proj|add_v_proj)$",
        r"^(?P<stem>.*\.experts)\.\d+\.(?:gate_proj|up_proj|w1|w3)$",
        r"^(?P<stem>.*\.experts)\.\d+\.(?:down_proj|w2)$",
        r"^(?P<stem>.*?)\.(?:gate_proj|up_proj)$",
        r"^(?P<stem>.*?)\.(?:in_proj_qkv|in_proj_z)$",
        r"^(?P<stem>.*?)\.(?:in_proj_a|in_proj_b)$",
    )
]


def fused_ties(names: GroupNames) -> list[list[str]]:
    """Return the labels that must agree, one list a fused matrix.

    Labels are matched by their layer, with or without a last ``.weight``. Where layers are cut into groups (kernels),
    all groups of all members are tied, since one matrix has one format.
    """
    fused: dict[tuple[int, str], list[str]] = {}
    for label, layer in zip(names.labels, names.layers, strict=True):
        for place, pattern in enumerate(_FUSED):
            match = pattern.match(layer.removesuffix(".weight"))
            if match:
                fused.setdefault((place, match["stem"]), []).append(label)
                break
    return [labels for labels in fused.values() if len(labels) > 1]


def layer_ties(problem: Problem) -> list[list[str]]:
    """Return the labels of the weights of each layer that is cut into several groups, one list a layer."""
    names, weights = problem.names, problem.weights()
    by_layer: dict[str, list[int]] = {}
    for place, layer in enumerate(names.layers):
        if weights[names.offsets[place]]:
            by_layer.setdefault(layer, []).append(place)
    return [[names.labels[place] for place in places] for places in by_layer.values() if names.counts[places].sum() > 1]
