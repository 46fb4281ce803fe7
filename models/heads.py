"""The anchor-based head."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .grammar import Config, Row
from .head import Form, Head, Loss
from .loss import DetectionLoss, scaled_gains
from .registry import all_inputs, register

# RetinaNet's anchors (Lin et al. 2017, arXiv:1708.02002, section 4): squares of 4 strides, in even steps to the octave.
# They stand in where the YAML gives a number of anchors a level instead of anchors.
DEFAULT_ANCHOR_STRIDES = 4.0


def _detect(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    nc, anchors = (*row.args, None, None)[:2]
    if isinstance(nc, bool) or not isinstance(nc, int) or nc < 1:
        raise row.error(f"the first argument is the number of classes, got {nc!r}")
    if not isinstance(anchors, (int, list)):
        hint = "; without the YAML's key 'anchors' it is the anchor-free head" if len(row.args) == 1 else ""
        raise row.error(f"the second argument is anchors, got {anchors!r}{hint}")
    c_in = all_inputs(row, c_in)
    if isinstance(anchors, list) and len(anchors) != len(c_in):
        raise row.error(f"from names {len(c_in)} levels, but anchors has {len(anchors)}")
    return [nc, anchors, c_in], (anchors if isinstance(anchors, int) else len(anchors[0]) // 2) * (nc + 5)


@register(channels=_detect)
class Detect(Head):
    """YOLOv5's anchor-based head: a 1 x 1 convolution a level.

    Attributes
    ----------
    nc, no, nl, na
        Classes, outputs an anchor (nc + 5 + coefficients), levels, anchors a level.
    anchors
        (nl, na, 2) in units of the level's stride, once `set_strides` has been called; in pixels before.
    stride
        (nl,) in pixels.

    In training mode the output is a list of nl tensors (N, na, H, W, no) of logits. In eval mode it is a pair: the
    decoded predictions (N, sum of na H W, no), centre x, y, width and height in pixels of the input, objectness and
    class probabilities; and that list.
    """

    form: Form = "objectness"
    parts: ClassVar[tuple[str, ...]] = ("box", "obj", "cls")
    anchors: Tensor

    def __init__(self, nc: int, anchors: int | list[list[float]], ch: Sequence[int], num_coefficients: int = 0) -> None:
        super().__init__()
        self.nc, self.no, self.nl = nc, nc + 5 + num_coefficients, len(ch)
        self.num_coefficients = num_coefficients
        self.default_anchors = isinstance(anchors, int)
        # Whether anchors grow from level to level, by numbers: a network on the meta device has none.
        areas = (
            []
            if isinstance(anchors, int)
            else [sum(w * h for w, h in zip(a[::2], a[1::2], strict=True)) for a in anchors]
        )
        self._growth = areas[-1] - areas[0] if areas else 0
        self.na = anchors if isinstance(anchors, int) else len(anchors[0]) // 2
        pixels = torch.zeros(self.nl, self.na, 2) if isinstance(anchors, int) else torch.tensor(anchors).float()
        self.register_buffer("anchors", pixels.view(self.nl, self.na, 2))
        self.register_buffer("stride", torch.zeros(self.nl), persistent=False)
        self.m = nn.ModuleList(nn.Conv2d(c, self.no * self.na, 1) for c in ch)

    def set_strides(self, strides: Sequence[float]) -> None:
        """Take the measured strides: order the anchors as the levels are, divide them, initialise the biases."""
        self.stride = torch.tensor(strides, dtype=torch.float32)
        if self.default_anchors:
            steps = 2 ** (torch.arange(self.na) / self.na)
            self.anchors = (DEFAULT_ANCHOR_STRIDES * steps).view(1, self.na, 1).repeat(self.nl, 1, 2)
        else:
            if self._growth * (strides[-1] - strides[0]) < 0:
                self.anchors = self.anchors.flip(0)
            self.anchors = self.anchors / self.stride.view(-1, 1, 1)
        self.initialize_biases(strides)

    def initialize_biases(self, strides: Sequence[float]) -> None:
        """Priors of focal loss (Lin et al. 2017, section 3.3): 8 objects in 640 x 640, classes equally likely."""
        for conv, stride in zip(self.m, strides, strict=True):
            bias = cast(nn.Conv2d, conv).bias
            assert bias is not None
            bias = bias.detach().view(self.na, -1)
            bias[:, 4] += math.log(8 / (640 / stride) ** 2)
            bias[:, 5 : 5 + self.nc] += math.log(0.6 / (self.nc - 0.99999))

    def loss(self, imgsz: int = 640) -> Loss:
        return DetectionLoss(self, scaled_gains(self.nl, self.nc, imgsz))

    def by_class(self) -> Mapping[str, tuple[int, ...]]:
        return {f"m.{level}": (self.na, 5) for level in range(self.nl)}

    def with_classes(self, level: Tensor, classes: Sequence[int]) -> Tensor:
        return level[..., [*range(5), *(5 + i for i in classes)]]

    def sees_like(self, other: Any) -> bool:
        same = super().sees_like(other) and other.anchors.shape == self.anchors.shape
        return same and torch.allclose(other.anchors.cpu(), self.anchors.cpu())

    def forward(self, x: list[Tensor]) -> Any:
        logits = []
        for conv, feature in zip(self.m, x, strict=True):
            y = conv(feature)
            n, _, h, w = y.shape
            logits.append(y.view(n, self.na, self.no, h, w).permute(0, 1, 3, 4, 2).contiguous())
        if self.training:
            return logits
        return torch.cat([self.decode(y, level) for level, y in enumerate(logits)], 1), logits

    def decode(self, logits: Tensor, level: int) -> Tensor:
        """(N, na, H, W, no) logits of a level -> (N, na H W, no) predictions in pixels."""
        n, _, h, w, _ = logits.shape
        ys, xs = torch.meshgrid(
            torch.arange(h, device=logits.device, dtype=logits.dtype),
            torch.arange(w, device=logits.device, dtype=logits.dtype),
            indexing="ij",
        )
        grid = torch.stack((xs, ys), -1)
        stride = self.stride[level]
        anchors = (self.anchors[level] * stride).view(1, self.na, 1, 1, 2)
        probability = logits.sigmoid()
        xy = (2 * probability[..., :2] - 0.5 + grid) * stride
        wh = (2 * probability[..., 2:4]) ** 2 * anchors
        return torch.cat((xy, wh, probability[..., 4:]), -1).view(n, -1, logits.shape[-1])
