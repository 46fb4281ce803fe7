"""Rows for feature pyramids (Lin et al. 2017, arXiv:1612.03144) and for towers that all levels share (RetinaNet: Lin et
al. 2017, arXiv:1708.02002, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..grammar import Config, Row
from ..registry import all_inputs, register
from .conv import Conv


def _one_width(row: Row, c_in: Sequence[int]) -> int:
    widths = all_inputs(row, c_in)
    if len(set(widths)) > 1:
        raise row.error(f"takes inputs of one width, got {', '.join(map(str, widths))} channels")
    return widths[0]


def _added(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    return list(row.args), _one_width(row, c_in)


def _towers(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    if not row.args:
        raise row.error("the towers' channels are missing: args must begin with them")
    c = config.width(row.args[0], row)
    return [_one_width(row, c_in), c, *row.args[1:]], 2 * c


@register(channels=_added)
class Add(nn.Module):
    """The sum of the inputs."""

    def forward(self, x: list[Tensor]) -> Tensor:
        total = x[0]
        for other in x[1:]:
            total = total + other
        return total


@register(channels=_towers, repeats=True)
class SharedTowers(nn.Module):
    """A tower of `n` k x k convolutions for classes and one like it for boxes, both shared by all levels.

    List of (N, c1, H, W) -> list of (N, 2 c, H, W), classes before boxes. `Pick` takes a level out of it.
    """

    def __init__(self, c1: int, c: int, n: int = 1, k: int = 3, act: Any = True) -> None:
        super().__init__()
        self.classes, self.boxes = (
            nn.Sequential(*(Conv(c if i else c1, c, k, act=act) for i in range(n))) for _ in range(2)
        )

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [torch.cat((self.classes(level), self.boxes(level)), 1) for level in x]


def _picked(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    index = row.args[0] if row.args else None
    several = isinstance(row.source, tuple)
    if type(index) is not int or index < 0 or (several and index >= len(c_in)):
        raise row.error(f"args must be the index of one of the maps, from 0 on, got {list(row.args)}")
    return list(row.args), c_in[index] if several else c_in[0]


@register(channels=_picked)
class Pick(nn.Module):
    """One of the maps that a row gives as a list, or of those of several rows."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: list[Tensor]) -> Tensor:
        return x[self.index]
