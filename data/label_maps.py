"""Label maps, a class for every pixel: read from PNG files, or painted from the outlines of objects.

A PNG has one number a pixel (grey, or the index of a palette): 0 to nc - 1 is a class, 255 none. Where a data.yaml has
`values`, {number: class}, that says what numbers mean, and all others are none. A map is looked for in place of its
image's folder:

    images/a/b.jpg                   masks/a/b.png, labels/a/b.png or annotations/a/b.png
    JPEGImages/b.jpg                 SegmentationClass/b.png (Pascal VOC, lists of ImageSets/Segmentation/)
    leftImg8bit/…/b_leftImg8bit.png  gtFine/…/b_gtFine_labelTrainIds.png (Cityscapes)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from models.documents import is_file
from models.errors import InputError
from models.semantic import IGNORED as NONE
from models.text import read_text

from . import format_yolo
from .detect_index import NOTHING_IGNORED, Outlines, count, leave_out, shape_or_reason
from .images import in_threads, read_rgb
from .outline import paint
from .places import child
from .report import Report

if TYPE_CHECKING:
    from .detect import ImageSource
    from .formats import Spec

BACKGROUND = "background"  # the class of pixels that no object is at
_RAM_BYTES = 1 << 30  # a split's maps are kept up to here
_FOLDERS = {
    "images": ("masks", "labels", "annotations"),
    "jpegimages": ("SegmentationClass",),
    "leftimg8bit": ("gtFine",),
}
# Pascal VOC's, in the order of their numbers.
_VOC = (
    *(BACKGROUND, "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


class _Maps:
    """The images of a split with a label map each. See `detect.ImageSource`."""

    def __init__(self, shapes: Sequence[tuple[int, int]]) -> None:
        self._kept: dict[int, np.ndarray] = {}
        self._keeps = sum(h * w for h, w in shapes) <= _RAM_BYTES

    def label_map(self, i: int) -> np.ndarray:
        """uint8 (height, width): of each pixel the class, or `NONE`."""
        if (found := self._kept.get(i)) is None:
            found = self._map(i)
            if self._keeps:
                self._kept[i] = found
        return found

    def _map(self, i: int) -> np.ndarray:
        raise NotImplementedError


class Painted(_Maps):
    """Another source's images; a map is painted from its objects' outlines, each over those before it.

    background: the class of all other pixels. Crowds are of none.
    """

    def __init__(self, source: ImageSource, background: int) -> None:
        super().__init__(source.shapes)
        self._source, self._background = source, background

    @property
    def report(self) -> Report:
        return self._source.report

    @property
    def shapes(self) -> Sequence[tuple[int, int]]:
        return self._source.shapes

    @property
    def labels(self) -> Sequence[np.ndarray]:
        return self._source.labels

    @property
    def ignored(self) -> Sequence[np.ndarray]:
        return self._source.ignored

    @property
    def outlines(self) -> Sequence[Outlines]:
        return self._source.outlines

    def name(self, i: int) -> str:
        return self._source.name(i)

    def read(self, i: int) -> np.ndarray:
        return self._source.read(i)

    def drop(self, bad: dict[int, str]) -> None:
        self._source.drop(bad)
        self._kept.clear()

    def _map(self, i: int) -> np.ndarray:
        height, width = size = self.shapes[i]
        found, frame = np.full(size, self._background, dtype=np.uint8), (0, 0, width, height)
        of = self.outlines[i]
        labels = [(NONE, outline) for outline in of.ignored]
        labels += [(int(row[0]), outline) for row, outline in zip(self.labels[i], of.objects, strict=True)]
        for label, outline in labels:
            if outline is not None:
                mask, left, top = paint(outline, frame, size, frame)
                found[top : top + mask.shape[0], left : left + mask.shape[1]][mask > 0] = label
        return found


class _Files(_Maps):
    """Images and the PNG files of their maps; opened once, to see what is in them."""

    def __init__(self, paths: Sequence[Path], maps: Sequence[Path], meaning: _Meaning, report: Report) -> None:
        shapes = in_threads(shape_or_reason, paths)
        bad = [(path, shape) for path, shape in zip(paths, shapes, strict=True) if isinstance(shape, str)]
        leave_out(report, bad, len(paths))
        good = [i for i, shape in enumerate(shapes) if not isinstance(shape, str)]
        self.paths, self.maps = [paths[i] for i in good], [maps[i] for i in good]
        self.shapes: list[Any] = [shapes[i] for i in good]
        super().__init__(self.shapes)
        self._meaning, self.report = meaning, report
        seen = in_threads(self._seen, range(len(good)))
        meaning.check([values for values, _ in seen], self.maps)
        self.labels = [
            np.array([[c, 0.5, 0.5, 1, 1] for c in classes], np.float32).reshape(-1, 5) for _, classes in seen
        ]
        self.ignored = [NOTHING_IGNORED] * len(good)
        self.outlines = [Outlines([], [])] * len(good)
        report.counted = "regions"
        count(report, self.labels)

    def name(self, i: int) -> str:
        return str(self.paths[i])

    def read(self, i: int) -> np.ndarray:
        return read_rgb(self.paths[i])

    def drop(self, bad: dict[int, str]) -> None:
        leave_out(self.report, [(self.paths[i], why) for i, why in bad.items()], len(self.paths))
        keep = [i for i in range(len(self.paths)) if i not in bad]
        for name in ("paths", "maps", "shapes", "labels", "ignored", "outlines"):
            setattr(self, name, [getattr(self, name)[i] for i in keep])
        self._kept.clear()
        count(self.report, self.labels)

    def _map(self, i: int) -> np.ndarray:
        return self._meaning.of(_numbers(self.maps[i], self.shapes[i]), self.maps[i])

    def _seen(self, i: int) -> tuple[list[int], list[int]]:
        """The numbers in a map, and the classes."""
        numbers = _numbers(self.maps[i], self.shapes[i])
        classes = np.unique(self._meaning.of(numbers, self.maps[i]))
        return np.unique(numbers).tolist(), [int(c) for c in classes if c != NONE]


class _Meaning:
    """What the numbers of maps mean."""

    def __init__(self, names: Sequence[str], values: Any, where: str) -> None:
        self._nc, self._told, self._where = len(names), values is not None, where
        self._class = np.full(256, NONE, dtype=np.uint8)
        if values is None:
            self._class[: len(names)] = range(len(names))
            return
        number = {name: i for i, name in enumerate(names)}
        right = f"{where}: values should be {{number of a pixel: class}}, 0 to 255 to 0 to {len(names) - 1} or a name"
        if not isinstance(values, Mapping) or not values:
            raise InputError(f"{right}; got {values!r}")
        for value, label in values.items():
            label = number.get(label, label)
            if not (type(value) is int and 0 <= value < 256 and type(label) is int and 0 <= label < len(names)):
                raise InputError(f"{right}; got {value!r}: {label!r}")
            self._class[value] = label

    def of(self, numbers: np.ndarray, file: Path) -> np.ndarray:
        """Numbers to classes."""
        if not self._told:
            bad = numbers[(numbers >= self._nc) & (numbers != NONE)]
            if bad.size:
                raise InputError(
                    f"{file}: a pixel is {int(bad.min())}, but classes are 0 to {self._nc - 1} (nc={self._nc}), and "
                    f"{NONE} is none; right would be values: {{number: class}} in {self._where}"
                )
        return self._class[numbers]

    def check(self, seen: Sequence[list[int]], files: Sequence[Path]) -> None:
        """`InputError` if masks of one class, 0 and 255, are read as label maps."""
        if not self._told and {v for values in seen for v in values} == {0, NONE}:
            raise InputError(
                f"{files[0]}: all maps hold 0 and {NONE} alone, and {NONE} is no class; right would be values: "
                f"{{0: 0, {NONE}: 1}} in {self._where}"
            )


def read_maps(spec: Spec, splits: Sequence[str]) -> Any:
    """Class names and the splits of a set whose classes are in PNG files; None of another set."""
    names = spec.names
    reports = {split: Report(split) for split in splits}
    if spec.format == "voc":
        if (maps := child(spec.root, "SegmentationClass")) is None:
            return None
        listed = {split: _of_voc(spec, split, maps) for split in splits}
        names = names or _VOC
    elif spec.format == "yolo":
        listed = {}
        for split in splits:
            images = format_yolo.images(spec.entries[split], spec.root, f"{spec.where}: {split}", reports[split])
            listed[split] = [(image, next(filter(is_file, map_places(image)), None)) for image in images]
        if not any(found for pairs in listed.values() for _, found in pairs):
            return None
    else:
        return None
    if names is None:
        raise InputError(f"{spec.where}: needs names, a list of the classes")
    meaning = _Meaning(names, spec.options.get("values"), spec.where)
    found = {}
    for split, pairs in listed.items():
        for image, file in pairs:
            if file is None or not is_file(file):
                looked = file or next(map_places(image))
                raise InputError(f"{spec.where}: {split}: {image} has no label map; looked for first: {looked}")
        found[split] = _Files([i for i, _ in pairs], [m for _, m in pairs], meaning, reports[split])  # type: ignore[misc]
    return names, found


def map_places(image: Path) -> Iterator[Path]:
    """Where the label map of an image may be, likeliest first."""
    parts = image.parts
    for i in range(len(parts) - 2, -1, -1):
        for folder in _FOLDERS.get(parts[i].lower(), ()):
            stem = image.stem.replace("_leftImg8bit", "_gtFine_labelTrainIds")
            yield Path(*parts[:i], folder, *parts[i + 1 : -1], f"{stem}.png")
        if parts[i].lower() in _FOLDERS:
            return
    yield image.parent.parent / "masks" / f"{image.stem}.png"


def _of_voc(spec: Spec, split: str, maps: Path) -> list[tuple[Path, Path | None]]:
    # A list that a data.yaml names; of an unpacked folder the one that is called as the split.
    name = entry.removesuffix(".txt") if isinstance(entry := spec.entries[split], str) else split
    listing = spec.root / "ImageSets" / "Segmentation" / f"{name}.txt"
    if not is_file(listing):
        raise InputError(f"{spec.where}: {split}: right would be a list {listing}, as Pascal VOC has it")
    ids = read_text(listing).split()
    if not ids:
        raise InputError(f"{listing}: lists no images")
    images = child(spec.root, "JPEGImages") or spec.root / "JPEGImages"
    return [(images / f"{i}.jpg", maps / f"{i}.png") for i in ids]


def paste(labels: np.ndarray, frame: Sequence[float], onto: np.ndarray, box: Sequence[float]) -> None:
    """Write an image's label map into a canvas's, by the nearest pixel.

    Parameters
    ----------
    frame
        Where the image's edges lie on the canvas, x1, y1, x2, y2 in its pixels; x1 > x2 where it is mirrored.
    onto
        uint8 (height, width).
    box
        The part of the canvas that shows the image: pixels whose centre is within it are written.
    """
    places = []
    for axis, (number, size) in enumerate(zip(labels.shape[::-1], onto.shape[::-1], strict=True)):
        start, end = frame[axis], frame[axis + 2]
        first, last = (min(max(ceil(box[axis + k] - 0.5), 0), size) for k in (0, 2))
        centres = np.arange(first, max(last, first)) + 0.5
        source = np.floor((centres - start) / (end - start) * number).astype(int).clip(0, number - 1)
        places.append((slice(first, max(last, first)), source))
    (columns, x), (rows, y) = places
    onto[rows, columns] = labels[y[:, None], x]


def _numbers(file: Path, shape: tuple[int, int]) -> np.ndarray:
    """The numbers of a map's pixels, uint8 (height, width)."""
    try:
        with Image.open(file) as image:
            found, mode = np.asarray(image), image.mode
    except Exception as error:  # Pillow's plug-ins raise nearly anything on a bad file
        raise InputError(f"{file}: cannot be read as a label map: {error}") from None
    if found.ndim != 2:
        raise InputError(f"{file}: has colours ({mode}); right would be a PNG with one number a pixel, grey or palette")
    if found.shape != tuple(shape):
        raise InputError(f"{file}: is {found.shape[1]} x {found.shape[0]}, but its image {shape[1]} x {shape[0]}")
    if found.max(initial=0) > NONE or found.min(initial=0) < 0:
        raise InputError(f"{file}: a pixel is {int(found.max())}; right would be 0 to {NONE}")
    return found.astype(np.uint8)
