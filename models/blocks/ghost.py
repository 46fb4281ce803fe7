"""GhostNet's blocks (Han et al. 2020, arXiv:1911.11907, section 3): cheap operations make half of the features."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..registry import register
from .conv import Conv, DWConv


@register()
class GhostConv(nn.Module):
    """Half of the channels by a convolution, the other half from those by a 5 x 5 depth-wise one."""

    def __init__(self, c1: int, c2: int, k: Any = 1, s: int = 1, g: int = 1, act: Any = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1 = Conv(c1, half, k, s, g=g, act=act)
        self.cv2 = Conv(half, half, 5, 1, g=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


@register()
class GhostBottleneck(nn.Module):
    """Two ghost convolutions, a depth-wise one between them at stride 2, and a shortcut (figure 3 of the paper)."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden = c2 // 2
        down = s == 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden, 1, 1),
            DWConv(hidden, hidden, k, s, act=False) if down else nn.Identity(),
            GhostConv(hidden, c2, 1, 1, act=False),
        )
        self.shortcut = (
            nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, 1, act=False)) if down else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)
