"""Inverted residual blocks and what belongs to them: MobileNetV2 (Sandler et al. 2018, arXiv:1801.04381), V3 (Howard et
al. 2019, arXiv:1905.02244) and the spaces built on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..registry import register, unchanged
from .conv import Conv, activation
from .drop_path import drop_path


def each(value: Any, n: int, name: str) -> list[Any]:
    """A value for each of `n` blocks: one for all, or a list that is at least as long, of which the first count."""
    values = list(value) if isinstance(value, Sequence) else [value] * n
    if len(values) < n:
        raise InputError(f"{name} names {len(values)} blocks, but there are {n}")
    return values[:n]


def rounded(channels: float) -> int:
    """The nearest multiple of 8 that is no less than nine tenths of `channels`, as in the authors' own MobileNets."""
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest if nearest >= 0.9 * channels else nearest + 8


class SqueezeExcite(nn.Module):
    """Channels weighed by what is seen of all of them (Hu et al. 2018, arXiv:1709.01507), as in MobileNetV3."""

    def __init__(self, c: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(c, hidden, 1)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(hidden, c, 1)
        self.gate = nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 1)
        return x * self.gate(self.fc2(self.act(self.fc1(pooled))))


class InvertedResidual(nn.Module):
    """1 x 1 to `e` times the channels, depth-wise k x k, squeeze-and-excite, 1 x 1 without activation, and a shortcut.

    With e = 1 there is no first convolution. With e = 0 the branch is left out: an identity, or a 1 x 1 convolution
    where the shape changes (NAS-Bench-Macro: Su et al. 2021, arXiv:2103.11922).

    Attributes
    ----------
    add
        Whether there is an identity shortcut.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 3,
        s: int = 1,
        e: float = 6,
        se: float = 0,
        act: Any = True,
        shortcut: bool = True,
    ) -> None:
        super().__init__()
        self.add, self.drop_prob = shortcut and s == 1 and c1 == c2, 0.0
        hidden = round(c1 * e)
        if not hidden:
            self.skip = nn.Identity() if self.add else Conv(c1, c2, 1, s, act=False)
            return
        if e != 1:
            self.expand = Conv(c1, hidden, 1, act=act)
        self.depthwise = Conv(hidden, hidden, k, s, g=hidden, act=act)
        if se:
            self.se = SqueezeExcite(hidden, rounded(hidden * se))
        self.project = Conv(hidden, c2, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "skip"):
            return self.skip(x)
        y = x
        for name in ("expand", "depthwise", "se", "project"):
            if name in self._modules:
                y = self._modules[name](y)  # type: ignore[misc]
        return x + drop_path(y, self.drop_prob, self.training) if self.add else y


@register(repeats=True)
class MBConv(nn.Sequential):
    """A stage of `n` inverted residual blocks: the first goes from c1 to c2 channels at stride s, the others keep both.

    Parameters
    ----------
    k, e
        Kernel and expand ratio, of all blocks or of each.
    se
        Hidden channels of squeeze-and-excite as a part of the expanded ones; 0 for none.
    shortcut, entry_shortcut
        Whether blocks that keep the shape have an identity shortcut, and whether the first may.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        k: int | Sequence[int] = 3,
        s: int = 1,
        e: float | Sequence[float] = 6,
        se: float = 0,
        act: Any = True,
        *,
        shortcut: bool = True,
        entry_shortcut: bool = True,
    ) -> None:
        kernels, ratios = each(k, n, "k"), each(e, n, "e")
        super().__init__(
            *(
                InvertedResidual(
                    c1 if i == 0 else c2,
                    c2,
                    kernels[i],
                    s if i == 0 else 1,
                    ratios[i],
                    se,
                    act,
                    shortcut and (i > 0 or entry_shortcut),
                )
                for i in range(n)
            )
        )


@register(channels=unchanged)
class GlobalPool(nn.Module):
    """Mean over the map. (N, c, H, W) -> (N, c, 1, 1)."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 1)


@register()
class Pointwise(nn.Module):
    """A 1 x 1 convolution with bias and activation, without batch normalisation: a linear layer behind `GlobalPool`."""

    def __init__(self, c1: int, c2: int, act: Any = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, 1)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))
