"""Masks of detections in the pixels of their images, and COCO's average precision of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from data import Batch
from data.canvas import Letterbox
from data.outline import Crop, run_lengths, segmentation

from .metrics import DetectionMetrics, _coco, _stack

MASK_AP = {"mask_map50_95": "mask_ap50_95", "mask_map50": "mask_ap50", "mask_map75": "mask_ap75"}


class Masks(NamedTuple):
    """Of one image, as COCO's annotations have them: of its detections, its objects, and what is ignored in it.

    Attributes
    ----------
    size
        (height, width) of the image.
    """

    size: tuple[int, int]
    found: list[Any]
    objects: list[Any]
    ignored: list[Any]


def crops_of(prototypes: Tensor, coefficients: Tensor, boxes: Tensor, letterbox: Letterbox) -> list[Crop]:
    """The masks of an image's detections, each within its box.

    Where the sum of prototypes, brought to the image's pixels by bilinear interpolation, is more than 0 (Bolya et al.
    2019, arXiv:1904.02689, section 3.1: a sigmoid of more than a half).

    Parameters
    ----------
    prototypes
        (k, H, W) of the network's input.
    coefficients
        (n, k)
    boxes
        (n, 4): x1, y1, x2, y2 in pixels of the image, within it.
    """
    if not len(boxes):
        return []
    sums = torch.einsum("nk,khw->nhw", coefficients.float(), prototypes.float()).cpu().numpy()
    scale = [side / size for side, size in zip(sums.shape[:0:-1], letterbox.size[::-1], strict=True)]
    found = []
    # A pixel is in the box if its centre is.
    for drawn, (left, top, right, bottom) in zip(sums, boxes.round().int().tolist(), strict=True):
        if right <= left or bottom <= top:
            found.append(Crop(np.zeros((0, 0), dtype=np.uint8), left, top))
            continue
        step = [letterbox.ratio[axis] * scale[axis] for axis in (0, 1)]
        first = [
            ((start + 0.5) * letterbox.ratio[axis] + letterbox.pad[axis]) * scale[axis] - 0.5
            for axis, start in enumerate((left, top))
        ]
        matrix = np.array([[step[0], 0, first[0]], [0, step[1], first[1]]])
        way = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = right - left, bottom - top
        values = cv2.warpAffine(drawn, matrix, size, flags=way, borderMode=cv2.BORDER_REPLICATE)
        found.append(Crop((values > 0).astype(np.uint8), left, top))
    return found


def masks_of(prototypes: Tensor, coefficients: Sequence[Tensor], found: Sequence[Tensor], batch: Batch) -> list[Masks]:
    """What `SegmentationMetrics.update` takes, beside what `in_original_pixels` gives.

    Parameters
    ----------
    prototypes
        (N, k, H, W)
    coefficients
        Of each image (n, k).
    found
        Of each image (n, 6), x1, y1, x2, y2 in its pixels first.
    """
    masks = []
    for i, meta in enumerate(batch.metas):
        assert meta.letterbox is not None
        assert meta.outlines is not None
        crops = crops_of(prototypes[i].to(coefficients[i].device), coefficients[i], found[i][:, :4], meta.letterbox)
        of_objects = [segmentation(o, meta.shape) if o is not None else None for o in meta.outlines.objects]
        ignored = [segmentation(o, meta.shape) if o is not None else None for o in meta.outlines.ignored]
        masks.append(Masks(meta.shape, [run_lengths(crop, meta.shape) for crop in crops], of_objects, ignored))
    return masks


class SegmentationMetrics(DetectionMetrics):
    """`DetectionMetrics`, and the average precision of masks by COCO's rule (IoU of masks in place of boxes)."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(names)
        self._masks: list[Masks] = []

    def update(
        self,
        preds: Sequence[Tensor],
        targets: Sequence[Tensor],
        ignored: Sequence[Tensor] | None = None,
        masks: Sequence[Masks] | None = None,
    ) -> None:
        """Add images: what `DetectionMetrics.update` takes, and the masks, in step with it."""
        super().update(preds, targets, ignored)
        assert masks is not None
        self._masks += masks

    def compute(self) -> dict[str, Any]:
        """What `DetectionMetrics.compute` gives, and of masks ``mask_map50_95``, ``mask_map50``, ``mask_map75``.

        Classes have ``mask_ap50_95``, ``mask_ap50`` and ``mask_ap75`` likewise.
        """
        measured = super().compute()
        ap = self._mask_precision().mean(1)  # (10, nc): over recall
        number = {name: c for c, name in enumerate(self.names)}
        present = [number[name] for name in measured["classes"]]
        of_masks = {"mask_map50_95": ap.mean(0), "mask_map50": ap[0], "mask_map75": ap[5]}
        for name, of_classes in of_masks.items():
            measured[name] = float(of_classes[present].mean()) if present else float("nan")
            for c in present:
                measured["classes"][self.names[c]][MASK_AP[name]] = float(of_classes[c])
        return measured

    def _mask_precision(self) -> np.ndarray:
        """Precision at 10 IoUs, 101 recalls and each class."""
        predictions, targets = _stack(self._predictions, 6), _stack(self._targets, 5)
        objects = _coco(targets[:, 0], targets[:, 1], targets[:, 2:6])
        detections = _coco(predictions[:, 0], predictions[:, 6], predictions[:, 1:5], predictions[:, 5])
        for row, mask in zip(objects, (m for masks in self._masks for m in masks.objects), strict=True):
            row["segmentation"] = mask
        for row, mask in zip(detections, (m for masks in self._masks for m in masks.found), strict=True):
            row["segmentation"] = mask
        crowds = _stack(self._ignored, 6)
        for row, own, mask in zip(
            _coco(crowds[:, 0], crowds[:, 1], crowds[:, 2:6]),
            crowds,
            (m for masks in self._masks for m in masks.ignored),
            strict=True,
        ):
            # One without an outline is its box.
            x1, y1, x2, y2 = own[2:6].tolist()
            mask = [[x1, y1, x2, y1, x2, y2, x1, y2]] if mask is None else mask
            objects.append({**row, "id": len(objects) + 1, "iscrowd": 1, "segmentation": mask})
        sizes = [masks.size for masks in self._masks]
        found: np.ndarray = self._run(objects, detections, "segm", sizes)["precision"][..., 0, 0]
        return found
