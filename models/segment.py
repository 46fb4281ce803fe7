"""The head of instance segmentation: YOLOv5's boxes, and for each the coefficients of a sum of prototypes (YOLACT)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .blocks import Conv
from .grammar import Config, Row
from .head import Loss
from .heads import Detect, _detect
from .loss import scaled_gains
from .registry import register
from .segment_loss import SegmentLoss


class Proto(nn.Module):
    """Prototypes of masks, at twice the resolution of the map (Bolya et al. 2019, arXiv:1904.02689, section 3.1).

    (N, c1, H, W) -> (N, c2, 2H, 2W).
    """

    def __init__(self, c1: int, hidden: int, c2: int) -> None:
        super().__init__()
        self.cv1 = Conv(c1, hidden, 3)
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.cv2 = Conv(hidden, hidden, 3)
        self.cv3 = Conv(hidden, c2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(self.cv2(self.upsample(self.cv1(x))))


def _segment(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    if len(row.args) != 4:
        raise row.error(f"its arguments are [nc, anchors, prototypes, their width], such as 32, 256; got {[*row.args]}")
    masks, width = row.args[2:]
    if isinstance(masks, bool) or not isinstance(masks, int) or masks < 1:
        raise row.error(f"the third argument is the number of prototypes, got {masks!r}")
    (nc, anchors, c_in), outputs = _detect(config, row, c_in)
    num_anchors = outputs // (nc + 5)
    # Without the classes' number: this width is scaled even where it equals the outputs of a `Detect`.
    hidden = replace(config, nc=None).width(width, row)
    return [nc, anchors, c_in, masks, hidden], outputs + num_anchors * masks


@register(channels=_segment)
class Segment(Detect):
    """YOLOv5's head of instance segmentation: `Detect`, and masks.

    An object's mask is the sigmoid of a sum of prototypes, weighed by the coefficients that come with its box, within
    the box (Bolya et al. 2019, arXiv:1904.02689, section 3). The prototypes are of the first level's map, at twice its
    resolution: from P3 a quarter of the image's side.

    Parameters
    ----------
    nc, anchors, ch
        As of `Detect`.
    masks
        Prototypes.
    width
        Channels of the layers that make them.

    Lists of logits end with the prototypes, (N, masks, H, W); decoded predictions with the coefficients.
    """

    finds: ClassVar[str] = "masks"
    parts: ClassVar[tuple[str, ...]] = ("box", "obj", "cls", "mask")

    def __init__(
        self, nc: int, anchors: int | list[list[float]], ch: Sequence[int], masks: int = 32, width: int = 256
    ) -> None:
        super().__init__(nc, anchors, ch, masks)
        self.proto = Proto(ch[0], width, masks)

    def loss(self, imgsz: int = 640) -> Loss:
        return SegmentLoss(self, scaled_gains(self.nl, self.nc, imgsz))

    def prototypes(self, logits: Sequence[Tensor]) -> Tensor:
        return logits[-1]

    def by_class(self) -> Mapping[str, tuple[int, ...]]:
        return {layer: (*how, self.num_coefficients) for layer, how in super().by_class().items()}

    def with_classes(self, level: Tensor, classes: Sequence[int]) -> Tensor:
        if level.ndim == 4:
            return level
        return level[..., [*range(5), *(5 + i for i in classes), *range(5 + self.nc, self.no)]]

    def sees_like(self, other: Any) -> bool:
        return super().sees_like(other) and other.num_coefficients == self.num_coefficients

    def forward(self, x: list[Tensor]) -> Any:
        prototypes, found = self.proto(x[0]), super().forward(x)
        if self.training:
            return [*found, prototypes]
        decoded, logits = found
        return decoded, [*logits, prototypes]

    def decode(self, logits: Tensor, level: int) -> Tensor:
        of_boxes, coefficients = logits.split((5 + self.nc, self.num_coefficients), -1)
        decoded = super().decode(of_boxes, level)
        return torch.cat((decoded, coefficients.reshape(logits.shape[0], -1, self.num_coefficients)), -1)
