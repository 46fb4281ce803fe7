"""Blocks of YOLO12 (Tian et al. 2025, arXiv:2502.12524): area attention (section 3.2) in residual layer aggregation
(section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..registry import register
from .attention import Attention
from .c2f import C3k
from .conv import Conv

# Of a head (section 3.4 of the paper: the width of heads is fixed, their number follows).
HEAD_WIDTH = 32
# Of the residual scaling at the start (section 3.3).
_SCALE = 0.01


class AreaAttention(Attention):
    """Self-attention among the cells of each of `area` equal strips of the map, and a 7 x 7 depth-wise convolution of
    the values that tells positions. (N, c, H, W) -> (N, c, H, W), H W a multiple of `area`."""

    def __init__(self, c: int, area: int = 1) -> None:
        super().__init__(c, c // HEAD_WIDTH, key_ratio=1, k=7)
        self.area = area

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        if h * w % self.area:
            raise ValueError(f"{h} x {w} cells cannot be divided into {self.area} areas")
        # (N, areas, heads, 3 x channels, cells of an area)
        by_head = self.qkv(x).view(n, self.num_heads, 3 * HEAD_WIDTH, self.area, -1).permute(0, 3, 1, 2, 4)
        q, k, v = by_head.split(HEAD_WIDTH, 3)
        weights = ((q.transpose(3, 4) @ k) * HEAD_WIDTH**-0.5).softmax(4)
        mixed, values = (t.permute(0, 2, 3, 1, 4).reshape(n, c, h, w) for t in (v @ weights.transpose(3, 4), v))
        return self.proj(mixed + self.pe(values))


class AreaBlock(nn.Module):
    """Area attention and two 1 x 1 convolutions, `mlp_ratio` as wide between, each with a shortcut."""

    def __init__(self, c: int, mlp_ratio: float = 1.2, area: int = 1) -> None:
        super().__init__()
        hidden = int(c * mlp_ratio)
        self.attn = AreaAttention(c, area)
        self.mlp = nn.Sequential(Conv(c, hidden), Conv(hidden, c, act=False))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


@register(repeats=True)
class A2C2f(nn.Module):
    """A chain of `n` blocks of which every one's output is aggregated: pairs of `AreaBlock` with `a2`, else `C3k`.

    With `residual`, and attention, and as many channels out as in, the input is added to the scaled output.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        a2: bool = True,
        area: int = 1,
        residual: bool = False,
        mlp_ratio: float = 2.0,
        e: float = 0.5,
        g: int = 1,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        if a2 and (hidden < HEAD_WIDTH or hidden % HEAD_WIDTH):
            raise ValueError(f"attention's {hidden} channels must be a multiple of {HEAD_WIDTH}, a head's")
        self.cv1 = Conv(c1, hidden)
        self.cv2 = Conv((1 + n) * hidden, c2)
        self.add = a2 and residual and c1 == c2
        self.gamma = nn.Parameter(torch.full((c2,), _SCALE)) if self.add else None

        def block() -> nn.Module:
            if a2:
                return nn.Sequential(*(AreaBlock(hidden, mlp_ratio, area) for _ in range(2)))
            return C3k(hidden, hidden, 2, shortcut, g)

        self.m = nn.ModuleList(block() for _ in range(n))

    def forward(self, x: Tensor) -> Tensor:
        y = [self.cv1(x)]
        for block in self.m:
            y.append(block(y[-1]))
        out = self.cv2(torch.cat(y, 1))
        return out if self.gamma is None else x + self.gamma.view(1, -1, 1, 1) * out
