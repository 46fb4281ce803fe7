"""Detections and labels as boxes, and masks, in a picture, and pictures on a sheet."""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.ops import box_convert

from data.outline import Crop
from models.files import atomic

from ..run.fonts import font_for, is_plain, say_once

_ACROSS = 4  # pictures of a sheet
_GOLDEN = 0.618034  # steps of the golden ratio around the colour circle never come close to an earlier one


def color_of(label: int) -> tuple[int, int, int]:
    """The colour of a class, RGB."""
    red, green, blue = colorsys.hsv_to_rgb((0.02 + label * _GOLDEN) % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_detections(
    image: np.ndarray, detections: Tensor, names: Mapping[int, str], confidences: bool = True
) -> np.ndarray:
    """A copy of uint8 (height, width, 3) RGB with a box, a name and, if asked for, a confidence for each detection.

    Parameters
    ----------
    detections
        (n, 6): x1, y1, x2, y2 in pixels, confidence, class; the first are drawn on top.
    """
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    side = sum(image.shape[:2]) / 2
    line = max(round(side / 320), 1)
    size = max(round(side / 40), 10)
    rows = detections.tolist()[::-1]
    for x1, y1, x2, y2, _, label in rows:
        draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=color_of(int(label)), width=line)
    for x1, y1, _, _, confidence, label in rows:
        color = color_of(int(label))
        name, font = lettering(names, int(label), size)
        text = f"{name} {confidence:.2f}" if confidences else name
        _, _, width, height = draw.textbbox((0, 0), text, font=font)
        # Above the box where there is room, else in it; never over the picture's right edge.
        left = max(min(x1, image.shape[1] - width - 2 * line), 0)
        top = y1 - height - line if y1 >= height + line else y1
        draw.rectangle((left, top, left + width + 2 * line, top + height + line), fill=color)
        luminance = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]  # ITU-R BT.601
        draw.text((left + line, top), text, fill="black" if luminance > 140 else "white", font=font)
    return np.asarray(picture)


def draw_masks(image: np.ndarray, detections: Tensor, masks: Sequence[Crop]) -> np.ndarray:
    """A copy of uint8 (height, width, 3) RGB in which the pixels of each mask are half of its class's colour.

    Parameters
    ----------
    detections, masks
        See `draw_detections`; one of each.
    """
    picture = image.copy()
    for row, (mask, left, top) in [*zip(detections.tolist(), masks, strict=True)][::-1]:
        place = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
        inside = mask.astype(bool)
        picture[place][inside] = image[place][inside] // 2 + np.array(color_of(int(row[5])), dtype=np.uint8) // 2
    return picture


def draw_label_map(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """A copy of uint8 (height, width, 3) RGB, each pixel half of its class's colour; classes uint8 (height, width)."""
    colors = np.array([color_of(label) for label in range(int(classes.max(initial=0)) + 1)], dtype=np.uint8)
    return image // 2 + colors[classes] // 2


def draw_labels(image: np.ndarray, labels: Tensor, names: Mapping[int, str]) -> np.ndarray:
    """A copy of uint8 (height, width, 3) RGB with a box and a name for each label.

    Parameters
    ----------
    labels
        (n, 5): class, centre x, y, width, height as shares of the image.
    """
    height, width = image.shape[:2]
    boxes = box_convert(labels[:, 1:], "cxcywh", "xyxy") * labels.new_tensor((width, height, width, height))
    return draw_detections(image, torch.cat((boxes, torch.ones(len(labels), 1), labels[:, :1]), 1), names, False)


def save_sheet(path: Path, pictures: Sequence[np.ndarray], tile: int) -> None:
    """Write pictures, uint8 (height, width, 3) RGB, in rows of four, each within `tile` x `tile` pixels."""
    sheet = Image.new("RGB", (min(_ACROSS, len(pictures)) * tile, -(-len(pictures) // _ACROSS) * tile), "white")
    for k, picture in enumerate(pictures):
        small = Image.fromarray(picture)
        small.thumbnail((tile, tile))
        sheet.paste(small, (k % _ACROSS * tile, k // _ACROSS * tile))
    quality: dict[str, Any] = {"quality": 90} if path.suffix.lower() in (".jpg", ".jpeg") else {}
    with atomic(path) as temporary:
        sheet.save(temporary, **quality)


def lettering(
    names: Mapping[int, str], label: int, size: int
) -> tuple[str, ImageFont.FreeTypeFont | ImageFont.ImageFont]:
    """A class's name as it can be drawn, and a font that has its letters."""
    name = names[label]
    if is_plain(name):
        return name, ImageFont.load_default(size)
    if (path := _font_of(name)) is not None:
        return name, _truetype(path, size)
    say_once([n for n in names.values() if not is_plain(n) and _font_of(n) is None], "classes are drawn by number")
    return f"class {label}", ImageFont.load_default(size)


def _font_of(name: str) -> str | None:
    return font_for(f"{name} 0123456789.")


@functools.cache
def _truetype(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)
