"""Blocks of YOLOv9 (Wang et al. 2024, arXiv:2402.13616): GELAN's aggregation of layers (section 4.2), its pyramid
pooling and its ways of halving a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..registry import register
from .conv import Conv
from .reparam import RepCSP


class _Aggregation(nn.Module):
    """One half of the features through two blocks in sequence; both halves and both results joined.

    `c3` is the width of both halves together, `c4` that of the blocks, which `cv2` and `cv3` are.
    """

    cv2: nn.Module
    cv3: nn.Module

    def __init__(self, c1: int, c2: int, c3: int, c4: int) -> None:
        super().__init__()
        if c3 % 2:
            raise ValueError(f"c3 is halved, and must be even, got {c3}")
        self.cv1 = Conv(c1, c3)
        self.cv4 = Conv(c3 + 2 * c4, c2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.cv1(x).chunk(2, 1)
        once = self.cv2(right)
        return self.cv4(torch.cat((left, right, once, self.cv3(once)), 1))


@register()
class ELAN1(_Aggregation):
    """The aggregation with a 3 x 3 convolution as its block, as in ELAN (figure 3b). The row is [c2, c3, c4]."""

    def __init__(self, c1: int, c2: int, c3: int, c4: int) -> None:
        super().__init__(c1, c2, c3, c4)
        self.cv2 = Conv(c3 // 2, c4, 3)
        self.cv3 = Conv(c4, c4, 3)


@register()
class RepNCSPELAN4(_Aggregation):
    """GELAN (figure 3c): the aggregation with `RepCSP` of `n` bottlenecks and a 3 x 3 convolution as its block.

    The row is [c2, c3, c4, n].
    """

    def __init__(self, c1: int, c2: int, c3: int, c4: int, n: int = 1) -> None:
        super().__init__(c1, c2, c3, c4)
        self.cv2 = nn.Sequential(RepCSP(c3 // 2, c4, n), Conv(c4, c4, 3))
        self.cv3 = nn.Sequential(RepCSP(c4, c4, n), Conv(c4, c4, 3))


@register()
class SPPELAN(nn.Module):
    """Max pools of `k` x `k` one after the other, all joined, as in SPPF; `c3` is the width that is pooled."""

    def __init__(self, c1: int, c2: int, c3: int, k: int = 5) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c3)
        self.cv2, self.cv3, self.cv4 = (nn.MaxPool2d(k, 1, k // 2) for _ in range(3))
        self.cv5 = Conv(4 * c3, c2)

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for pool in (self.cv2, self.cv3, self.cv4):
            y.append(pool(y[-1]))
        return self.cv5(torch.cat(y, 1))


@register()
class AConv(nn.Module):
    """A mean over 2 x 2 at stride 1, then a 3 x 3 convolution at stride 2. (N, c1, H, W) -> (N, c2, H/2, W/2)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv1(F.avg_pool2d(x, 2, 1))


@register()
class ADown(nn.Module):
    """A mean over 2 x 2 at stride 1; then half of the channels by a 3 x 3 convolution at stride 2, the other half by a
    max pool and a 1 x 1 convolution. (N, c1, H, W) -> (N, c2, H/2, W/2)."""

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        if c1 % 2 or c2 % 2:
            raise ValueError(f"channels are halved, and must be even, got {c1} to {c2}")
        self.cv1 = Conv(c1 // 2, c2 // 2, 3, 2)
        self.cv2 = Conv(c1 // 2, c2 // 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = F.avg_pool2d(x, 2, 1).chunk(2, 1)
        return torch.cat((self.cv1(left), self.cv2(F.max_pool2d(right, 3, 2, 1))), 1)
