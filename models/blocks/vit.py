"""Blocks of vision transformers, over maps (N, c, H, W) whose cells are the tokens: patches, encoders, a last norm.

The space of AutoFormer (Chen et al. 2021, arXiv:2107.00651) is made of them: heads are 64 wide and their number is
open, so that a narrower block is the first channels, the first heads and the first hidden units of a wider one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..registry import kept_c1, register
from .mobile import each

HEAD = 64  # channels of a head, section 4.1
# Rows, and columns, that two tokens are apart at most, as relative positions tell them apart: AutoFormer's code.
_FARTHEST = 14
_STD = 0.02  # of what positions begin with, as in ViT


@register()
class PatchEmbed(nn.Module):
    """Squares of `patch` pixels as tokens, and learned positions. (N, c1, H, W) -> (N, c2, H / patch, W / patch).

    Parameters
    ----------
    cells
        A side of the map that positions are learned for; those of another map are interpolated.
    """

    def __init__(self, c1: int, c2: int, patch: int = 16, cells: int = 14) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c1, c2, patch, patch)
        self.position = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, c2, cells, cells), std=_STD))

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.proj(x)
        position: Tensor = self.position
        if tokens.shape[2:] != position.shape[2:]:
            position = nn.functional.interpolate(position, tokens.shape[2:], mode="bilinear", align_corners=False)
        return tokens + position


class RelativeAttention(nn.Module):
    """Multi-head self-attention with relative positions of keys and values (Shaw et al. 2018, arXiv:1803.02155).

    Positions are the sum of one for the rows and one for the columns that two tokens are apart. (N, L, c) to the same.
    Rows of `qkv` are by head: its queries, its keys, its values.
    """

    def __init__(self, c: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(c, 3 * HEAD * num_heads)
        self.proj = nn.Linear(HEAD * num_heads, c)
        self.key_rows, self.key_columns, self.value_rows, self.value_columns = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(2 * _FARTHEST + 1, HEAD), std=_STD)) for _ in range(4)
        )

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        n, cells, _ = x.shape
        # (N, heads, 64, L): channels before tokens, so that those of the product are those of the values.
        by_head = self.qkv(x).transpose(1, 2).reshape(n, self.num_heads, 3 * HEAD, cells)
        q, k, v = by_head.split(HEAD, 2)
        rows, columns = _apart(h, w, True, x.device), _apart(h, w, False, x.device)
        logits = q.transpose(-2, -1) @ k
        above = torch.einsum("nhdl,lyd->nhly", q, self.key_rows[rows])
        beside = torch.einsum("nhdl,lxd->nhlx", q, self.key_columns[columns])
        logits = logits + (above[..., None] + beside[..., None, :]).reshape(n, self.num_heads, cells, cells)
        weights = (logits * HEAD**-0.5).softmax(-1)
        mixed = v @ weights.transpose(-2, -1)
        on_map = weights.reshape(n, self.num_heads, cells, h, w)
        mixed = mixed + torch.einsum("nhly,lyd->nhdl", on_map.sum(4), self.value_rows[rows])
        mixed = mixed + torch.einsum("nhlx,lxd->nhdl", on_map.sum(3), self.value_columns[columns])
        return self.proj(mixed.reshape(n, HEAD * self.num_heads, cells).transpose(1, 2))


def _apart(h: int, w: int, rows: bool, device: torch.device) -> Tensor:
    """(L, h) or (L, w): index into a table of how many rows, or columns, every token is from each."""
    y, x = (t.flatten() for t in torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij"))
    own, other = (y, torch.arange(h)) if rows else (x, torch.arange(w))
    return ((other[None] - own[:, None]).clamp(-_FARTHEST, _FARTHEST) + _FARTHEST).to(device)


class EncoderBlock(nn.Module):
    """Attention, then two linear layers, each behind a layer norm and with a shortcut. (N, L, c) to the same."""

    def __init__(self, c: int, num_heads: int, ratio: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(c)
        self.attn = RelativeAttention(c, num_heads)
        self.norm2 = nn.LayerNorm(c)
        self.fc1 = nn.Linear(c, int(c * ratio))
        self.act = nn.GELU()
        self.fc2 = nn.Linear(int(c * ratio), c)

    def forward(self, x: Tensor, h: int, w: int) -> Tensor:
        x = x + self.attn(self.norm1(x), h, w)
        return x + self.fc2(self.act(self.fc1(self.norm2(x))))


@register(repeats=True)
class Encoder(nn.Module):
    """`n` encoder blocks over the cells of a map, whose width they keep.

    Parameters
    ----------
    heads, ratio
        Heads of 64 channels, and hidden units as a multiple of the channels; of all blocks or of each.
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, heads: int | list[int] = 3, ratio: float | list[float] = 4
    ) -> None:
        super().__init__()
        if c1 != c2:
            raise InputError(f"it keeps its width, but it is fed {c1} channels and asked for {c2}")
        settings = zip(each(heads, n, "heads"), each(ratio, n, "ratio"), strict=True)
        self.m = nn.ModuleList(EncoderBlock(c1, *setting) for setting in settings)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        for block in self.m:
            tokens = block(tokens, h, w)
        return tokens.transpose(1, 2).reshape(n, c, h, w)


@register(channels=kept_c1)
class ChannelNorm(nn.Module):
    """Layer norm over the channels of every cell. (N, c, H, W) to the same."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
