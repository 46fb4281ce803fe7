"""Letterbox: an image scaled to fit a square, centred, the rest grey; and the way back for boxes."""

from math import ceil
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import torch
from torch import Tensor

GREY = 114  # YOLOv5's padding

# The loader's workers are the threads; OpenCV's own would only fight with them for the cores.
cv2.setNumThreads(0)

Boxes = TypeVar("Boxes", np.ndarray, Tensor)


class Letterbox(NamedTuple):
    """How an image lies on its canvas. Boxes are (…, 4) x1, y1, x2, y2 in pixels; nothing is clipped."""

    shape: tuple[int, int]  # (height, width) of the image
    size: tuple[int, int]  # (height, width) of the canvas
    ratio: tuple[float, float]  # canvas pixels per image pixel, in x and y: they differ by rounding
    pad: tuple[int, int]  # left, top

    def to_canvas(self, boxes: Boxes) -> Boxes:
        out = boxes * 1.0
        for axis in (0, 1):
            out[..., axis::2] = out[..., axis::2] * self.ratio[axis] + self.pad[axis]
        return out

    def to_image(self, boxes: Boxes) -> Boxes:
        out = boxes * 1.0
        for axis in (0, 1):
            out[..., axis::2] = (out[..., axis::2] - self.pad[axis]) / self.ratio[axis]
        return out


def fitted(shape: tuple[int, int], imgsz: int) -> tuple[int, int]:
    """(height, width) of an image scaled, up or down, so that its longer side is `imgsz`."""
    scale = imgsz / max(shape)
    return max(round(shape[0] * scale), 1), max(round(shape[1] * scale), 1)


def fit(image: np.ndarray, imgsz: int) -> np.ndarray:
    """The image (h, w, 3) with its longer side scaled to `imgsz`."""
    height, width = fitted(image.shape[:2], imgsz)  # type: ignore[arg-type]
    if image.shape[:2] == (height, width):
        return image
    method = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def letterbox(image: np.ndarray, imgsz: int, rect: bool = False, stride: int = 32) -> tuple[np.ndarray, Letterbox]:
    """Fits uint8 (h, w, 3) on a canvas of `imgsz` x `imgsz`, or with `rect` on the smallest of multiples of `stride`.

    Small images are scaled up, too.
    """
    height, width = image.shape[:2]
    return pad(fit(image, imgsz), (height, width), imgsz, rect, stride)


def pad(
    scaled: np.ndarray, shape: tuple[int, int], imgsz: int, rect: bool = False, stride: int = 32
) -> tuple[np.ndarray, Letterbox]:
    """The second half of `letterbox`, for an image already fitted. shape: (height, width) before that."""
    h, w = scaled.shape[:2]
    size = (ceil(h / stride) * stride, ceil(w / stride) * stride) if rect else (imgsz, imgsz)
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    canvas = np.full((*size, 3), GREY, dtype=np.uint8)
    canvas[top : top + h, left : left + w] = scaled
    return canvas, Letterbox(shape, size, (w / shape[1], h / shape[0]), (left, top))


def to_tensor(image: np.ndarray) -> Tensor:
    """uint8 (h, w, 3) to a uint8 tensor (3, h, w)."""
    return torch.from_numpy(np.stack(cv2.split(image)))
