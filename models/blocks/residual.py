"""Residual stages: ResNet (He et al. 2016, arXiv:1512.03385) and RegNet (Radosavovic et al. 2020, arXiv:2003.13678)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..registry import register
from .conv import Conv, activation
from .drop_path import drop_path
from .mobile import SqueezeExcite, each


class Residual(nn.Module):
    """A branch, a shortcut beside it, and an activation behind both.

    The shortcut is a 1 x 1 convolution where the shape changes, or where `project` asks for it.

    Attributes
    ----------
    add
        Whether the shortcut is an identity.
    """

    branch: nn.Sequential

    def __init__(self, c1: int, c2: int, s: int, act: Any, project: bool) -> None:
        super().__init__()
        self.add, self.drop_prob = s == 1 and c1 == c2 and not project, 0.0
        if not self.add:
            self.shortcut = Conv(c1, c2, 1, s, act=False)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = drop_path(self.branch(x), self.drop_prob, self.training)
        return self.act((x if self.add else self.shortcut(x)) + y)


class BasicResidual(Residual):
    """k x k to the hidden width, k x k to c2."""

    def __init__(self, c1: int, c2: int, k: int, s: int, e: float, act: Any, project: bool) -> None:
        super().__init__(c1, c2, s, act, project)
        hidden = int(c2 * e)
        self.branch = nn.Sequential(Conv(c1, hidden, k, s, act=act), Conv(hidden, c2, k, act=False))


class BottleneckResidual(Residual):
    """1 x 1 to the hidden width, k x k at stride s, 1 x 1 to c2."""

    def __init__(self, c1: int, c2: int, k: int, s: int, e: float, act: Any, project: bool) -> None:
        super().__init__(c1, c2, s, act, project)
        hidden = int(c2 * e)
        self.branch = nn.Sequential(
            Conv(c1, hidden, 1, act=act), Conv(hidden, hidden, k, s, act=act), Conv(hidden, c2, 1, act=False)
        )


class RegNetResidual(Residual):
    """1 x 1, a grouped k x k at stride s, squeeze-and-excite (RegNetY), 1 x 1; all of them c2 wide."""

    def __init__(self, c1: int, c2: int, k: int, s: int, group_width: int, se: float, act: Any, project: bool) -> None:
        super().__init__(c1, c2, s, act, project)
        if c2 % group_width:
            raise InputError(f"{c2} channels are no multiple of the group width {group_width}")
        layers: list[nn.Module] = [Conv(c1, c2, 1, act=act), Conv(c2, c2, k, s, g=c2 // group_width, act=act)]
        if se:
            layers.append(SqueezeExcite(c2, round(c1 * se)))
        self.branch = nn.Sequential(*layers, Conv(c2, c2, 1, act=False))


@register(repeats=True)
class ResBasic(nn.Sequential):
    """A stage of `n` basic residual blocks; the first goes from c1 to c2 channels at stride s.

    Parameters
    ----------
    k
        Kernel, of all blocks or of each.
    e
        Hidden channels as a part of c2.
    project
        Whether the first block's shortcut is a convolution even where it could be an identity.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        k: int | Sequence[int] = 3,
        s: int = 1,
        e: float = 1.0,
        act: Any = True,
        *,
        project: bool = False,
    ) -> None:
        super().__init__(
            *(
                BasicResidual(c1 if i == 0 else c2, c2, kk, s if i == 0 else 1, e, act, project and i == 0)
                for i, kk in enumerate(each(k, n, "k"))
            )
        )


@register(repeats=True)
class ResBottleneck(nn.Sequential):
    """A stage of `n` bottleneck residual blocks; parameters as of `ResBasic`."""

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        k: int | Sequence[int] = 3,
        s: int = 1,
        e: float = 0.25,
        act: Any = True,
        *,
        project: bool = False,
    ) -> None:
        super().__init__(
            *(
                BottleneckResidual(c1 if i == 0 else c2, c2, kk, s if i == 0 else 1, e, act, project and i == 0)
                for i, kk in enumerate(each(k, n, "k"))
            )
        )


@register(repeats=True)
class RegBottleneck(nn.Sequential):
    """A stage of `n` RegNet blocks: RegNetX, or with `se` (a part of the block's input channels) RegNetY.

    Parameters
    ----------
    group_width
        Channels a group of the k x k convolution; c2 is a multiple of it.
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        group_width: int = 8,
        k: int | Sequence[int] = 3,
        s: int = 1,
        se: float = 0,
        act: Any = True,
        *,
        project: bool = False,
    ) -> None:
        super().__init__(
            *(
                RegNetResidual(
                    c1 if i == 0 else c2, c2, kk, s if i == 0 else 1, group_width, se, act, project and i == 0
                )
                for i, kk in enumerate(each(k, n, "k"))
            )
        )
