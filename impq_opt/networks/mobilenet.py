"""MobileNetV1 (Howard et al. 2017, arXiv:1704.04861), width 1.0 for 224x224 images."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["MobileNetV1", "mobilenet_v1", "mobilenet_v1_tf"]

# Output channels and stride of the thirteen depthwise-separable blocks.
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class MobileNetV1(nn.Module):
    """A convolution, thirteen pairs of depthwise and pointwise convolutions, and a linear layer.

    Parameters
    ----------
    classes, channels : int
    conv : callable
        Channels, width, size of the kernel, stride and groups to a convolution with its norm and rectifier.
    """

    def __init__(self, *, classes: int = 1000, channels: int = 3, conv: Callable[..., nn.Module] | None = None) -> None:
        super().__init__()
        conv = conv or _conv
        layers = [conv(channels, 32, 3, 2)]
        width = 32
        for out, stride in _BLOCKS:
            layers += [conv(width, width, 3, stride, groups=width), conv(width, out, 1, 1)]
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


def _conv_tf(channels: int, width: int, kernel: int, stride: int, groups: int = 1) -> nn.Sequential:
    """Return a convolution with TensorFlow's padding SAME, its norm, and ReLU6.

    At stride 2 and even sides SAME pads one row below and one column on the right alone.
    """
    parts: list[tuple[str, nn.Module]] = [("pad", nn.ZeroPad2d((0, 1, 0, 1)))] if stride == 2 else []
    padding = 0 if parts else kernel // 2
    parts += [
        ("conv", nn.Conv2d(channels, width, kernel, stride, padding, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(width, eps=1e-3)),
        ("relu", nn.ReLU6()),
    ]
    return nn.Sequential(OrderedDict(parts))


def mobilenet_v1_tf(*, classes: int = 1001, channels: int = 3) -> MobileNetV1:
    """MobileNetV1 1.0/224 as TensorFlow has it: ReLU6, padding SAME, class 0 for the background, inputs from -1 to 1.

    The layers are those of :func:`mobilenet_v1`: 4,210,112 weights in 11,945 kernels for 3 input channels and 1001
    classes.
    """
    return MobileNetV1(classes=classes, channels=channels, conv=_conv_tf)


def mobilenet_v1(*, classes: int = 1000, channels: int = 3) -> MobileNetV1:
    """MobileNetV1 1.0: 4,209,088 weights in 11,944 kernels for 3 input channels and 1000 classes."""
    return MobileNetV1(classes=classes, channels=channels)
