"""Residual networks in the CIFAR layout: three stages of 16, 32 and 64 channels (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Block", "CifarResNet", "resnet8", "resnet20"]


class Block(nn.Module):
    """Two 3x3 convolutions and a parameter-free shortcut.

    Where the shape changes the shortcut takes every other pixel and pads the new channels with zeros ("option A").
    """

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.stride, self.padding = stride, width - channels

    def shortcut(self, x: Tensor) -> Tensor:
        """Return ``x`` (n, c, h, w) in the shape of the block's output."""
        if self.stride == 1 and not self.padding:
            return x
        before = self.padding // 2
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, before, self.padding - before))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu2(y + self.shortcut(x))
        return out


class CifarResNet(nn.Module):
    """A residual network of ``6 blocks + 2`` layers for small images (n, channels, h, w)."""

    def __init__(self, blocks: int, *, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu1 = nn.ReLU()
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(channels, width, stride)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        out: Tensor = self.fc(torch.flatten(self.pool(x), 1))
        return out


def resnet20(*, classes: int = 10, channels: int = 3) -> CifarResNet:
    """ResNet-20: 268,336 weights in 698 kernels for 3 input channels and 10 classes."""
    return CifarResNet(3, classes=classes, channels=channels)


def resnet8(*, classes: int = 10, channels: int = 3) -> CifarResNet:
    """ResNet-8, one block a stage."""
    return CifarResNet(1, classes=classes, channels=channels)
