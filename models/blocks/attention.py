"""Self-attention over the cells of a map, partial: a half of the channels takes part (YOLOv10: Wang et al. 2024,
arXiv:2405.14458, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import register
from .conv import Conv

# Channels of a head, and the part of them that queries and keys have (the paper's section 3.2 and its appendix).
HEAD_WIDTH, KEY_RATIO = 64, 0.5


def heads_of(c: int) -> int:
    """Heads of an attention over `c` channels: one for every 64, at least one."""
    return max(c // HEAD_WIDTH, 1)


class Attention(nn.Module):
    """Multi-head self-attention with a depth-wise k x k of the values for the position. (N, c, H, W) to the same.

    Channels of `qkv` are by head: its queries, its keys, its values.
    """

    def __init__(self, c: int, num_heads: int, key_ratio: float = KEY_RATIO, k: int = 3) -> None:
        super().__init__()
        if c % num_heads:
            raise InputError(f"{c} channels of attention are no multiple of the {num_heads} heads")
        self.num_heads, self.value_width = num_heads, c // num_heads
        self.key_width = int(self.value_width * key_ratio)
        self.qkv = Conv(c, c + 2 * num_heads * self.key_width, 1, act=False)
        self.proj = Conv(c, c, 1, act=False)
        self.pe = Conv(c, c, k, g=c, act=False)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        by_head = self.qkv(x).view(n, self.num_heads, 2 * self.key_width + self.value_width, h * w)
        q, k, v = by_head.split([self.key_width, self.key_width, self.value_width], 2)
        weights = ((q.transpose(-2, -1) @ k) * self.key_width**-0.5).softmax(-1)
        mixed = v @ weights.transpose(-2, -1)
        return self.proj(mixed.reshape(n, c, h, w) + self.pe(v.reshape(n, c, h, w)))


def feed_forward(c: int) -> nn.Sequential:
    """Two 1 x 1 convolutions, twice as wide between them."""
    return nn.Sequential(Conv(c, 2 * c, 1), Conv(2 * c, c, 1, act=False))


class PSABlock(nn.Module):
    """Attention, then two 1 x 1 convolutions, each with a shortcut."""

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.attn = Attention(c, num_heads)
        self.ffn = feed_forward(c)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)


class _Partial(nn.Module):
    """What PSA and C2PSA share: halves of a 1 x 1 convolution, and one of both behind it.

    Attributes
    ----------
    keeps_width
        The output is as wide as the input.
    """

    keeps_width = True

    def __init__(self, c1: int, c2: int, e: float) -> None:
        super().__init__()
        if c1 != c2:
            raise InputError(f"it keeps its width, but it is fed {c1} channels and asked for {c2}")
        self.hidden = int(c1 * e)
        self.cv1 = Conv(c1, 2 * self.hidden, 1)
        self.cv2 = Conv(2 * self.hidden, c1, 1)

    def attend(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.cv1(x).chunk(2, 1)
        return self.cv2(torch.cat((a, self.attend(b)), 1))


@register()
class PSA(_Partial):
    """Partial self-attention: one attention and feed-forward over a half of the channels."""

    def __init__(self, c1: int, c2: int, e: float = 0.5) -> None:
        super().__init__(c1, c2, e)
        self.attn = Attention(self.hidden, heads_of(self.hidden))
        self.ffn = feed_forward(self.hidden)

    def attend(self, x: Tensor) -> Tensor:
        x = x + self.attn(x)
        return x + self.ffn(x)


@register(repeats=True)
class C2PSA(_Partial):
    """PSA with `n` attentions and feed-forwards one after the other (YOLO11)."""

    def __init__(self, c1: int, c2: int, n: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, e)
        self.m = nn.Sequential(*(PSABlock(self.hidden, heads_of(self.hidden)) for _ in range(n)))

    def attend(self, x: Tensor) -> Tensor:
        return self.m(x)
