"""The auxiliary branch of YOLOv9 (Wang et al. 2024, arXiv:2402.13616, section 4.1): maps of one backbone feed another
(composite backbones: Liang et al. 2021, arXiv:2107.00420)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..grammar import Config, Row
from ..registry import all_inputs, one_input, register, unchanged
from .conv import same_padding


def _widths(row: Row) -> list[int]:
    widths = row.args[0] if row.args else None
    if not isinstance(widths, list) or not widths or not all(type(w) is int and w > 0 for w in widths):
        raise row.error(f"args must begin with a list of widths, one a map that it gives, got {list(row.args)}")
    return widths


def _linear(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    widths = [config.width(w, row) for w in _widths(row)]
    return [one_input(row, c_in), widths, *row.args[1:]], sum(widths)


def _fused(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    *_, c = all_inputs(row, c_in)
    picks = row.args[0] if row.args else None
    if not isinstance(picks, list) or len(picks) != len(c_in) - 1:
        raise row.error(f"its argument is a list of indices, one a row but the last of its {len(c_in)}; got {picks!r}")
    for j, pick in zip(row.sources, picks, strict=False):
        feeding = config.rows[j]
        if j < 0 or feeding.module != "CBLinear":
            raise row.error(f"all its rows but the last must be CBLinear, but row {j} is {feeding.module}")
        widths = [config.width(w, feeding) for w in _widths(feeding)]
        if type(pick) is not int or not 0 <= pick < len(widths) or widths[pick] != c:
            raise row.error(
                f"it adds to {c} channels, but map {pick!r} of row {j} (CBLinear) is not of that width; it has "
                f"{', '.join(map(str, widths))}"
            )
    return list(row.args), c


# The network's input, for a second backbone to begin with.
register("Silence", channels=unchanged)(nn.Identity)


@register(channels=_linear)
class CBLinear(nn.Module):
    """A convolution with bias whose output is split. (N, c1, H, W) -> one (N, w, H, W) for each width in `c2s`."""

    def __init__(self, c1: int, c2s: Sequence[int], k: int = 1, s: int = 1, p: Any = None, g: int = 1) -> None:
        super().__init__()
        self.c2s = list(c2s)
        self.conv = nn.Conv2d(c1, sum(c2s), k, s, same_padding(k) if p is None else p, groups=g)

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.conv(x).split(self.c2s, 1))


@register(channels=_fused)
class CBFuse(nn.Module):
    """The last input, and of each `CBLinear` before it the map at `idx`, brought to its size (nearest), added up."""

    def __init__(self, idx: Sequence[int]) -> None:
        super().__init__()
        self.idx = list(idx)

    def forward(self, x: list[Any]) -> Tensor:
        *maps, total = x
        size = total.shape[2:]
        for several, i in zip(maps, self.idx, strict=True):
            total = total + F.interpolate(several[i], size=size, mode="nearest")
        return total  # type: ignore[no-any-return]
