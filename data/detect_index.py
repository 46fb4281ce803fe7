"""From annotations of any format to an index of readable images with clean boxes."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from models.errors import InputError

from .images import UnreadableImageError, image_shape, in_threads
from .outline import Outline
from .report import Report

_log = logging.getLogger(__name__)

# Where nothing says what to validate on, one image of so many is held out.
HELD_OUT = 5

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 as edges


class Ignored(NamedTuple):
    """A region where detections of a class count neither as right nor as wrong.

    crowd: a group of objects (COCO), in which any number of detections may lie; else one object (VOC's difficult ones).
    """

    label: int
    box: Box
    crowd: bool
    outline: Outline | None = None


NOTHING_IGNORED = np.zeros((0, 6), dtype=np.float32)


@dataclass(frozen=True)
class Record:
    """One annotated image as a format has it: boxes may lie outside, repeat or have no area."""

    path: Path
    classes: list[int]
    boxes: list[Box]  # finite
    in_pixels: bool  # else shares of the image's width and height
    ignored: list[Ignored] = field(default_factory=list)  # in the same units
    outlines: list[Outline | None] = field(default_factory=list)  # of every box, where they are asked for


class Outlines(NamedTuple):
    """Of one image: those of its labels, and of what is ignored in it."""

    objects: list[Outline | None]
    ignored: list[Outline | None]


@dataclass
class Index:
    """Readable images of one split.

    labels: of each image float32 (n, 5): class, centre x, y, width, height, normalised.
    ignored: of each image float32 (k, 6): class, x1, y1, x2, y2 in its pixels, whether it is a crowd.
    outlines: of each image those of its labels and of what is ignored, None where a box is all there is.
    """

    paths: list[Path]
    shapes: list[tuple[int, int]]  # (height, width)
    labels: list[np.ndarray]
    ignored: list[np.ndarray]
    report: Report
    outlines: list[Outlines] = field(default_factory=list)

    def drop(self, bad: dict[int, str]) -> None:
        """Takes images out, by position and with the reason. Raises InputError if more than half were bad."""
        leave_out(self.report, [(self.paths[i], why) for i, why in bad.items()], len(self.paths))
        keep = [i for i in range(len(self.paths)) if i not in bad]
        self.paths = [self.paths[i] for i in keep]
        self.shapes = [self.shapes[i] for i in keep]
        self.labels = [self.labels[i] for i in keep]
        self.ignored = [self.ignored[i] for i in keep]
        self.outlines = [self.outlines[i] for i in keep]
        count(self.report, self.labels)


def build(records: list[Record], report: Report) -> Index:
    """Verifies every image's header and cleans its boxes. Raises InputError if more than half are corrupt."""
    shapes = in_threads(shape_or_reason, [record.path for record in records])
    bad = [(r.path, shape) for r, shape in zip(records, shapes, strict=True) if isinstance(shape, str)]
    leave_out(report, bad, len(records))
    index = Index([], [], [], [], report)
    for record, shape in zip(records, shapes, strict=True):
        if isinstance(shape, str):
            continue
        index.paths.append(record.path)
        index.shapes.append(shape)
        labels, kept = clean(record, shape, report)
        regions, regions_kept = _regions(record, shape)
        index.labels.append(labels)
        index.ignored.append(regions)
        scale = (1 / shape[1], 1 / shape[0]) if record.in_pixels else (1.0, 1.0)
        of_objects = record.outlines or [None] * len(record.boxes)
        of_regions = [region.outline for region in record.ignored]
        index.outlines.append(
            Outlines(
                *(
                    [None if (o := all_[i]) is None else o.scaled(*scale) for i in which]
                    for all_, which in ((of_objects, kept), (of_regions, regions_kept))
                )
            )
        )
    count(report, index.labels)
    return index


def clean(record: Record, shape: tuple[int, int], report: Report) -> tuple[np.ndarray, np.ndarray]:
    """The record's boxes inside the image, once each: float32 (n, 5), see `Index`; and which they are.

    What is mended is counted.
    """
    height, width = shape
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.array(record.boxes, dtype=np.float64).reshape(-1, 4)
    classes = np.array(record.classes, dtype=np.float64)
    if record.in_pixels:
        boxes = boxes / size

    area = _has_area(boxes)
    report.zero_area += int((~area).sum())
    boxes, classes, kept = boxes[area], classes[area], np.flatnonzero(area)

    inside = boxes.clip(0, 1)
    visible = _has_area(inside)
    report.outside += int((~visible).sum())
    # Tools round outwards to whole pixels: up to a pixel beyond the edge is no mistake.
    report.clipped += int((np.abs(inside - boxes) * size > 1 + 1e-6).any(1)[visible].sum())
    inside, classes, kept = inside[visible], classes[visible], kept[visible]

    centre, side = (inside[:, :2] + inside[:, 2:]) / 2, inside[:, 2:] - inside[:, :2]
    labels = np.concatenate([classes[:, None], centre, side], 1).astype(np.float32)
    first = np.unique(labels, axis=0, return_index=True)[1]
    report.duplicates += len(labels) - len(first)
    first = np.sort(first)
    return labels[first], kept[first]


def _regions(record: Record, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The regions of the record that are ignored, inside the image, see `Index`; and which they are."""
    if not record.ignored:
        return NOTHING_IGNORED, np.zeros(0, dtype=int)
    height, width = shape
    size = np.array([width, height, width, height], dtype=np.float64)
    boxes = np.array([region.box for region in record.ignored], dtype=np.float64)
    inside = boxes.clip(0, size) if record.in_pixels else boxes.clip(0, 1) * size
    kinds = np.array([(region.label, region.crowd) for region in record.ignored], dtype=np.float64)
    seen = _has_area(inside)
    rows = np.concatenate([kinds[:, :1], inside, kinds[:, 1:]], 1)[seen].astype(np.float32)
    return rows, np.flatnonzero(seen)


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


def shape_or_reason(path: Path) -> tuple[int, int] | str:
    """(height, width) of an image, or why it cannot be read."""
    try:
        return image_shape(path)
    except UnreadableImageError as error:
        return str(error)
