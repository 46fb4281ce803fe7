"""How sure a difference of mAP on the test images is: both networks on images drawn with replacement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_MOST = 100  # detections of an image and class: COCO's rule
SAMPLES, _FEWEST, _MANY = 1000, 100, 200_000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Of mAP50-95, the first network's less the second's, and its 95 % interval over images."""

    mean: float
    low: float
    high: float


class Matched:
    """Detections of all images, matched to objects once: AP of any of the images follows by counting.

    Parameters
    ----------
    detections, objects
        Of each image (n, 6) x1, y1, x2, y2, confidence, class, and (m, 5) class, x1, y1, x2, y2, in the same pixels.
    ignored
        Of each image (k, 6) class, x1, y1, x2, y2, is a crowd; what lies in a crowd is neither right nor wrong.
    """

    def __init__(
        self,
        detections: Sequence[Tensor],
        objects: Sequence[Tensor],
        num_classes: int,
        ignored: Sequence[Tensor] | None = None,
    ) -> None:
        self.num_images = len(objects)
        # Of each image and class.
        self._objects = np.zeros((self.num_images, num_classes), int)
        rows: list[list[tuple[np.ndarray, ...]]] = [[] for _ in range(num_classes)]
        ignored = [t.new_zeros(0, 6) for t in objects] if ignored is None else ignored
        for i, (found, true, regions) in enumerate(zip(detections, objects, ignored, strict=True)):
            found, true = found.detach().cpu().double(), true.detach().cpu().double()
            for c in sorted({*true[:, 0].int().tolist(), *found[:, 5].int().tolist()}):
                boxes = true[true[:, 0] == c, 1:]
                self._objects[i, c] = len(boxes)
                own = found[found[:, 5] == c]
                own = own[(-own[:, 4]).argsort(stable=True)][:_MOST]
                if len(own):
                    right = _matches(own[:, :4], boxes)
                    inside = _inside(own[:, :4], regions[(regions[:, 0] == c) & (regions[:, 5] > 0), 1:5].double())
                    counted = right | (inside[None] < _IOUS[:, None])
                    rows[c].append((own[:, 4].numpy(), right, np.full(len(own), i), counted))
        self._classes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        for of_class in rows:
            if not of_class:
                self._classes.append(
                    (np.zeros((len(_IOUS), 0), bool), np.zeros(0, int), np.zeros((len(_IOUS), 0), bool))
                )
                continue
            scores, right, images, counted = (np.concatenate(part, axis=-1) for part in zip(*of_class, strict=True))
            order = (-scores).argsort(kind="stable")
            self._classes.append((right[:, order], images[order], counted[:, order]))
        self.num_detections = sum(len(images) for _, images, _ in self._classes)

    def map50_95(self, counts: np.ndarray | None = None) -> float:
        """mAP50-95 where each image is there so many times, (images,); once unless told otherwise."""
        counts = np.ones(self.num_images, int) if counts is None else counts
        totals = counts @ self._objects
        aps = [
            _average_precision(right * counts[images], counted * counts[images], total)
            for (right, images, counted), total in zip(self._classes, totals, strict=True)
            if total
        ]
        return float(np.mean(aps)) if aps else 0.0


def _matches(boxes: Tensor, objects: Tensor) -> np.ndarray:
    """(10, n) bool: of detections, the most confident first, which one is right at each IoU, as COCO decides it."""
    right = np.zeros((len(_IOUS), len(boxes)), bool)
    if not len(objects):
        return right
    overlap = box_iou(boxes, objects).numpy()
    for k, iou in enumerate(_IOUS):
        free = np.ones(len(objects), bool)
        for d in range(len(boxes)):
            candidates = np.where(free, overlap[d], -1.0)
            # Of equal ones COCO takes the last.
            best = len(candidates) - 1 - int(candidates[::-1].argmax())
            if candidates[best] >= min(iou, 1 - 1e-10):
                right[k, d], free[best] = True, False
    return right


def _inside(boxes: Tensor, crowds: Tensor) -> np.ndarray:
    """(n,), the largest share of each box that lies in a crowd."""
    if not len(crowds):
        return np.zeros(len(boxes))
    corners = (
        torch.maximum(boxes[:, None, :2], crowds[None, :, :2]),
        torch.minimum(boxes[:, None, 2:], crowds[None, :, 2:]),
    )
    common = (corners[1] - corners[0]).clamp(min=0).prod(2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-12)
    share: np.ndarray = (common / area[:, None]).amax(1).numpy()
    return share


def _average_precision(right: np.ndarray, seen: np.ndarray, total: int) -> float:
    """Mean over IoUs of the precision at 101 recalls. `right` and `seen` (10, D) by how often each counts."""
    if not seen.shape[1]:
        return 0.0
    hits = right.cumsum(1)
    precision = hits / np.maximum(seen.cumsum(1), 1)
    # The best that is still to come.
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    found = []
    for recall, p in zip(hits / total, precision, strict=True):
        at = np.searchsorted(recall, _RECALLS, side="left")
        found.append(np.where(at < len(p), p[np.minimum(at, len(p) - 1)], 0.0).mean())
    return float(np.mean(found))


def difference(a: Matched, b: Matched, samples: int | None = None, seed: int = 0) -> Difference:
    """Of two networks on the same images; the interval is a percentile one (Efron 1979), paired.

    Without `samples` there are 1,000, of very many detections as many fewer, 100 at least.
    """
    rng, n = np.random.default_rng(seed), a.num_images
    samples = samples or min(SAMPLES, max(_FEWEST, int(SAMPLES * _MANY / max(a.num_detections, b.num_detections, 1))))
    drawn = (np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(samples))
    found = [a.map50_95(counts) - b.map50_95(counts) for counts in drawn]
    low, high = np.quantile(found, [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2])
    return Difference(a.map50_95() - b.map50_95(), float(low), float(high))


def objects_in_pixels(labels: np.ndarray, shape: tuple[int, int]) -> Tensor:
    """`labels` (n, 5) as `data.Item` has them, of an image of (height, width): class, x1, y1, x2, y2 in its pixels."""
    rows = torch.from_numpy(labels).double()
    height, width = shape
    centre, half = rows[:, 1:3], rows[:, 3:5] / 2
    corners = torch.cat((centre - half, centre + half), 1) * rows.new_tensor((width, height, width, height))
    return torch.cat((rows[:, :1], corners), 1)
