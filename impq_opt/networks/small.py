"""A small network for small pictures, trained in seconds."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

__all__ = ["small_cnn"]


def small_cnn(*, classes: int = 10, channels: int = 1) -> nn.Sequential:
    """Three convolutions and a linear layer for images of any size from 8x8: about 24,000 weights."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(channels, 16, 3, padding=1, bias=False), bn1=nn.BatchNorm2d(16), relu1=nn.ReLU(),
            conv2=nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), bn2=nn.BatchNorm2d(32), relu2=nn.ReLU(),
            conv3=nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), bn3=nn.BatchNorm2d(64), relu3=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten(), fc=nn.Linear(64, classes),
        )
    )  # fmt: skip
