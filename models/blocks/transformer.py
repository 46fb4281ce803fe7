"""A transformer encoder over the cells of a feature map (Vaswani et al. 2017), without layer normalisation."""

from __future__ import annotations

from torch import Tensor, nn

from .conv import Conv


class TransformerLayer(nn.Module):
    """Self-attention and a linear pair, each with a shortcut. (cells, N, c) -> (cells, N, c)."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.q = nn.Linear(c, c, bias=False)
        self.k = nn.Linear(c, c, bias=False)
        self.v = nn.Linear(c, c, bias=False)
        self.ma = nn.MultiheadAttention(embed_dim=c, num_heads=num_heads)
        self.fc1 = nn.Linear(c, c, bias=False)
        self.fc2 = nn.Linear(c, c, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)[0] + x
        return self.fc2(self.fc1(x)) + x


class TransformerBlock(nn.Module):
    """`num_layers` transformer layers over the flattened map, with a learned linear position embedding."""

    def __init__(self, c1: int, c2: int, num_heads: int, num_layers: int) -> None:
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, num_heads) for _ in range(num_layers)))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        n, c, h, w = x.shape
        cells = x.flatten(2).permute(2, 0, 1)
        return self.tr(cells + self.linear(cells)).permute(1, 2, 0).reshape(n, c, h, w)
