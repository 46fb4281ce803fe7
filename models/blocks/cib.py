"""YOLOv10's cheap convolutions (Wang et al. 2024, arXiv:2405.14458, section 3.2): SCDown, CIB, large kernels."""

from __future__ import annotations

from torch import Tensor, nn

from ..registry import register
from .c2f import C2f
from .conv import Conv, activation
from .drop_path import drop_path


@register()
class SCDown(nn.Module):
    """Down-sampling with space and channels decoupled: a 1 x 1 to c2, then a depth-wise k x k at stride s."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 2) -> None:
        super().__init__()
        self.cv1 = Conv(c1, c2, 1)
        self.cv2 = Conv(c2, c2, k, s, g=c2, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.cv1(x))


class RepVGGDW(nn.Module):
    """Depth-wise 7 x 7 beside 3 x 3, which `fuse` makes one (structural reparametrisation: Ding et al. 2021,
    arXiv:2101.03697)."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.conv = Conv(c, c, 7, g=c, act=False)
        self.conv1 = Conv(c, c, 3, g=c, act=False)
        self.act = activation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.act(y + self.conv1(x) if hasattr(self, "conv1") else y)

    def fuse(self) -> None:
        """Fold the 3 x 3 and both batch normalisations into the 7 x 7; equal in eval mode only."""
        if not hasattr(self, "conv1"):
            return
        self.conv.fuse()
        self.conv1.fuse()
        self.conv.conv.weight.data += nn.functional.pad(self.conv1.conv.weight.data, [2, 2, 2, 2])
        self.conv.conv.bias.data += self.conv1.conv.bias.data  # type: ignore[union-attr]
        del self.conv1


class CIB(nn.Module):
    """Compact inverted block: depth-wise 3 x 3 and 1 x 1 in turn, and a shortcut where the widths allow it.

    Parameters
    ----------
    lk
        Whether the depth-wise convolution in the middle is a `RepVGGDW`.
    """

    def __init__(self, c1: int, c2: int, shortcut: bool = True, e: float = 0.5, lk: bool = False) -> None:
        super().__init__()
        hidden = 2 * int(c2 * e)
        self.cv1 = nn.Sequential(
            Conv(c1, c1, 3, g=c1),
            Conv(c1, hidden, 1),
            RepVGGDW(hidden) if lk else Conv(hidden, hidden, 3, g=hidden),
            Conv(hidden, c2, 1),
            Conv(c2, c2, 3, g=c2),
        )
        self.add, self.drop_prob = shortcut and c1 == c2, 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return x + drop_path(y, self.drop_prob, self.training) if self.add else y


@register(repeats=True)
class C2fCIB(C2f):
    """C2f with compact inverted blocks in place of its bottlenecks; `lk` as of `CIB`."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = False, lk: bool = False, g: int = 1, e: float = 0.5
    ) -> None:
        self._lk = lk
        super().__init__(c1, c2, n, shortcut, g, e)

    def step(self, c: int, shortcut: bool, g: int) -> nn.Module:
        return CIB(c, c, shortcut, e=1.0, lk=self._lk)
