"""Bottlenecks, cross-stage partial blocks (Wang et al. 2020, arXiv:1911.11929) and spatial pyramid pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import register
from .conv import BatchNorm2d, Conv, CrossConv, activation
from .drop_path import drop_path
from .ghost import GhostBottleneck
from .transformer import TransformerBlock


@register()
class Bottleneck(nn.Module):
    """To the hidden width `int(c2 e)` (or `hidden`), to c2, and a shortcut where the widths allow it; kernels `k`."""

    def __init__(
        self,
        c1: int,
        c2: int,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        hidden: int | None = None,
        k: Sequence[int] = (1, 3),
    ) -> None:
        super().__init__()
        hidden = int(c2 * e) if hidden is None else hidden
        self.cv1 = Conv(c1, hidden, k[0], 1)
        self.cv2 = Conv(hidden, c2, k[1], 1, g=g)
        self.add, self.drop_prob = shortcut and c1 == c2, 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + drop_path(y, self.drop_prob, self.training) if self.add else y


@register(repeats=True)
class BottleneckCSP(nn.Module):
    """The original cross-stage partial block: batch normalisation after the concatenation."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1, 1)
        self.bn = BatchNorm2d(2 * hidden)
        self.act = activation()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(y)))


@register(repeats=True)
class C3(nn.Module):
    """Cross-stage partial block of three convolutions and `n` bottlenecks.

    Beyond upstream's positional arguments, what a searched block may need: kernels and activations of `cv1` and `cv2`,
    and `m_e`, the hidden width of each bottleneck as a multiple of the block's (one number, or one for each).
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        *,
        cv1_k: int = 1,
        cv1_act: Any = True,
        cv2_k: int = 1,
        cv2_act: Any = True,
        m_e: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        ratios = list(m_e) if isinstance(m_e, Sequence) else [m_e] * n
        if len(ratios) != n:
            raise InputError(f"m_e names {len(ratios)} bottlenecks, but the block has {n}")
        self.cv1 = Conv(c1, hidden, cv1_k, 1, act=cv1_act)
        self.cv2 = Conv(c1, hidden, cv2_k, 1, act=cv2_act)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m: nn.Module = nn.Sequential(
            *(Bottleneck(hidden, hidden, shortcut, g, hidden=round(r * hidden)) for r in ratios)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


@register(repeats=True)
class C3x(C3):
    """C3 with cross convolutions in place of its bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(CrossConv(hidden, hidden, 3, 1, g, 1.0, shortcut) for _ in range(n)))


@register(repeats=True)
class C3TR(C3):
    """C3 with a transformer of `n` layers and four heads in place of its bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = TransformerBlock(hidden, hidden, 4, n)


@register()
class C3SPP(C3):
    """C3 with spatial pyramid pooling in place of its bottlenecks."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: Sequence[int] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = SPP(hidden, hidden, k)


@register(repeats=True)
class C3Ghost(C3):
    """C3 with ghost bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(GhostBottleneck(hidden, hidden) for _ in range(n)))


@register()
class SPP(nn.Module):
    """Spatial pyramid pooling (He et al. 2014, arXiv:1406.4729): max pools of several sizes side by side."""

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(kk, 1, kk // 2) for kk in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(m(x) for m in self.m)], 1))


@register()
class SPPF(nn.Module):
    """Max pools of k x k one after the other: three of 5 x 5 are SPP(k = 5, 9, 13), and cheaper.

    Parameters
    ----------
    n
        Pools: YOLO26's form, whose first convolution has no activation. None is YOLOv5's, of three.
    shortcut
        Whether there is one where the widths allow it (YOLO26).
    """

    def __init__(self, c1: int, c2: int, k: int = 5, n: int | None = None, shortcut: bool = False) -> None:
        super().__init__()
        hidden = c1 // 2
        self.n, self.add = 3 if n is None else n, shortcut and c1 == c2
        self.cv1 = Conv(c1, hidden, 1, 1, act=n is None)
        self.cv2 = Conv(hidden * (self.n + 1), c2, 1, 1)
        self.m = nn.MaxPool2d(k, 1, k // 2)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.cv1(x)]
        for _ in range(self.n):
            pooled.append(self.m(pooled[-1]))
        y = self.cv2(torch.cat(pooled, 1))
        return x + y if self.add else y
