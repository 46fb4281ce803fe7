"""Convolutions with batch normalisation and activation, plain and combined."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import activation as _activations
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..errors import InputError
from ..grammar import Call
from ..registry import register

# YOLOv5's constants: a larger eps than PyTorch's for half precision, a slow moving average.
BN_EPS, BN_MOMENTUM = 1e-3, 0.03
BatchNorm2d = partial(nn.BatchNorm2d, eps=BN_EPS, momentum=BN_MOMENTUM)

_DEFAULT: ContextVar[Call] = ContextVar("default_activation", default=Call("nn.SiLU"))  # noqa: B039  (it is frozen)


@contextmanager
def default_activation(call: Call | None) -> Iterator[None]:
    """Blocks built inside use this activation where they are not told another; None leaves the default, SiLU."""
    token = _DEFAULT.set(call or _DEFAULT.get())
    try:
        yield
    finally:
        _DEFAULT.reset(token)


def activation(act: Any = True) -> nn.Module:
    """A new activation module: True is the default, False or None is Identity, a `Call` or a module says which."""
    if act is True:
        act = _DEFAULT.get()
    if act is False or act is None:
        return nn.Identity()
    if isinstance(act, nn.Module):
        return act
    if isinstance(act, Call):
        name = act.name.removeprefix("torch.").removeprefix("nn.")
        if name in _activations.__all__ or name == "Identity":
            return getattr(nn, name)(*act.args, **act.kwargs)
    raise InputError(f"{act} is no activation; right would be one of torch.nn, such as nn.SiLU() or nn.Identity()")


def same_padding(k: int | Sequence[int], d: int = 1) -> Any:
    """Padding that keeps the size at stride 1 for odd kernels, `d` apart."""
    return (d * (k - 1) + 1) // 2 if isinstance(k, int) else tuple(same_padding(x, d) for x in k)


@register()
class Conv(nn.Module):
    """Convolution without bias, batch normalisation, activation. (N, c1, H, W) -> (N, c2, H/s, W/s)."""

    def __init__(
        self, c1: int, c2: int, k: Any = 1, s: Any = 1, p: Any = None, g: int = 1, d: int = 1, act: Any = True
    ) -> None:
        super().__init__()
        k = tuple(k) if isinstance(k, list) else k
        if p is None:
            p = same_padding(k, d)
        if min(c1, c2) < 1:
            raise ValueError(f"a convolution of {c1} to {c2} channels")
        self.conv = nn.Conv2d(c1, c2, k, s, p, groups=g, dilation=d, bias=False)
        self.bn: nn.Module = BatchNorm2d(c2)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch normalisation into the convolution; equal in eval mode only."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.bn.eval())
            self.bn = nn.Identity()


@register()
class DWConv(Conv):
    """Depth-wise convolution: as many groups as divide both widths."""

    def __init__(self, c1: int, c2: int, k: Any = 1, s: Any = 1, d: int = 1, act: Any = True) -> None:
        super().__init__(c1, c2, k, s, g=math.gcd(c1, c2), d=d, act=act)


@register()
class DWConvTranspose2d(nn.ConvTranspose2d):
    """Depth-wise transposed convolution; `p1` pads the input, `p2` the output."""

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p1: int = 0, p2: int = 0) -> None:
        super().__init__(c1, c2, k, s, p1, p2, groups=math.gcd(c1, c2))


@register()
class Focus(nn.Module):
    """Every second pixel into channels, then a convolution. (N, c1, H, W) -> (N, c2, H/2, W/2)."""

    def __init__(self, c1: int, c2: int, k: Any = 1, s: Any = 1, p: Any = None, g: int = 1, act: Any = True) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        quarters = [x[..., row::2, col::2] for col in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(quarters, 1))


@register()
class CrossConv(nn.Module):
    """A 1 x k convolution followed by k x 1, with a shortcut where the widths allow it."""

    def __init__(
        self, c1: int, c2: int, k: int = 3, s: int = 1, g: int = 1, e: float = 1.0, shortcut: bool = False
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, (1, k), (1, s))
        self.cv2 = Conv(hidden, c2, (k, 1), (s, 1), g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


@register()
class MixConv2d(nn.Module):
    """Mixed kernel sizes side by side (Tan and Le 2019, arXiv:1907.09595).

    The output channels are split between the kernels evenly (`equal_ch`), or so that each kernel size holds about the
    same number of weights.
    """

    def __init__(self, c1: int, c2: int, k: Sequence[int] = (1, 3), s: int = 1, equal_ch: bool = True) -> None:
        super().__init__()
        n = len(k)
        if equal_ch:
            group = torch.linspace(0, n - 1e-6, c2, device="cpu").floor()
            widths = [int((group == i).sum()) for i in range(n)]
        else:
            # widths w_i with sum w_i = c2 and w_i k_i^2 equal for all i, so w_i is proportional to 1/k_i^2
            inverse = torch.tensor([1 / kk**2 for kk in k], dtype=torch.float64, device="cpu")
            widths = [int(w) for w in (inverse / inverse.sum() * c2).round()]
        if sum(widths) != c2 or min(widths) < 1:
            raise InputError(f"{c2} channels cannot be split between the kernels {list(k)}")
        self.m = nn.ModuleList(
            nn.Conv2d(c1, w, kk, s, kk // 2, groups=math.gcd(c1, w), bias=False)
            for kk, w in zip(k, widths, strict=True)
        )
        self.bn = BatchNorm2d(c2)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(torch.cat([m(x) for m in self.m], 1)))
