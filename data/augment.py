"""Augmentation for detection: mosaic, scale and shift, mixup, colour, flips. Built on OpenCV.

torchvision.transforms.v2 does the same 4 to 20 times slower on a CPU (warp 10.7 ms for 0.5 ms, colour 5.8 ms for
0.4 ms at 320 pixels on one core), and would be slower than the training of a small detector.

Images are uint8 (h, w, 3) RGB. Labels are float64 (n, 5): class, x1, y1, x2, y2 as edges in pixels. Where masks are to
be painted, (n, 11): then come the edges of the whole image that the object is from, likewise, but neither cut nor put
in order (x1 > x2 is mirrored), and the numbers of image and object. Every function draws from the generator it is
given and from nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from models.errors import InputError

from .canvas import GREY

_MIN_SIDE = 2.0  # pixels
_MIN_AREA = 0.1  # of the whole box
_MAX_ASPECT = 100.0
FRAME = slice(5, 9)  # of labels: edges of the whole image


# Least and greatest value of each, and why it cannot be beyond.
_PROBABILITY = 0.0, 1.0, "a probability"
RANGES = {
    "hsv_h": (0.0, 1.0, "a share of the circle of hues, of which 1 is all"),
    "hsv_s": (0.0, 1.0, "multiplied by 1 - s to 1 + s, and no saturation is less than 0"),
    "hsv_v": (0.0, 1.0, "multiplied by 1 - v to 1 + v, and no brightness is less than 0"),
    "translate": (0.0, 1.0, "a share of the side: shifted by more, an image is never seen"),
    "scale": (0.0, 0.99, "scaled by 1 - s to 1 + s: by 0 an image has no size"),
    "fliplr": _PROBABILITY,
    "flipud": _PROBABILITY,
    "mosaic": _PROBABILITY,
    "mixup": _PROBABILITY,
}


@dataclass(frozen=True)
class Hyp:
    """Gains and probabilities, with YOLOv5's names and defaults; each within its range of `RANGES`."""

    hsv_h: float = 0.015  # hue, as a share of the circle
    hsv_s: float = 0.7  # saturation, share
    hsv_v: float = 0.4  # value, share
    translate: float = 0.1  # share of the side
    scale: float = 0.5  # scaled by 1 - scale to 1 + scale
    fliplr: float = 0.5  # probability
    flipud: float = 0.0  # probability
    mosaic: float = 1.0  # probability
    mixup: float = 0.0  # probability

    def __post_init__(self) -> None:
        for name, (least, greatest, why) in RANGES.items():
            if not least <= (value := getattr(self, name)) <= greatest:
                raise InputError(f"{name}={value:g}: right would be {least:g} to {greatest:g}; it is {why}")


def mosaic(
    images: Sequence[np.ndarray], labels: Sequence[np.ndarray], size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Four images around a random point of a canvas of twice `size` (arXiv:2004.10934, section 3.3).

    Images are no larger than `size`. Boxes are moved along, not clipped.
    """
    cx, cy = (int(v) for v in rng.uniform(size / 2, size * 3 / 2, 2))
    canvas = np.full((2 * size, 2 * size, 3), GREY, dtype=np.uint8)
    moved = []
    for corner, (image, rows) in enumerate(zip(images, labels, strict=True)):
        h, w = image.shape[:2]
        left = cx - w if corner % 2 == 0 else cx  # to the left of the point, or to its right
        top = cy - h if corner < 2 else cy
        x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + w, 2 * size), min(top + h, 2 * size)
        canvas[y1:y2, x1:x2] = image[y1 - top : y2 - top, x1 - left : x2 - left]
        moved.append(moved_by(rows, 1, (left, top)))
    return canvas, np.concatenate(moved)


def moved_by(labels: np.ndarray, scale: float, shift: Sequence[float]) -> np.ndarray:
    """Labels after x goes to scale * x + shift, likewise y."""
    labels = labels.copy()
    for axis in (0, 1):
        labels[:, 1 + axis : FRAME.stop : 2] = labels[:, 1 + axis : FRAME.stop : 2] * scale + shift[axis]
    return labels


def scale_and_shift(
    image: np.ndarray, labels: np.ndarray, size: int, hyp: Hyp, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Scales about the centre, shifts, and cuts out `size` x `size` around it. Boxes too small to learn are dropped."""
    h, w = image.shape[:2]
    scale = rng.uniform(1 - hyp.scale, 1 + hyp.scale)
    tx, ty = rng.uniform(0.5 - hyp.translate, 0.5 + hyp.translate, 2) * size - scale * np.array([w, h]) / 2
    # Edges go to scale * x + t. OpenCV counts from the centres of pixels, which lie half a pixel further on.
    half = (scale - 1) / 2
    matrix = np.array([[scale, 0, tx + half], [0, scale, ty + half]])
    image = cv2.warpAffine(image, matrix, (size, size), borderValue=(GREY, GREY, GREY))

    offset = np.array([tx, ty, tx, ty])
    whole = moved_by(labels, scale, (tx, ty))
    # What lay outside the canvas was never seen, and the shift does not bring it back.
    seen = labels[:, 1:5].clip(0, [w, h, w, h]) * scale + offset
    seen = seen.clip(0, size)
    keep = _worth_keeping(whole[:, 1:5], seen)
    whole[:, 1:5] = seen
    return image, whole[keep]


def mixup(
    a: np.ndarray, labels_a: np.ndarray, b: np.ndarray, labels_b: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Two images of one size blended, with the boxes of both (arXiv:1710.09412; Beta(32, 32) as YOLOv5)."""
    share = rng.beta(32.0, 32.0)
    return cv2.addWeighted(a, share, b, 1 - share, 0), np.concatenate([labels_a, labels_b])


def colour(image: np.ndarray, hyp: Hyp, rng: np.random.Generator) -> np.ndarray:
    """Multiplies hue, saturation and value by 1 ± gain."""
    h_gain, s_gain, v_gain = rng.uniform(-1, 1, 3) * [hyp.hsv_h, hyp.hsv_s, hyp.hsv_v] + 1
    levels = np.arange(256)
    tables = (levels * h_gain % 180, (levels * s_gain).clip(0, 255), (levels * v_gain).clip(0, 255))
    table = np.stack(tables, -1).astype(np.uint8)[None]  # OpenCV's hue runs from 0 to 179
    return cv2.cvtColor(cv2.LUT(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), table), cv2.COLOR_HSV2RGB)


def flip_left_right(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cv2.flip(image, 1), _mirrored(labels, 0, image.shape[1])


def flip_up_down(image: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return cv2.flip(image, 0), _mirrored(labels, 1, image.shape[0])


def _mirrored(labels: np.ndarray, axis: int, side: int) -> np.ndarray:
    """Labels after x (axis 0) or y goes to side - x."""
    labels, low, high = labels.copy(), 1 + axis, 3 + axis
    labels[:, [low, high]] = side - labels[:, [high, low]]
    labels[:, FRAME][:, axis::2] = side - labels[:, FRAME][:, axis::2]
    return labels


def _worth_keeping(whole: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Whether enough of a box is left. whole, seen: (n, 4) x1, y1, x2, y2 before and after it was cut."""
    w, h = seen[:, 2] - seen[:, 0], seen[:, 3] - seen[:, 1]
    area = (whole[:, 2] - whole[:, 0]) * (whole[:, 3] - whole[:, 1])
    aspect = np.maximum(w / h.clip(1e-9), h / w.clip(1e-9))
    return (w > _MIN_SIDE) & (h > _MIN_SIDE) & (w * h > _MIN_AREA * area) & (aspect < _MAX_ASPECT)
