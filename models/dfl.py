"""The anchor-free head of YOLOv8 and later: distances to the sides of a box as distributions, and classes."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .blocks import Conv, DWConv
from .dfl_loss import DFLLoss
from .grammar import Config, Row
from .head import Form, Head, Loss
from .registry import all_inputs, register

# Most detections that the one-to-one form gives, as YOLOv10 does (https://github.com/THU-MIG/yolov10).
MAX_DET = 300
# A class branch need not be wider than this for any number of classes (YOLOv8's table of layers).
_CLASS_WIDTH = 100
# Bias of the boxes: an untrained head's sides are about as far as the bin of the middle of a softmax over them.
_BOX_BIAS = 1.0
# Objects in an image of 640 x 640, for the prior of the classes.
_OBJECTS = 5


def _detect_dfl(config: Config, row: Row, c_in: Sequence[int]) -> tuple[list[Any], int]:
    if len(row.args) != 1:
        raise row.error(f"its one argument is the number of classes, with no anchors: [nc]; got {list(row.args)}")
    if config.anchors is not None:
        raise row.error("has no anchors, but the YAML has the key 'anchors'; right would be a YAML without that key")
    nc = row.args[0]
    if isinstance(nc, bool) or not isinstance(nc, int) or nc < 1:
        raise row.error(f"the first argument is the number of classes, got {nc!r}")
    known = {"reg_max": 16, "end2end": False, "depthwise": False}
    if unknown := [k for k in row.kwargs if k not in known]:
        raise row.error(f"has no argument '{unknown[0]}'; right would be {', '.join(known)}")
    given = {**known, **row.kwargs}
    reg_max = given["reg_max"]
    if isinstance(reg_max, bool) or not isinstance(reg_max, int) or reg_max < 1:
        raise row.error(f"reg_max must be a positive integer (1 is without distributions), got {reg_max!r}")
    for name in ("end2end", "depthwise"):
        if not isinstance(given[name], bool):
            raise row.error(f"{name} must be true or false, got {given[name]!r}")
    return [nc, all_inputs(row, c_in)], 4 * reg_max + nc


class DFL(nn.Module):
    """Expected value of a distribution over 0 … reg_max - 1 (Li et al. 2020, arXiv:2006.04388, equation 5).

    The values are the weights of a fixed convolution, as in checkpoints of the family. (N, 4 reg_max, P) -> (N, 4, P).
    """

    def __init__(self, reg_max: int) -> None:
        super().__init__()
        self.reg_max = reg_max
        self.conv = nn.Conv2d(reg_max, 1, 1, bias=False).requires_grad_(False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.arange(reg_max, dtype=torch.float32).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        n, _, p = x.shape
        return self.conv(x.view(n, 4, self.reg_max, p).transpose(1, 2).softmax(1)).view(n, 4, p)


@register(channels=_detect_dfl)
class DetectDFL(Head):
    """Anchor-free head: a branch for boxes and one for classes at each level.

    A row ``Detect, [nc]`` in a YAML without anchors reads as this head.

    Parameters
    ----------
    nc
        Classes.
    ch
        Channels of the levels, finest first.
    reg_max
        Bins of each side's distribution; 1 is a plain distance without a distribution.
    end2end
        Copies of both branches learn one detection an object (Wang et al. 2024, arXiv:2405.14458, section 3.1), and
        the output needs no non-maximum suppression.
    depthwise
        Class branches of depth-wise and 1 x 1 convolutions, as from YOLO11 on (and in YOLOv10).

    Attributes
    ----------
    no, nl
        Outputs a cell (4 reg_max + nc), levels.
    stride
        (nl,) in pixels.

    In training mode the output is a list of nl tensors (N, no, H, W) of logits, boxes first; with `end2end` those of
    the one-to-one branches follow. In eval mode it is a pair: the decoded predictions, and that list, which is with
    `end2end` of the one-to-one branches alone. Decoded are (N, P, 4 + nc), centre x, y, width and height in pixels of
    the input, and class probabilities; with `end2end` (N, 300 at most, 6), corners, confidence and class, most
    confident first.
    """

    parts: ClassVar[tuple[str, ...]] = ("box", "cls", "dfl")
    width_by_class: ClassVar[tuple[str, ...]] = ("cv3.", "one2one_cv3.")

    def __init__(
        self, nc: int, ch: Sequence[int], reg_max: int = 16, end2end: bool = False, depthwise: bool = False
    ) -> None:
        super().__init__()
        self.nc, self.reg_max, self.nl, self.no = nc, reg_max, len(ch), 4 * reg_max + nc
        self.end2end, self.depthwise = end2end, depthwise
        self.form: Form = "detections" if end2end else "classes"
        self.register_buffer("stride", torch.zeros(self.nl), persistent=False)
        c2, c3 = max(16, ch[0] // 4, 4 * reg_max), max(ch[0], min(nc, _CLASS_WIDTH))

        def classes(c: int) -> list[nn.Module]:
            if depthwise:
                return [
                    nn.Sequential(DWConv(c, c, 3), Conv(c, c3, 1)),
                    nn.Sequential(DWConv(c3, c3, 3), Conv(c3, c3, 1)),
                ]
            return [Conv(c, c3, 3), Conv(c3, c3, 3)]

        self.cv2 = nn.ModuleList(
            nn.Sequential(Conv(c, c2, 3), Conv(c2, c2, 3), nn.Conv2d(c2, 4 * reg_max, 1)) for c in ch
        )
        self.cv3 = nn.ModuleList(nn.Sequential(*classes(c), nn.Conv2d(c3, nc, 1)) for c in ch)
        self.dfl = DFL(reg_max) if reg_max > 1 else nn.Identity()
        if end2end:
            self.one2one_cv2, self.one2one_cv3 = copy.deepcopy(self.cv2), copy.deepcopy(self.cv3)

    def set_strides(self, strides: Sequence[float]) -> None:
        """Take the measured strides; initialise the biases with them."""
        self.stride = torch.tensor(strides, dtype=torch.float32)
        self.initialize_biases(strides)

    def initialize_biases(self, strides: Sequence[float]) -> None:
        """Priors of focal loss (Lin et al. 2017, arXiv:1708.02002, section 3.3): 5 objects in 640 x 640."""
        boxes, classes = [self.cv2], [self.cv3]
        if self.end2end:
            boxes, classes = [*boxes, self.one2one_cv2], [*classes, self.one2one_cv3]
        with torch.no_grad():
            for box, cls in zip(boxes, classes, strict=True):
                for b, c, stride in zip(box, cls, strides, strict=True):
                    cast(Any, b)[-1].bias.fill_(_BOX_BIAS)
                    cast(Any, c)[-1].bias.fill_(math.log(_OBJECTS / self.nc / (640 / stride) ** 2))

    def loss(self, imgsz: int = 640) -> Loss:
        return DFLLoss(self)

    def by_class(self) -> Mapping[str, tuple[int, ...]]:
        branches = ("cv3", "one2one_cv3") if self.end2end else ("cv3",)
        return {f"{name}.{level}.2": (1, 0) for name in branches for level in range(self.nl)}

    def with_classes(self, level: Tensor, classes: Sequence[int]) -> Tensor:
        return level[:, [*range(4 * self.reg_max), *(4 * self.reg_max + i for i in classes)]]

    def sees_like(self, other: Any) -> bool:
        return super().sees_like(other) and (other.reg_max, other.end2end) == (self.reg_max, self.end2end)

    def forward(self, x: list[Tensor]) -> Any:
        if not self.end2end:
            logits = _branches(self.cv2, self.cv3, x)
            return logits if self.training else (self.decode(logits), logits)
        if not self.training:
            logits = _branches(self.one2one_cv2, self.one2one_cv3, x)
            return self.most_confident(self.decode(logits)), logits
        # The features are shaped by the one-to-many branches alone.
        alone = [feature.detach() for feature in x]
        return [*_branches(self.cv2, self.cv3, x), *_branches(self.one2one_cv2, self.one2one_cv3, alone)]

    def split(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Levels of logits as one: (N, 4 reg_max, P) of boxes and (N, nc, P) of classes."""
        together = torch.cat([level.flatten(2) for level in logits], 2)
        return together[:, : 4 * self.reg_max], together[:, 4 * self.reg_max :]

    def cells(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(2, P) centres of the cells of all levels in units of their level's stride, and (P,) those strides."""
        centres, strides = [], []
        for level, stride in zip(logits, self.stride, strict=True):
            h, w = level.shape[-2:]
            ys, xs = torch.meshgrid(
                torch.arange(h, device=level.device, dtype=level.dtype) + 0.5,
                torch.arange(w, device=level.device, dtype=level.dtype) + 0.5,
                indexing="ij",
            )
            centres.append(torch.stack((xs.flatten(), ys.flatten())))
            strides.append(stride.to(level.dtype) * torch.ones_like(xs).flatten())
        return torch.cat(centres, 1), torch.cat(strides)

    def decode(self, logits: Sequence[Tensor]) -> Tensor:
        """Logits of the levels -> (N, P, 4 + nc): centre, width, height in pixels, and class probabilities."""
        boxes, classes = self.split(logits)
        centres, strides = self.cells(logits)
        left_top, right_bottom = self.dfl(boxes).chunk(2, 1)
        xy = (centres + (right_bottom - left_top) / 2) * strides
        wh = (left_top + right_bottom) * strides
        return torch.cat((xy, wh, classes.sigmoid()), 1).transpose(1, 2)

    def most_confident(self, decoded: Tensor) -> Tensor:
        """(N, P, 4 + nc) -> (N, 300 at most, 6): the cells likeliest of any class, and of these the best classes."""
        k = min(MAX_DET, decoded.shape[1])
        best = decoded[..., 4:].amax(2).topk(k).indices
        decoded = decoded.gather(1, best[..., None].expand(-1, -1, decoded.shape[2]))
        scores, index = decoded[..., 4:].flatten(1).topk(k)
        box = decoded[..., :4].gather(1, (index // self.nc)[..., None].expand(-1, -1, 4))
        xy, half = box[..., :2], box[..., 2:] / 2
        label = (index % self.nc).to(decoded.dtype)
        return torch.cat((xy - half, xy + half, scores[..., None], label[..., None]), 2)


def _branches(boxes: Any, classes: Any, x: Sequence[Tensor]) -> list[Tensor]:
    return [torch.cat((b(f), c(f)), 1) for b, c, f in zip(boxes, classes, x, strict=True)]
