"""What calls do with values, by the name of the operation; one table for all who follow a tensor through a graph."""

from __future__ import annotations

__all__ = ["IDENTITIES", "KEEP_SIGN", "SHAPES", "TRANSPARENT"]

# Another shape or a part of a tensor. Picking one of several parts (getitem) is for who asks to look at.
SHAPES = frozenset([
    "chunk", "expand", "flatten", "movedim", "narrow", "permute", "reshape", "select", "slice", "split",
    "split_with_sizes", "squeeze", "t", "transpose", "unbind", "unflatten", "unsqueeze", "view", "_unsafe_view",
])  # fmt: skip
# The same values; dropout in eval mode.
IDENTITIES = frozenset([
    "alias", "clone", "contiguous", "detach", "dropout", "lift_fresh_copy", "to", "type_as", "_to_copy",
])  # fmt: skip
_COPIES = frozenset([
    "constant_pad_nd", "index_select", "pad", "pixel_shuffle", "pixel_unshuffle", "reflection_pad2d", "repeat", "roll",
    "upsample_nearest2d",
])  # fmt: skip
_POOLS = frozenset([
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "adaptive_max_pool2d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d", "mean",
])  # fmt: skip
# These move, drop, pool or repeat values; a quantizer in front of them serves who reads their output as well.
TRANSPARENT = SHAPES | IDENTITIES | _COPIES | _POOLS
# What is not negative stays so through these.
KEEP_SIGN = TRANSPARENT | {"add", "cat", "concat", "getitem", "mul", "sum", "upsample_bilinear2d"}
