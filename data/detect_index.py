"""From annotations of any format to an index of readable images with clean boxes."""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from models.errors import InputError

from .images import UnreadableImageError, image_shape, in_threads
from .report import Report

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Record:
    """One annotated image as a format has it: boxes may lie outside, repeat or have no area."""

    path: Path
    classes: list[int]
    boxes: list[tuple[float, float, float, float]]  # x1, y1, x2, y2 as edges, finite
    in_pixels: bool  # else shares of the image's width and height


@dataclass
class Index:
    """Readable images of one split. `labels[i]`: float32 (n, 5), class, centre x, y, width, height, normalised."""

    paths: list[Path]
    shapes: list[tuple[int, int]]  # (height, width)
    labels: list[np.ndarray]
    report: Report

    def drop(self, bad: dict[int, str]) -> None:
        """Takes images out, by position and with the reason. Raises InputError if more than half were bad."""
        leave_out(self.report, [(self.paths[i], why) for i, why in bad.items()], len(self.paths))
        keep = [i for i in range(len(self.paths)) if i not in bad]
        self.paths = [self.paths[i] for i in keep]
        self.shapes = [self.shapes[i] for i in keep]
        self.labels = [self.labels[i] for i in keep]
        count(self.report, self.labels)


def build(records: list[Record], report: Report) -> Index:
    """Verifies every image's header and cleans its boxes. Raises InputError if more than half are corrupt."""
    shapes = in_threads(_shape_or_reason, [record.path for record in records])
    bad = [(r.path, shape) for r, shape in zip(records, shapes, strict=True) if isinstance(shape, str)]
    leave_out(report, bad, len(records))
    index = Index([], [], [], report)
    for record, shape in zip(records, shapes, strict=True):
        if isinstance(shape, str):
            continue
        index.paths.append(record.path)
        index.shapes.append(shape)
        index.labels.append(clean(record, shape, report))
    count(report, index.labels)
    return index


def clean(record: Record, shape: tuple[int, int], report: Report) -> np.ndarray:
    """The record's boxes inside the image, once each: float32 (n, 5), see `Index`. What is mended is counted."""
    height, width = shape
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.array(record.boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.array(record.classes, dtype=np.float64)
    if record.in_pixels:
        boxes = boxes / size

    area = _has_area(boxes)
    report.zero_area += int((~area).sum())
    boxes, classes = boxes[area], classes[area]

    inside = boxes.clip(0, 1)
    visible = _has_area(inside)
    report.outside += int((~visible).sum())
    # Tools round outwards to whole pixels: up to a pixel beyond the edge is no mistake.
    report.clipped += int((np.abs(inside - boxes) * size > 1 + 1e-6).any(1)[visible].sum())
    inside, classes = inside[visible], classes[visible]

    centre, side = (inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]
    labels = np.concatenate([classes[:, None], centre, side], 1).astype(np.float32)
    first = np.unique(labels, axis=0, return_index=True)[1]
    report.duplicates += len(labels) - len(first)
    return labels[np.sort(first)]


def leave_out(report: Report, bad: list[tuple[Path, str]], of: int) -> None:
    """Notes corrupt images and warns in one line. Raises InputError if more than half of `of` images are corrupt."""
    if not bad:
        return
    report.corrupt += [str(path) for path, _ in bad]
    named = ", ".join(f"{path} ({why})" for path, why in bad[:3]) + (", …" if len(bad) > 3 else "")
    if len(bad) * 2 > of:
        raise InputError(f"{report.split}: {len(bad)} of {of} images cannot be read, which is most of them: {named}")
    _log.warning("%s: left out %d of %d images that cannot be read: %s", report.split, len(bad), of, named)


def count(report: Report, labels: list[np.ndarray]) -> None:
    report.images = len(labels)
    report.boxes = sum(map(len, labels))
    report.background = sum(not len(rows) for rows in labels)


def _has_area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])


def _shape_or_reason(path: Path) -> tuple[int, int] | str:
    try:
        return image_shape(path)
    except UnreadableImageError as error:
        return str(error)
