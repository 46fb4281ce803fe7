"""Reparametrised convolutions: two branches to train, one convolution to run (RepVGG: Ding et al. 2021,
arXiv:2101.03697, section 3.3)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..registry import register
from .conv import Conv, activation
from .csp import C3


@register()
class RepConv(nn.Module):
    """A 3 x 3 and a 1 x 1 convolution, each with batch normalisation, added before the activation.

    The branches are without an identity, as within dense or residual blocks (YOLOv7: Wang et al. 2022,
    arXiv:2207.02696, section 4.1). (N, c1, H, W) -> (N, c2, H/s, W/s).
    """

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1, p: int = 1, g: int = 1, act: Any = True) -> None:
        super().__init__()
        if (k, p) != (3, 1):
            raise ValueError(f"its kernel is 3 with padding 1, got {k} with {p}")
        self.conv1: nn.Module = Conv(c1, c2, k, s, p, g, act=False)
        self.conv2: nn.Module = Conv(c1, c2, 1, s, 0, g, act=False)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv1(x) + self.conv2(x))

    @torch.no_grad()
    def fuse(self) -> None:
        """Make one convolution of both branches, in place of the first; equal in eval mode only."""
        if isinstance(self.conv1, Conv) and isinstance(self.conv2, Conv):
            self.conv1.fuse()
            self.conv2.fuse()
            three, one = self.conv1.conv, self.conv2.conv
            assert three.bias is not None
            assert one.bias is not None
            three.weight += nn.functional.pad(one.weight, (1, 1, 1, 1))
            three.bias += one.bias
            self.conv1, self.conv2 = three, _Nothing()


class _Nothing(nn.Module):
    """Adds nothing: what is left of a branch that another has taken in."""

    def forward(self, x: Tensor) -> float:
        return 0.0


class RepBottleneck(nn.Module):
    """A bottleneck of full width whose first convolution is reparametrised, and a shortcut where it is wished for."""

    def __init__(self, c: int, shortcut: bool = True, g: int = 1) -> None:
        super().__init__()
        self.cv1 = RepConv(c, c)
        self.cv2 = Conv(c, c, 3, g=g)
        self.add = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register(repeats=True)
class RepCSP(C3):
    """C3 with reparametrised bottlenecks."""

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__(c1, c2, 0, shortcut, g, e)
        self.m = nn.Sequential(*(RepBottleneck(int(c2 * e), shortcut, g) for _ in range(n)))


register("RepNCSP", repeats=True)(RepCSP)
