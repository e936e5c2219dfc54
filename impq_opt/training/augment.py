"""Images mirrored and shifted."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["AUGMENTATIONS", "augmented"]

AUGMENTATIONS = ("none", "flip", "crop-flip")


def augmented(images: Tensor, kind: str) -> Tensor:
    """Mirror half of the images (n, c, h, w), shift each by up to an eighth of its side (4 of 32: He et al. 2016)."""
    mirrored = torch.rand(len(images)) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if kind == "flip":
        return images
    height, width = images.shape[-2:]
    margin = max(1, height // 8)
    padded = functional.pad(images, (margin,) * 4)
    down, right = torch.randint(0, 2 * margin + 1, (2, len(images)))
    rows = down[:, None] + torch.arange(height)
    columns = right[:, None] + torch.arange(width)
    picked = padded[torch.arange(len(images))[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (n, h, w, c)
    return picked.permute(0, 3, 1, 2)
