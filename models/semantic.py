"""The head of semantic segmentation: a class for every pixel, from the sum of the levels' maps (Panoptic FPN)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import Conv
from .grammar import Config, Row
from .head import Form, Head, Loss
from .registry import all_inputs, register

IGNORED = 255  # of a label map: pixels of no class, as in Pascal VOC and Cityscapes


def _semantic(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    if len(row.args) != 2:
        raise row.error(f"its arguments are [nc, width of its maps], such as 128; got {[*row.args]}")
    nc, width = row.args
    if isinstance(nc, bool) or not isinstance(nc, int) or not 1 <= nc <= IGNORED:
        raise row.error(f"the first argument is the number of classes, 1 to {IGNORED}, got {nc!r}")
    # Without the classes' number: this width is scaled even where it equals the outputs of a `Detect`.
    return [nc, all_inputs(row, c_in), replace(config, nc=None).width(width, row)], nc


@register(channels=_semantic)
class Semantic(Head):
    """A class for every pixel: a 3 x 3 convolution a level, their sum, and a 1 x 1 convolution.

    The other levels are brought to the first one's resolution by bilinear interpolation (Kirillov et al. 2019,
    arXiv:1901.02446, section 3.1, which doubles a map at a time; here it is one step).

    Parameters
    ----------
    nc
        Classes; a background is one of them.
    ch
        Channels of the levels, the finest first.
    width
        Channels of the sum.

    In training mode the output is a list of one tensor, logits (N, nc, H, W) at the first level's stride. In eval mode
    it is a pair: these logits, and that list.
    """

    form: Form = "labels"
    finds: ClassVar[str] = "labels"
    parts: ClassVar[tuple[str, ...]] = ("pixels",)

    def __init__(self, nc: int, ch: Sequence[int], width: int = 128) -> None:
        super().__init__()
        self.nc, self.nl = nc, len(ch)
        self.register_buffer("stride", torch.zeros(self.nl), persistent=False)
        self.maps = nn.ModuleList(Conv(c, width, 3) for c in ch)
        self.classify = nn.Conv2d(width, nc, 1)

    def set_strides(self, strides: Sequence[float]) -> None:
        self.stride = torch.tensor(strides, dtype=torch.float32)

    def loss(self, imgsz: int = 640) -> Loss:
        return SemanticLoss()

    def by_class(self) -> Mapping[str, tuple[int, ...]]:
        return {"classify": (1, 0)}

    def with_classes(self, level: Tensor, classes: Sequence[int]) -> Tensor:
        return level[:, [*classes]]

    def forward(self, x: list[Tensor]) -> Any:
        maps = [conv(level) for conv, level in zip(self.maps, x, strict=True)]
        total, size = maps[0], maps[0].shape[2:]
        for level in maps[1:]:
            total = total + F.interpolate(level, size=size, mode="bilinear", align_corners=False)
        logits = self.classify(total)
        return [logits] if self.training else (logits, [logits])


class SemanticLoss:
    """Cross entropy of every pixel that has a class: N times the batch's mean."""

    def __call__(
        self, logits: Sequence[Tensor], targets: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch, in float32 whatever the type of the logits.

        Parameters
        ----------
        logits
            One tensor, (N, nc, H, W).
        targets
            Objects; not looked at.
        masks
            uint8 (N, H', W') label maps of the images; `IGNORED` is no class. None where they are not known, and then
            nothing is learnt.
        """
        (level,) = logits
        level = level.float()
        if masks is None:
            total = 0 * level.sum()  # a gradient all the same: processes wait for it
        else:
            labels = masks.to(level.device).long()
            level = F.interpolate(level, size=labels.shape[1:], mode="bilinear", align_corners=False)
            known = labels.ne(IGNORED).sum().clamp(min=1)
            total = F.cross_entropy(level, labels, ignore_index=IGNORED, reduction="sum") / known
        return total * len(level), {"pixels": total.detach()}
