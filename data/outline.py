"""Outlines of objects, as polygons or pixels, and the masks that are made of them.

An outline knows its image as 0 to 1, so that it follows whatever an image goes through: what is said of it is where the
image's edges have come to lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor
from typing import Any, NamedTuple

import numpy as np

from models import limits

MASK_STRIDE = 4  # pixels of the network's input to one of a mask, a side: YOLOv5's prototypes
_FINER = 4  # masks are painted so much finer, a side; a pixel is the object's where half of it is
_FAR = 1e6  # pixels from an image's corner that no outline goes
_BITS = 4  # of fractions of a pixel, for OpenCV


class Polygons(NamedTuple):
    """One object, which may be of several parts: (k, 2) corners x, y of each, as shares of the image."""

    parts: tuple[np.ndarray, ...]

    def scaled(self, x: float, y: float) -> Polygons:
        return Polygons(tuple(part * np.array([x, y]) for part in self.parts))


class Pixels(NamedTuple):
    """One object: uint8 (h, w), 0 or 1, and where these lie: x1, y1, x2, y2 as shares of the image."""

    mask: np.ndarray
    box: tuple[float, float, float, float]

    def scaled(self, x: float, y: float) -> Pixels:
        x1, y1, x2, y2 = self.box
        return Pixels(self.mask, (x1 * x, y1 * y, x2 * x, y2 * y))


Outline = Polygons | Pixels


class Crop(NamedTuple):
    """A mask of a part of an image: uint8 (h, w), 0 or 1, and the pixel that its first one is."""

    mask: np.ndarray
    left: int
    top: int

    def on(self, size: Sequence[int]) -> np.ndarray:
        """The mask of the whole image, of (height, width)."""
        whole = np.zeros(tuple(size), dtype=np.uint8)
        h, w = self.mask.shape
        whole[self.top : self.top + h, self.left : self.left + w] = self.mask
        return whole


def paint(outline: Outline, frame: Sequence[float], size: Sequence[int], box: Sequence[float]) -> Crop:
    """The mask of an object.

    Parameters
    ----------
    frame
        Where the edges of its image lie, x1, y1, x2, y2 in pixels of the mask; x1 > x2 where it is mirrored.
    size
        (height, width) of the mask.
    box
        What is seen of the object, in the same pixels.
    """
    height, width = size
    left, top = max(floor(box[0]), 0), max(floor(box[1]), 0)
    right, bottom = min(ceil(box[2]), width), min(ceil(box[3]), height)
    if right <= left or bottom <= top:
        return Crop(np.zeros((0, 0), dtype=np.uint8), 0, 0)
    shape = (bottom - top) * _FINER, (right - left) * _FINER
    start, end = (np.array(frame[i : i + 2], dtype=np.float64) for i in (0, 2))
    origin = np.array([left, top])

    def placed(shares: np.ndarray) -> np.ndarray:
        """(k, 2) shares of the image as places on the fine canvas."""
        return (start + shares * (end - start) - origin) * _FINER

    import cv2  # not for what only reads outlines, which answers at once

    canvas = np.zeros(shape, dtype=np.uint8)
    if isinstance(outline, Polygons):
        for part in outline.parts:  # one by one: where two overlap is the object's, too
            # OpenCV counts from the centres of pixels. Far outside it does not matter how far.
            corners = ((placed(part) - 0.5).clip(-(1 << 20), 1 << 20) * (1 << _BITS)).round().astype(np.int32)
            cv2.fillPoly(canvas, [corners], 1, shift=_BITS)
    else:
        h, w = outline.mask.shape
        first, last = placed(np.array([outline.box[:2], outline.box[2:]]))
        scale = (last - first) / [w, h]
        offset = first + (scale - 1) / 2
        matrix = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]])
        drawn = cv2.warpAffine(outline.mask.astype(np.float32), matrix, shape[::-1])
        canvas = (drawn >= 0.5).astype(np.uint8)
    x1, y1, x2, y2 = (max(round((box[i] - origin[i % 2]) * _FINER), 0) for i in range(4))
    canvas[:y1], canvas[y2:], canvas[:, :x1], canvas[:, x2:] = 0, 0, 0, 0
    share = cv2.resize(canvas.astype(np.float32), (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    return Crop((share >= 0.5).astype(np.uint8), left, top)


def run_lengths(crop: Crop, size: Sequence[int]) -> dict[str, Any]:
    """A mask as COCO's uncompressed RLE: lengths of the runs of 0 and 1 in turn, down the columns."""
    height, width = size
    h, w = crop.mask.shape
    columns = np.zeros((height, w), dtype=np.uint8)  # those beside the crop hold nothing
    columns[crop.top : crop.top + h] = crop.mask
    changes = np.flatnonzero(np.diff(columns.T.reshape(-1), prepend=0, append=0)) + crop.left * height
    counts = np.diff(np.concatenate([[0], changes, [height * width]])).tolist()
    return {"size": [height, width], "counts": counts if counts[-1] else counts[:-1]}


def segmentation(outline: Outline, size: Sequence[int]) -> Any:
    """An outline as a COCO annotation of an image of (height, width) has it: polygons in pixels, or RLE."""
    height, width = size
    if isinstance(outline, Polygons):
        return [(part * [width, height]).reshape(-1).tolist() for part in outline.parts]
    x1, y1, x2, y2 = (v * n for v, n in zip(outline.box, (width, height) * 2, strict=True))
    return run_lengths(paint(outline, (0, 0, width, height), size, (x1, y1, x2, y2)), size)


def of_coco(written: Any) -> Outline | None:
    """The ``segmentation`` of a COCO annotation, in pixels; None where it is no outline.

    Polygons are lists of x, y, x, y, …; RLE is ``{size: [height, width], counts: …}``, the counts a list or compressed
    as text.
    """
    if isinstance(written, list):
        # Some sets have parts of two corners beside others.
        parts = [p for p in written if isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0]
        if not parts or not all(type(v) in (int, float) and -_FAR < v < _FAR for p in parts for v in p):
            return None
        return Polygons(tuple(np.array(p, dtype=np.float64).reshape(-1, 2) for p in parts))
    if not isinstance(written, dict):
        return None
    size: Any = written.get("size")
    counts: Any = written.get("counts")
    if not isinstance(size, list) or len(size) != 2 or not all(type(n) is int and 0 < n <= limits.SIDE for n in size):
        return None
    if isinstance(counts, str):
        counts = _counts(counts)
    height, width = size
    whole = isinstance(counts, list) and all(type(n) is int and 0 <= n <= height * width for n in counts)
    if not whole or sum(counts) != height * width:
        return None
    mask = np.repeat((np.arange(len(counts)) % 2).astype(np.uint8), counts).reshape(width, height).T
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(ys):
        return None
    x1, y1, x2, y2 = int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1
    return Pixels(np.ascontiguousarray(mask[y1:y2, x1:x2]), (x1, y1, x2, y2))


def _counts(text: str) -> list[int] | None:
    """COCO's compressed counts: each as groups of 5 bits and a sixth that says there are more, lowest first, in
    printable letters; from the third on as the difference from the one before last."""
    counts: list[int] = []
    value = place = 0
    for letter in text:
        group = ord(letter) - 48
        if not 0 <= group < 64 or place > 6:
            return None
        value |= (group & 31) << 5 * place
        place += 1
        if group & 32:
            continue
        if group & 16:
            value -= 1 << 5 * place
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = place = 0
    return None if place else counts


def polygons_of(crop: Crop) -> list[np.ndarray]:
    """The outer contours of a mask, (k, 2) x, y in pixels of the image, the largest first; holes are not told.

    They run a quarter of a pixel within the mask.
    """
    import cv2

    # OpenCV's contours go through the centres of pixels: of such that are half as large, a line of pixels has an area.
    fine = np.pad(crop.mask.repeat(2, 0).repeat(2, 1), 1)
    found, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    origin = np.array([crop.left, crop.top])
    return [(contour[:, 0] - 0.5) / 2 + origin for contour in sorted(found, key=cv2.contourArea, reverse=True)]
