"""The loss of the anchor-free head: task-aligned assignment, complete IoU, distributions of distances, classes.

    loss = N * (box * sum t (1 - CIoU) + dfl * sum t DFL + cls * sum BCE(classes, t)) / max(sum t, 1)

with t the target score of a cell, 0 where no object is. Gains are those of YOLOv8
(https://github.com/ultralytics/ultralytics, `default.yaml`), so that a training here compares with one there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import complete_iou

# Alignment s^α u^β of a prediction's score and overlap (Feng et al. 2021, arXiv:2108.07755, section 3.2); β as there.
_ALPHA, _BETA = 0.5, 6.0
_TOP = 10  # cells of an object
# Distances are held below the last bin by this: each target is between two bins.
_MARGIN = 0.01
_EPS = 1e-9


class DFLGains(NamedTuple):
    """Weights of the three parts of the loss."""

    box: float = 7.5
    cls: float = 0.5
    dfl: float = 1.5


class _AnchorFreeHead(Protocol):
    """What the loss reads of `models.dfl.DetectDFL`."""

    nc: int
    nl: int
    reg_max: int
    end2end: bool

    def split(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]: ...

    def cells(self, logits: Sequence[Tensor]) -> tuple[Tensor, Tensor]: ...


class Assignment(NamedTuple):
    """Which object each cell is to draw.

    Attributes
    ----------
    owner
        (N, P) index of the object within its image.
    score
        (N, P) target of its class, t; 0 where the cell draws none.
    """

    owner: Tensor
    score: Tensor


class DFLLoss:
    """Box, class and distribution loss of an anchor-free head.

    With `end2end` of the head, the loss of the one-to-many branches and that of the one-to-one branches, where an
    object has the one cell that is aligned best (Wang et al. 2024, arXiv:2405.14458, section 3.1); from the logits of
    eval mode, the latter alone. With ``reg_max: 1`` there is no distribution: in its place is the L1 distance of the
    sides as shares of the image (as DETR has beside the IoU, Carion et al. 2020, arXiv:2005.12872, section 3.1).

    Parameters
    ----------
    head
        The detector's `DetectDFL`; read at every call.
    """

    def __init__(self, head: _AnchorFreeHead, gains: DFLGains | None = None) -> None:
        self.head, self.gains = head, gains or DFLGains()

    def __call__(self, predictions: Sequence[Tensor], targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch; see `models.head.Head.loss`. Computed in float32, whatever the type of the predictions."""
        nl = self.head.nl
        with torch.autocast(predictions[0].device.type, enabled=False):
            levels = [level.float() for level in predictions]
            targets = targets.to(levels[0].device, torch.float32)
            tops = [1] if self.head.end2end else [_TOP]
            if len(levels) > nl:
                tops = [_TOP, 1]
            found = [self._of(levels[i * nl : (i + 1) * nl], targets, top) for i, top in enumerate(tops)]
        box, cls, dfl = torch.stack(found).sum(0)
        parts = {"box": self.gains.box * box, "cls": self.gains.cls * cls, "dfl": self.gains.dfl * dfl}
        loss = (parts["box"] + parts["cls"] + parts["dfl"]) * len(levels[0])
        return loss, {name: part.detach() for name, part in parts.items()}

    def _of(self, levels: Sequence[Tensor], targets: Tensor, top: int) -> Tensor:
        """(3,): box, classes, distributions, of the logits of one set of branches."""
        logits, classes = self.head.split(levels)
        classes = classes.transpose(1, 2)  # (N, P, nc)
        centres, strides = self.head.cells(levels)
        centres = centres.T  # (P, 2) in units of the strides
        n, _, p = logits.shape
        bins = logits.view(n, 4, self.head.reg_max, p).permute(0, 3, 1, 2)  # (N, P, 4, reg_max)
        sides = expected(bins)
        # Images' width and height, from a level's cells.
        size = strides[0] * sides.new_tensor((levels[0].shape[3], levels[0].shape[2]))
        boxes = from_sides(centres, sides) * strides[:, None]
        labels, objects, real = _by_image(targets, n, size)
        found = assign(
            classes.detach().sigmoid(), boxes.detach(), centres * strides[:, None], labels, objects, real, top
        )

        at = found.score > 0
        wanted = torch.zeros_like(classes)
        # Nothing to draw, and still a gradient of every branch: processes that share a training wait for all of them.
        box = dfl = 0 * sides.sum()
        total = found.score.sum().clamp(min=1)
        if at.any():
            image, cell = at.nonzero(as_tuple=True)
            owner, weight = found.owner[at], found.score[at]
            wanted[image, cell, labels[image, owner]] = weight
            drawn, object_ = boxes[at], objects[image, owner]
            # Without distributions a side may be negative, and no box is less than empty.
            drawn = torch.cat((drawn[:, :2], drawn[:, 2:].clamp(min=_EPS)), 1)
            box = box + ((1 - complete_iou(drawn, object_)) * weight).sum() / total
            own, stride = centres[cell], strides[cell, None]
            right = to_sides(own, object_ / stride)
            if self.head.reg_max > 1:
                of_sides = distribution_loss(bins[at], right)
            else:
                of_sides = (sides[at] - right).abs() * stride / size.repeat(2)
            dfl = dfl + (of_sides.mean(1) * weight).sum() / total
        cls = F.binary_cross_entropy_with_logits(classes, wanted, reduction="sum") / total
        return torch.stack((box, cls, dfl))


def expected(bins: Tensor) -> Tensor:
    """(…, reg_max) logits of distributions to their expected values (…,); a single bin is the value itself."""
    if bins.shape[-1] == 1:
        return bins[..., 0]
    return (bins.softmax(-1) * torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)).sum(-1)


def from_sides(centres: Tensor, sides: Tensor) -> Tensor:
    """Boxes (…, 4) as centre, width, height from cells' centres (…, 2) and left, top, right, bottom (…, 4)."""
    left_top, right_bottom = sides.chunk(2, -1)
    return torch.cat((centres + (right_bottom - left_top) / 2, left_top + right_bottom), -1)


def to_sides(centres: Tensor, boxes: Tensor) -> Tensor:
    """The distances that `from_sides` makes boxes of."""
    offset, half = boxes[..., :2] - centres, boxes[..., 2:] / 2
    return torch.cat((half - offset, half + offset), -1)


def distribution_loss(bins: Tensor, values: Tensor) -> Tensor:
    """Distribution focal loss (Li et al. 2020, arXiv:2006.04388, equation 6).

    Parameters
    ----------
    bins
        (K, 4, reg_max) logits.
    values
        (K, 4); what is beyond the bins is taken to them.

    Returns
    -------
    (K, 4) cross entropies with the two bins beside each value, the nearer weighing the more.
    """
    values = values.clamp(0, bins.shape[-1] - 1 - _MARGIN)
    low = values.long()
    log_p = bins.log_softmax(-1)
    at_low, at_high = (log_p.gather(-1, i[..., None])[..., 0] for i in (low, low + 1))
    return -(at_low * (low + 1 - values) + at_high * (values - low))


@torch.no_grad()
def assign(
    scores: Tensor, boxes: Tensor, centres: Tensor, labels: Tensor, objects: Tensor, real: Tensor, top: int
) -> Assignment:
    """Task-aligned assignment (Feng et al. 2021, arXiv:2108.07755, section 3.2).

    An object is drawn by the `top` cells within it whose predictions are aligned best; a cell that several objects
    want draws the one it overlaps most. Targets are the alignment, scaled for each object such that the largest is its
    largest overlap.

    Parameters
    ----------
    scores
        (N, P, nc) probabilities.
    boxes
        (N, P, 4) centre, width, height in pixels.
    centres
        (P, 2) of the cells in pixels.
    labels, objects, real
        (N, G) classes, (N, G, 4) boxes as above, and which of them are there.
    """
    n, p, _ = scores.shape
    g = labels.shape[1]
    if g == 0:
        return Assignment(torch.zeros(n, p, dtype=torch.long, device=scores.device), scores.new_zeros(n, p))
    offset = (centres - objects[:, :, None, :2]).abs()  # (N, G, P, 2)
    inside = (offset < objects[:, :, None, 2:] / 2 - _EPS).all(-1) & real[..., None]
    image, object_, cell = inside.nonzero(as_tuple=True)
    overlap = scores.new_full((n, g, p), -1)
    aligned = scores.new_full((n, g, p), -1)
    of_pairs = complete_iou(
        torch.cat((boxes[image, cell, :2], boxes[image, cell, 2:].clamp(min=_EPS)), 1), objects[image, object_]
    ).clamp(min=0)
    overlap[image, object_, cell] = of_pairs
    aligned[image, object_, cell] = scores[image, cell, labels[image, object_]] ** _ALPHA * of_pairs**_BETA

    best = aligned.topk(min(top, p), 2).indices
    wants = torch.zeros_like(inside).scatter_(2, best, True) & inside
    owner = overlap.masked_fill(~wants, -1).argmax(1)  # (N, P)
    wants &= torch.zeros_like(wants).scatter_(1, owner[:, None], True)
    aligned, overlap = aligned.masked_fill(~wants, 0), overlap.masked_fill(~wants, 0)
    scale = overlap.amax(2, keepdim=True) / aligned.amax(2, keepdim=True).clamp(min=torch.finfo(aligned.dtype).tiny)
    return Assignment(owner, (aligned * scale).amax(1))


def _by_image(targets: Tensor, n: int, size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Targets (M, 6) as (N, G) classes, (N, G, 4) boxes in pixels, and (N, G) which of them are there."""
    image = targets[:, 0].long()
    counts = image.bincount(minlength=n)
    g = int(counts.max()) if len(targets) else 0
    order = image.argsort(stable=True)
    image, targets = image[order], targets[order]
    place = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    labels = torch.zeros(n, g, dtype=torch.long, device=targets.device)
    boxes = targets.new_zeros(n, g, 4)
    real = torch.zeros(n, g, dtype=torch.bool, device=targets.device)
    labels[image, place], boxes[image, place], real[image, place] = targets[:, 1].long(), targets[:, 2:6], True
    return labels, boxes * size.repeat(2), real
