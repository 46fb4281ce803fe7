"""The loss that YOLOv5 trains its anchor-based detectors with.

    loss = N * (box * sum_l mean(1 - CIoU) + obj * sum_l balance_l * BCE(objectness) + cls * sum_l BCE(classes))

with l the levels of the head and N the batch size. Its constants are those of YOLOv5 v6/v7
(https://github.com/ultralytics/yolov5, `hyp.scratch-low.yaml`), so that a training here compares with one there.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InputError

# A target matches an anchor when neither side is this many times as long as the other's.
# At 4 every match can be drawn: the head's width is (2σ)² x anchor, hence below 4 x anchor.
_ANCHOR_THRESHOLD = 4.0

# Weight of each level's objectness, finest first: the finer the level, the more of its cells are background.
_BALANCE_THREE_LEVELS = (4.0, 1.0, 0.4)
_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)


class Gains(NamedTuple):
    """Weights of the three parts of the loss."""

    box: float
    obj: float
    cls: float


def scaled_gains(nl: int, nc: int, imgsz: int = 640) -> Gains:
    """YOLOv5's gains, tuned at three levels, 80 classes and 640 px, carried over to another detector.

    Args:
        nl: number of levels of the head.
        nc: number of classes.
        imgsz: side of the network input in pixels.
    """
    per_level = 3 / nl
    return Gains(box=0.05 * per_level, obj=1.0 * (imgsz / 640) ** 2 * per_level, cls=0.5 * nc / 80 * per_level)


def complete_iou(boxes1: Tensor, boxes2: Tensor, eps: float = 1e-7) -> Tensor:
    """Complete IoU of pairs of boxes (Zheng et al. 2020, arXiv:1911.08287, "Complete IoU Loss").

    Equals 1 - `torchvision.ops.complete_box_iou_loss`, gradients included. That function takes corners, from which
    the width of a box below 1e-7 comes back as 0 and the loss as NaN (a width logit of -10 is enough); this one
    takes the widths themselves.

    Args:
        boxes1: (K, 4) as x, y of the centre, width, height.
        boxes2: (K, 4), likewise.
        eps: added to the denominators.

    Returns:
        (K,) in (-1.5, 1]. The weight alpha of the aspect term is a constant to the gradient.
    """
    x1, y1, w1, h1 = boxes1.unbind(1)
    x2, y2, w2, h2 = boxes2.unbind(1)
    left1, right1, top1, bottom1 = x1 - w1 / 2, x1 + w1 / 2, y1 - h1 / 2, y1 + h1 / 2
    left2, right2, top2, bottom2 = x2 - w2 / 2, x2 + w2 / 2, y2 - h2 / 2, y2 + h2 / 2

    overlap_w = (torch.minimum(right1, right2) - torch.maximum(left1, left2)).clamp(min=0)
    overlap_h = (torch.minimum(bottom1, bottom2) - torch.maximum(top1, top2)).clamp(min=0)
    intersection = overlap_w * overlap_h
    iou = intersection / (w1 * h1 + w2 * h2 - intersection + eps)

    hull_w = torch.maximum(right1, right2) - torch.minimum(left1, left2)
    hull_h = torch.maximum(bottom1, bottom2) - torch.minimum(top1, top2)
    distance = ((x1 - x2) ** 2 + (y1 - y2) ** 2) / (hull_w**2 + hull_h**2 + eps)

    aspect = 4 / math.pi**2 * (torch.atan(w2 / (h2 + eps)) - torch.atan(w1 / (h1 + eps))) ** 2
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + eps)
    return iou - distance - alpha * aspect


class _AnchorHead(Protocol):
    """What the loss reads of `models.heads.Detect`."""

    @property
    def nc(self) -> int: ...

    @property
    def nl(self) -> int: ...

    @property
    def anchors(self) -> Tensor: ...  # (nl, na, 2), in grid units


class DetectionLoss:
    """Box, objectness and class loss of an anchor-based head with any number of levels, anchors and classes.

    The head is read at every call: anchors that are replaced or moved to another device are followed.

    Args:
        head: the detector's `Detect`.
        gains: weights of the parts; `scaled_gains(head.nl, head.nc)` unless told otherwise.
        label_smoothing: ε; class targets become 1 - ε/2 and ε/2 (Szegedy et al. 2016, arXiv:1512.00567, section 7,
            for two outcomes).

    Raises:
        InputError: the head has more levels than there are balances.
    """

    def __init__(self, head: _AnchorHead, gains: Gains | None = None, label_smoothing: float = 0.0) -> None:
        if head.nl > len(_BALANCE):
            raise InputError(f"head: {head.nl} levels, but the loss has a balance for 1 to {len(_BALANCE)}")
        self.head = head
        self.gains = gains if gains is not None else scaled_gains(head.nl, head.nc)
        self.balance = _BALANCE_THREE_LEVELS if head.nl == 3 else _BALANCE[: head.nl]
        self.positive, self.negative = 1 - label_smoothing / 2, label_smoothing / 2

    def __call__(self, predictions: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch. Computed in float32, whatever the type of the predictions.

        Args:
            predictions: logits of each level, (N, na, ny, nx, nc + 5), as the head returns them in training.
            targets: (M, 6) as image index, class, and x, y of the centre, width, height in fractions of the input.

        Returns:
            The loss (scalar; the sum of the parts times N), and its parts `box`, `obj`, `cls` after gains, detached.
        """
        device = predictions[0].device
        targets = targets.to(device, torch.float32)
        all_anchors = self.head.anchors.to(device, torch.float32)
        box = torch.zeros((), device=device)
        obj = torch.zeros((), device=device)
        cls = torch.zeros((), device=device)

        for logits, anchors, balance in zip(predictions, all_anchors, self.balance, strict=True):
            objectness = torch.zeros(logits.shape[:4], device=device)
            match = assign(targets, anchors, logits.shape[2:4])
            if len(match.cell):
                matched = logits.flatten(0, 3)[match.cell].float()
                drawn_xy = matched[:, 0:2].sigmoid() * 2 - 0.5
                drawn_wh = (matched[:, 2:4].sigmoid() * 2) ** 2 * anchors[match.anchor]
                iou = complete_iou(torch.cat((drawn_xy, drawn_wh), 1), match.box)
                box = box + (1 - iou).mean()
                # Several targets may share a cell and anchor: the best drawn counts, where a plain assignment keeps
                # whichever came last. The zero already there takes part, so that a negative CIoU counts as zero.
                objectness.view(-1).scatter_reduce_(0, match.cell, iou.detach(), "amax")
                if self.head.nc > 1:
                    classes = torch.full_like(matched[:, 5:], self.negative)
                    classes.scatter_(1, match.label[:, None], self.positive)
                    cls = cls + F.binary_cross_entropy_with_logits(matched[:, 5:], classes)
            obj = obj + balance * F.binary_cross_entropy_with_logits(logits[..., 4].float(), objectness)

        parts = {"box": self.gains.box * box, "obj": self.gains.obj * obj, "cls": self.gains.cls * cls}
        loss = (parts["box"] + parts["obj"] + parts["cls"]) * len(predictions[0])
        return loss, {name: part.detach() for name, part in parts.items()}


class Match(NamedTuple):
    """The K places of one level where a target is to be drawn."""

    cell: Tensor  # (K,) index into the level's (N, na, ny, nx), flattened
    anchor: Tensor  # (K,)
    label: Tensor  # (K,) class
    box: Tensor  # (K, 4) x, y of the centre from the cell's corner, width, height, in grid units
    target: Tensor  # (K,) which of the targets


def assign(targets: Tensor, anchors: Tensor, shape: Sequence[int]) -> Match:
    """Assign targets (M, 6) to the anchors (na, 2, grid units) and cells of a level of shape (ny, nx).

    A target goes to every anchor of a like shape, and there to the cell that holds its centre and the nearest cell
    beside and above or below it: the cells that the centre falls into when it is moved half a cell that way. From
    all of these it can be drawn, since the head's centre reaches from -0.5 to 1.5. On a cell's very edge, the move
    to the right (or down) ends in the cell of the centre, which then counts twice, as it does in YOLOv5.
    """
    ny, nx = shape
    size = anchors.new_tensor((nx, ny))
    xy, wh = targets[:, 2:4] * size, targets[:, 4:6] * size

    ratio = wh[:, None] / anchors  # (M, na, 2)
    target, anchor = (torch.maximum(ratio, 1 / ratio).amax(2) < _ANCHOR_THRESHOLD).nonzero(as_tuple=True)
    xy, wh = xy[target], wh[target]

    from_end = size - xy
    near_start = (xy % 1 < 0.5) & (xy > 1)  # nearer to the left (upper) neighbour, and there is one
    near_end = (from_end % 1 < 0.5) & (from_end > 1)
    own = torch.ones_like(near_start[:, :1])
    moves = anchors.new_tensor(((0, 0), (-0.5, 0), (0, -0.5), (0.5, 0), (0, 0.5)))
    match, move = torch.cat((own, near_start, near_end), 1).nonzero(as_tuple=True)
    target, anchor, xy, wh = target[match], anchor[match], xy[match], wh[match]

    x, y = (xy + moves[move]).long().unbind(1)
    x, y = x.clamp(0, nx - 1), y.clamp(0, ny - 1)  # a centre on the right or lower border is one cell too far
    image, label = targets[target, :2].long().unbind(1)
    cell = ((image * len(anchors) + anchor) * ny + y) * nx + x
    return Match(cell, anchor, label, torch.cat((xy - torch.stack((x, y), 1), wh), 1), target)
