"""The loss of YOLOv5's instance segmentation: that of its boxes, and of each box's mask.

    loss = N * (box + obj + cls + mask * sum_l mean over images of mean over matches (BCE within the box / its area))

The box is the object's, and its area a share of the image's: large objects do not outweigh small ones (Bolya et al.
2019, arXiv:1904.02689, section 3.4). The gain is that of boxes, as in YOLOv5 v7.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .loss import DetectionLoss, Gains, _AnchorHead, assign

# Pixels of masks that are held at once: thousands of matches a level, of maps of 160 x 160, would be gigabytes.
_PIXELS_AT_ONCE = 1 << 24


class _MaskHead(_AnchorHead, Protocol):
    """What the loss reads of `models.segment.Segment`."""

    @property
    def num_coefficients(self) -> int: ...


class SegmentLoss:
    """Box, objectness, class and mask loss of a `Segment`.

    Parameters
    ----------
    head
        Read at every call.
    gains
        Of boxes, which is the masks' too, objectness and classes.
    """

    def __init__(self, head: _MaskHead, gains: Gains | None = None) -> None:
        self.head, self.boxes = head, DetectionLoss(head, gains)
        self.gains, self.balance = self.boxes.gains, self.boxes.balance

    def __call__(
        self, predictions: Sequence[Tensor], targets: Tensor, masks: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of a batch, in float32 whatever the type of the predictions.

        Parameters
        ----------
        predictions
            Logits of the levels, (N, na, ny, nx, nc + 5 + k), and prototypes (N, k, H, W).
        targets
            (M, 6), see `models.head.Head.loss`.
        masks
            (M, H', W') of the objects, 0 or 1; None where they are not known, and then none is learnt.
        """
        levels, prototypes = predictions[:-1], predictions[-1]
        num_boxes = self.head.nc + 5
        loss, parts = self.boxes([level[..., :num_boxes] for level in levels], targets)
        mask = self._masks(levels, prototypes, targets, masks) * self.gains.box
        return loss + mask * len(prototypes), {**parts, "mask": mask.detach()}

    def _masks(self, levels: Sequence[Tensor], prototypes: Tensor, targets: Tensor, masks: Tensor | None) -> Tensor:
        # Nothing to draw, and still a gradient: processes that share a training wait for all of them.
        total = 0 * (prototypes.float().mean() + sum(level[..., -1].float().mean() for level in levels))
        if masks is None or not len(masks):
            return total
        device, size = prototypes.device, prototypes.shape[2:]
        targets = targets.to(device, torch.float32)
        masks = masks.to(device)
        if masks.shape[1:] != size:  # images that were resized
            masks = F.interpolate(masks[None].float(), size=size, mode="nearest")[0]
        for level, anchors in zip(levels, self.head.anchors.to(device, torch.float32), strict=True):
            match = assign(targets, anchors, level.shape[2:4])
            if not len(match.cell):
                continue
            image = targets[match.target, 0].long()
            of_each = level.flatten(0, 3)[match.cell][:, self.head.nc + 5 :].float()
            # The mean over an image's matches, and of these the mean over images, those without one included.
            weight = 1 / (image.bincount(minlength=len(prototypes))[image] * len(prototypes))
            total = total + self._of_matches(
                of_each, prototypes, image, targets[:, 2:][match.target], masks, match.target, weight
            )
        return total

    def _of_matches(
        self,
        coefficients: Tensor,
        prototypes: Tensor,
        image: Tensor,
        boxes: Tensor,
        masks: Tensor,
        target: Tensor,
        weight: Tensor,
    ) -> Tensor:
        total, at_once = coefficients.new_zeros(()), max(_PIXELS_AT_ONCE // masks[0].numel(), 1)
        for i in image.unique().tolist():
            for part in (image == i).nonzero()[:, 0].split(at_once):
                drawn = torch.einsum("nk,khw->nhw", coefficients[part], prototypes[i].float())
                wanted = masks[target[part]].float()
                each = F.binary_cross_entropy_with_logits(drawn, wanted, reduction="none")
                inside = within(boxes[part], masks.shape[1:])
                area = boxes[part, 2] * boxes[part, 3]
                loss = (each * inside).mean((1, 2)) / area.clamp(min=1 / each[0].numel())
                total = total + (loss * weight[part]).sum()
        return total


def within(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """Which pixels of maps of `size` (h, w) have their corner within boxes (K, 4), centre, width, height as shares."""
    h, w = size
    corner, half = boxes[:, :2], boxes[:, 2:] / 2
    low, high = ((corner + sign * half)[..., None, None] for sign in (-1, 1))
    xs, ys = torch.arange(w, device=boxes.device) / w, torch.arange(h, device=boxes.device)[:, None] / h
    return (xs >= low[:, 0]) & (xs < high[:, 0]) & (ys >= low[:, 1]) & (ys < high[:, 1])
