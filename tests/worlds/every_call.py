"""A network with every call that has a form in whole numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


class Every(nn.Module):
    """Shapes, pools, groups, a batch-norm of its own, paths that are added or concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, 2, padding=(2, 1), dilation=(2, 1))
        self.deep = nn.Conv2d(8, 16, 3, padding="same", groups=8)
        self.grouped = nn.Conv2d(16, 12, 3, padding=1, groups=4, bias=False)
        self.side = nn.Conv2d(16, 12, 1)
        self.last = nn.Conv2d(24, 6, 3, padding=1)
        self.norm, self.more = nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)
        self.hidden, self.out = nn.Linear(24, 8), nn.Linear(8, 5)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Any) -> Any:
        y = functional.relu6(self.first(functional.pad(x, (1, 0, 0, 1))))
        y = functional.max_pool2d(functional.hardtanh(self.deep(y), -1.0, 2.0), 2, ceil_mode=True)
        z = self.last(torch.cat([self.grouped(y).relu(), self.side(y)], dim=1)[:, :, :5, 1:]).relu()
        y = (self.more((self.norm(z) * 0.5 - 0.1).relu()) + functional.avg_pool2d(z, 3, 1, padding=1)).relu()
        y = self.drop(self.hidden(functional.adaptive_max_pool2d(y[:, :, 1:], 2).flatten(1)).relu())
        return self.out(y + functional.relu(y - 0.5))


def every() -> Any:
    """Return the network in eval mode."""
    network = Every().eval()
    network.norm.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
    network.norm.weight.data.uniform_(-1, 1)
    return network
