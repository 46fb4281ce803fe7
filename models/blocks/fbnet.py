"""The operators of FBNet (Wu et al. 2019, arXiv:1812.03443, figure 3 and table 2), by their names."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from ..errors import InputError
from ..registry import register
from .conv import Conv

_OPERATOR = re.compile(r"k(?P<kernel>[1-9]\d*)_e(?P<ratio>[1-9]\d*)(?:_g(?P<groups>[1-9]\d*))?")
SKIP = "skip"


@register()
class FBNet(nn.Module):
    """1 x 1 to more channels, depth-wise, 1 x 1 without activation, and a shortcut where the shape is kept.

    Parameters
    ----------
    op
        Such as ``k5_e6``: kernel 5, 6 times the channels; ``k3_e1_g2``: both 1 x 1 convolutions in 2 groups, whose
        channels are shuffled behind the first; ``skip``: an identity, or a 1 x 1 convolution where the shape changes.
    """

    def __init__(self, c1: int, c2: int, op: str = "k3_e6", s: int = 1, act: Any = True) -> None:
        super().__init__()
        self.add, self.groups = s == 1 and c1 == c2, 1
        if op == SKIP:
            self.skip = nn.Identity() if self.add else Conv(c1, c2, 1, s, act=False)
            return
        if not isinstance(op, str) or (found := _OPERATOR.fullmatch(op)) is None:
            raise InputError(f"operator {op!r}; right would be such as k3_e6, k3_e1_g2 or {SKIP}")
        kernel, hidden, self.groups = int(found["kernel"]), c1 * int(found["ratio"]), int(found["groups"] or 1)
        self.expand = Conv(c1, hidden, 1, g=self.groups, act=act)
        self.depthwise = Conv(hidden, hidden, kernel, s, g=hidden, act=act)
        self.project = Conv(hidden, c2, 1, g=self.groups, act=False)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "skip"):
            return self.skip(x)
        y = self.expand(x)
        if self.groups > 1:
            y = y.unflatten(1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        y = self.project(self.depthwise(y))
        return x + y if self.add else y
