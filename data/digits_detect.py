"""digits-detect and digits-segment: scikit-learn's handwritten digits on textured canvases, drawn on the fly.

A detection set that needs no download: real handwriting, exact boxes (and masks), as many images as wanted. Training
and validation images are drawn with different digits; with a test split, which is optional, half of the latter's are
its.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from sklearn.datasets import load_digits

from models.errors import InputError

from .detect_index import NOTHING_IGNORED, Outlines
from .outline import Outline, Pixels
from .report import Report
from .split import stratified

_SIDES = (0.12, 0.40)  # of a digit's 8x8 pattern, as a share of the canvas
_MAX_DIGITS = 6  # an image
_OVERLAP = 0.05  # of the smaller box
_TRIES = 20
_PARTS = {"train": 0, "val": 1, "test": 2}
_WITHOUT_TEST, _WITH_TEST = (0.8, 0.2), (0.8, 0.1, 0.1)
_SEED = 0  # of the images: results of runs with different seeds are to be compared
_MIN_CANVAS = 64
_INK = 0.2  # a box holds every pixel with more ink than this


CLASS_NAMES = tuple(str(digit) for digit in range(10))


def digit_images(
    where: str, splits: dict[str, Any], canvas: Any, format: str = "digits-detect"
) -> dict[str, "DigitImages"]:
    """The splits of a digits-detect YAML. splits: how many images each has; canvas: side in pixels.

    format: digits-detect, or digits-segment, whose digits have outlines.
    Raises InputError, naming `where`, for what is no number.
    """
    if not isinstance(canvas, int) or canvas < _MIN_CANVAS:
        raise InputError(f"{where}: canvas is {canvas!r}, should be {_MIN_CANVAS} pixels or more")
    for split, num_images in splits.items():
        if split not in _PARTS or not isinstance(num_images, int) or num_images < 1:
            raise InputError(f"{where}: {split} is {num_images!r}; give train, val and test a number of images")
    shares = _WITH_TEST if "test" in splits else _WITHOUT_TEST
    return {split: _drawn(split, num_images, canvas, shares, format) for split, num_images in splits.items()}


class DigitImages:
    """Image `i` is a pure function of (split, i), the same for every run's seed. See `detect.ImageSource`.

    shares: of the handwritten digits that training, validation and, if any, test images are drawn with.
    """

    def __init__(
        self,
        split: str,
        num_images: int,
        canvas: int,
        shares: tuple[float, ...] = _WITHOUT_TEST,
        format: str = "digits-detect",
    ):
        bunch = load_digits()
        own = stratified(bunch.target, shares, _SEED)[_PARTS[split]]
        self._patterns = (bunch.images[own] / 16).astype(np.float32)
        self._digits = bunch.target[own]
        self._split, self._canvas, self._seed, self._format = split, canvas, (_SEED, _PARTS[split]), format
        self.shapes = [(canvas, canvas)] * num_images
        # One sheet for all, cut at random: drawing noise anew would take longer than all the rest of an image.
        sheet = np.random.default_rng(self._seed).normal(0, 4, (2 * canvas, 2 * canvas, 1))
        self._grain = np.repeat(sheet.astype(np.float32), 3, axis=2)
        self._layouts = [self._layout(i) for i in range(num_images)]
        self.labels = [labels for _, labels in self._layouts]
        self.ignored = [NOTHING_IGNORED] * num_images
        outlined = format == "digits-segment"
        self.outlines = [
            Outlines([self._outline(*digit) if outlined else None for digit in placed], [])
            for placed, _ in self._layouts
        ]
        boxes = sum(map(len, self.labels))
        self.report = Report(split, images=num_images, boxes=boxes)

    def name(self, i: int) -> str:
        return f"{self._format}/{self._split}/{i}"

    def drop(self, bad: dict[int, str]) -> None:
        raise AssertionError("a drawn image is always readable")

    def read(self, i: int) -> np.ndarray:
        """uint8 (canvas, canvas, 3) RGB."""
        rng = np.random.default_rng([*self._seed, i, 1])
        side = self._canvas
        paper = rng.uniform(60, 195, 3).astype(np.float32)
        coarse = paper + rng.normal(0, 14, (8, 8, 3)).astype(np.float32)
        image: np.ndarray = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
        y, x = rng.integers(0, side, 2)
        image += self._grain[y : y + side, x : x + side]
        for k, px, left, top in self._layouts[i][0]:
            ink = _pattern(self._patterns[k], px)[..., None]
            # Far from the paper's brightness, or the digit could not be told from it.
            shade = rng.uniform(0, 51, 3).astype(np.float32) + (0 if paper.mean() > 127 else 204)
            spot = image[top : top + px, left : left + px]
            spot += ink * (shade - spot)
        return image.clip(0, 255).astype(np.uint8)

    def _outline(self, k: int, px: int, left: int, top: int) -> Outline:
        """The pixels of a digit that hold ink."""
        inked = _pattern(self._patterns[k], px) > _INK
        ys, xs = np.nonzero(inked)
        x1, y1, x2, y2 = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
        box = (left + x1, top + y1, left + x2, top + y2)
        return Pixels(inked[y1:y2, x1:x2].astype(np.uint8), box).scaled(1 / self._canvas, 1 / self._canvas)

    def _layout(self, i: int) -> tuple[list[tuple[int, int, int, int]], np.ndarray]:
        """What lies where, as (pattern, side, left, top) in pixels, and its labels, float32 (n, 5)."""
        rng = np.random.default_rng([*self._seed, i, 0])
        side = self._canvas
        placed: list[tuple[int, int, int, int]] = []
        boxes: list[np.ndarray] = []
        for _ in range(int(rng.integers(1, _MAX_DIGITS + 1))):
            k = int(rng.integers(len(self._patterns)))
            px = round(np.exp(rng.uniform(*np.log(_SIDES))) * side)  # as many small as large ones, by ratio
            ys, xs = np.nonzero(_pattern(self._patterns[k], px) > _INK)
            tight = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            for _ in range(_TRIES):
                left, top = (int(v) for v in rng.integers(0, side - px + 1, 2))
                box = tight + np.array([left, top, left, top])
                if all(_overlap(box, other) <= _OVERLAP for other in boxes):
                    placed.append((k, px, left, top))
                    boxes.append(box)
                    break
        corners = np.array(boxes, dtype=np.float64) / side
        classes = np.array([self._digits[k] for k, *_ in placed], dtype=np.float64)
        rows = [classes[:, None], (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]]
        return placed, np.concatenate(rows, 1).astype(np.float32)


# A search opens its data several times; what lies where is the same each time, and is never changed.
_drawn = cache(DigitImages)


def _pattern(pattern: np.ndarray, px: int) -> np.ndarray:
    """Ink from 0 to 1, (px, px)."""
    return cv2.resize(pattern, (px, px), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _overlap(a: np.ndarray, b: np.ndarray) -> Any:
    """Intersection over the smaller box."""
    w, h = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    smaller = min(np.prod(a[2:] - a[:2]), np.prod(b[2:] - b[:2]))
    return max(w, 0) * max(h, 0) / smaller
