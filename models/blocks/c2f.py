"""Cross-stage partial blocks that keep the output of every bottleneck: C2f (YOLOv8), C3k2 (YOLO11, YOLO26)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import register
from .attention import PSABlock, heads_of
from .conv import Conv
from .csp import C3, Bottleneck


@register(repeats=True)
class C2f(nn.Module):
    """Two halves of a 1 x 1 convolution, `n` bottlenecks of two 3 x 3 one after the other behind the second, and a
    1 x 1 convolution of all of them (YOLOv8's table of layers)."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = False, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, 2 * hidden, 1)
        self.cv2 = Conv((2 + n) * hidden, c2, 1)
        self.m = nn.ModuleList(self.step(hidden, shortcut, g) for _ in range(n))

    def step(self, c: int, shortcut: bool, g: int) -> nn.Module:
        """One of `m`; it keeps its width `c`."""
        return Bottleneck(c, c, shortcut, g, e=1.0, k=(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        for step in self.m:
            parts.append(step(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


@register(repeats=True)
class C3k(C3):
    """C3 with bottlenecks of two k x k convolutions."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5, k: int = 3
    ) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        hidden = int(c2 * e)
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0, k=(k, k)) for _ in range(n)))


@register(repeats=True)
class C3k2(C2f):
    """C2f with other steps: bottlenecks of half the width, or `C3k` of two (`c3k`), or a bottleneck and attention.

    Parameters
    ----------
    c3k
        Whether the steps are `C3k`. Sizes m, l and x of YOLO11 and YOLO26 have it everywhere (`models.scales`).
    attn
        Whether the steps are a bottleneck and a `PSABlock`, whatever `c3k` says (YOLO26's last row before the head).
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        c3k: bool = False,
        e: float = 0.5,
        attn: bool = False,
        g: int = 1,
        shortcut: bool = True,
    ) -> None:
        self._c3k, self._attn = c3k, attn
        super().__init__(c1, c2, n, shortcut, g, e)

    def step(self, c: int, shortcut: bool, g: int) -> nn.Module:
        if self._attn:
            return nn.Sequential(Bottleneck(c, c, shortcut, g, k=(3, 3)), PSABlock(c, heads_of(c)))
        return C3k(c, c, 2, shortcut, g) if self._c3k else Bottleneck(c, c, shortcut, g, k=(3, 3))
