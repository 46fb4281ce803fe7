"""Rows that move, join or resize features without a width of their own, torch.nn's among them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..grammar import Config, Row
from ..registry import all_inputs, kept_c1, one_input, register, scaled, unchanged
from .conv import BatchNorm2d


def _summed(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    return list(row.args), sum(all_inputs(row, c_in))


def _gain(row: Row) -> int:
    gain = row.kwargs.get("gain", row.args[0] if row.args else 2)
    if isinstance(gain, bool) or not isinstance(gain, int) or gain < 1:
        raise row.error(f"gain must be a positive integer, got {gain!r}")
    return gain


def _contracted(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    return list(row.args), one_input(row, c_in) * _gain(row) ** 2


def _expanded(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    c1, square = one_input(row, c_in), _gain(row) ** 2
    if c1 % square:
        raise row.error(f"{c1} input channels cannot be divided by gain squared ({square})")
    return list(row.args), c1 // square


@register(channels=_summed)
class Concat(nn.Module):
    """Concatenate the inputs along `dimension`."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


@register(channels=_contracted)
class Contract(nn.Module):
    """Space into channels. (N, c, H, W) -> (N, c g², H/g, W/g); the cell's place is the slowest of the new channels."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        g = self.gain
        x = x.view(n, c, h // g, g, w // g, g).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, c * g * g, h // g, w // g)


@register(channels=_expanded)
class Expand(nn.Module):
    """Channels into space, the inverse of `Contract`. (N, c, H, W) -> (N, c/g², H g, W g)."""

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        g = self.gain
        x = x.view(n, g, g, c // g**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // g**2, h * g, w * g)


register("nn.Upsample", channels=unchanged)(nn.Upsample)
register("nn.MaxPool2d", channels=unchanged)(nn.MaxPool2d)
register("nn.ZeroPad2d", channels=unchanged)(nn.ZeroPad2d)
register("nn.ConvTranspose2d", channels=scaled)(nn.ConvTranspose2d)
register("nn.BatchNorm2d", channels=kept_c1)(BatchNorm2d)
