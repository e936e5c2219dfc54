"""VGG-Small for 32x32 images, the network of LQ-Net and BWN comparisons."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["VggSmall", "vgg_small"]


class VggSmall(nn.Module):
    """Six 3x3 convolutions of 128-128-256-256-512-512 channels, every second one max-pooled, and one linear layer.

    The pool stands before batch-norm and ReLU, as in the public code of LQ-Nets and IMPQ: what the next layer reads is
    the ReLU's output itself, a quarter as large as it would be in front of a pool.
    """

    def __init__(self, *, classes: int = 10, channels: int = 3, size: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place, width in enumerate((128, 128, 256, 256, 512, 512)):
            layers.append(nn.Conv2d(channels, width, 3, padding=1, bias=False))
            if place % 2:
                layers.append(nn.MaxPool2d(2))
            layers += [nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(512 * (size // 8) ** 2, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(torch.flatten(self.features(x), 1))
        return out


def vgg_small(*, classes: int = 10, channels: int = 3) -> VggSmall:
    """VGG-Small: 4,656,512 weights in 1,802 kernels for 3 input channels and 10 classes."""
    return VggSmall(classes=classes, channels=channels)
