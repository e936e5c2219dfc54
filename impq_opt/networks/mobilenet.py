"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861), width 1.0 for 224x224 images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["MobileNetV1", "mobilenet_v1"]

# Output channels and stride of the thirteen depthwise-separable blocks.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """A convolution, thirteen pairs of depthwise and pointwise convolutions, and a linear layer."""

    def __init__(self, *, classes: int = 1000, channels: int = 3) -> None:
        super().__init__()
        layers = [_conv(channels, 32, 3, 2)]
        width = 32
        for out, stride in _BLOCKS:
            layers += [_conv(width, width, 3, stride, groups=width), _conv(width, out, 1, 1)]
            width = out
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(torch.flatten(self.pool(self.features(x)), 1))
        return out


def _conv(channels: int, width: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(width), nn.ReLU())


def mobilenet_v1(*, classes: int = 1000, channels: int = 3) -> MobileNetV1:
    """MobileNetV1 1.0: 4,209,088 weights in 11,944 kernels for 3 input channels and 1000 classes."""
    return MobileNetV1(classes=classes, channels=channels)
