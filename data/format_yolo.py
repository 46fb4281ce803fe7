"""YOLO: a text file for each image, a row a box: class, centre x, y, width, height, normalised.

`images/` in an image's path becomes `labels/` in its label file's (whatever the case; `JPEGImages/` as well), or the
label file lies beside the image. Rows with more numbers are polygons (class, x1, y1, x2, y2, …), as in the labels of
segmentation sets; the box is the one around them. Where the data.yaml has a `kpt_shape`, they are a box and its key
points.
"""

import glob
import logging
from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from models.documents import is_file
from models.errors import InputError
from models.text import read_text

from .detect_index import Box, Record
from .images import SUFFIXES, list_images, unread_in
from .outline import Outline, Polygons
from .places import PROJECT, Finder, direct, find, listed, local
from .report import Report

_log = logging.getLogger(__name__)
_FAR = 2.0  # a normalised coordinate beyond this is surely in pixels
_ROUNDED = 0.01  # so far outside of the image a polygon's point may lie; visibilities of key points are 1 and 2
# Folders of images, and those of their labels, as they may be spelled.
_LABELS = {
    "images": ("labels", "Labels", "LABELS"),
    "jpegimages": ("labels", "Labels", "LABELS"),
}
_TEXT = (".txt", ".TXT")
_SPLITS = ("train", "val", "test")  # in names of folders: valid, training, …


def records(
    entry: Any,
    root: Path,
    where: str,
    names: tuple[str, ...],
    report: Report,
    num_keypoints: int = 0,
    outlines: bool = False,
) -> list[Record]:
    """The images of a split. entry: a folder, an image, a pattern, a .txt that lists images, or a list of those.

    num_keypoints: numbers behind the box in a row of a set of key points.
    outlines: whether to keep the polygons.
    """
    paths = images(entry, root, where, report)
    found, without = [], []
    for path in paths:
        file = next((place for place in label_places(path) if is_file(place)), None)
        if file is None:
            without.append(path)
        rows = ([], [], []) if file is None else _rows(file, len(names), num_keypoints)
        found.append(Record(path, *rows[:2], in_pixels=False, outlines=rows[2] if outlines else []))
    report.missing_labels += len(without)
    if without and not report.first_missing:
        report.first_missing = str(next(label_places(without[0])))
    if 2 * len(without) > len(paths):
        _log.warning(
            "%s: %d of %d images have no label file and count as background; that of %s was looked for first at %s",
            *(where, len(without), len(paths), without[0], next(label_places(without[0]))),
        )
    return found


def images(entry: Any, root: Path, where: str, report: Report) -> list[Path]:
    """The images of an entry, see `records`."""
    parts = entry if isinstance(entry, list) else [entry]
    return [path for part in parts for path in _images(part, root, where, report)]


def place_of(entry: str, root: Path, where: str) -> tuple[Path | None, list[Path]]:
    """Where a folder or file of a data.yaml is, and the places tried."""
    name = Path(local(entry)).name
    # `images` alone, of /content/set/train/images, may well be those of all splits.
    says_which = Path(name).suffix != "" or any(split in name.lower() for split in _SPLITS)
    return find(entry, [root, Path(), PROJECT], [root], shortest=1 if says_which else 2, where=where)


def label_places(image: Path) -> Iterator[Path]:
    """Where the label file of an image may be, likeliest first."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        for labels in _LABELS.get(parts[i].lower(), ()):
            for suffix in _TEXT:
                yield Path(*parts[:i], labels, *parts[i + 1 : -1], f"{image.stem}{suffix}")
        if parts[i].lower() in _LABELS:
            break
    for suffix in _TEXT:
        yield image.parent / f"{image.stem}{suffix}"


def _images(entry: Any, root: Path, where: str, report: Report) -> list[Path]:
    if not isinstance(entry, str) or not entry.strip():
        raise InputError(f"{where}: {entry!r} should be a folder, a .txt list of images, a pattern, or a list of those")
    place, tried = place_of(entry, root, where)
    if place is None and glob.has_magic(entry):
        return _matches(entry, root, where)
    if place is not None and place.is_dir():
        paths = list_images(place)
        report.unread += unread_in(place)
    elif place is not None and place.suffix.lower() == ".txt":
        paths = _listed(place, root)
    elif place is not None and place.suffix.lower() in SUFFIXES:
        paths = [place]
    else:
        places = listed(tried if place is None else [place])
        raise InputError(f"{where}: {entry} is neither a folder nor an image or a .txt list of images; tried {places}")
    if not paths:
        unread = ", ".join(f"{number} {suffix}" for suffix, number in sorted(report.unread.items()))
        raise InputError(f"{where}: {place} holds no images{f' that can be read, but {unread}' if unread else ''}")
    return paths


def _matches(pattern: str, root: Path, where: str) -> list[Path]:
    """The images of a pattern such as `images/*.jpg`, and those in folders that it matches."""
    tried = direct(pattern, [root, Path(), PROJECT])
    for place in tried:
        found = [Path(p) for p in sorted(glob.glob(str(place), recursive=True))]
        files = [p for p in found if p.is_file() and p.suffix.lower() in SUFFIXES]
        below = [p for folder in found if folder.is_dir() for p in list_images(folder)]
        if files or below:
            return [*dict.fromkeys([*files, *below])]
    raise InputError(f"{where}: no image matches {pattern}; tried {listed(tried)}")


def _listed(listing: Path, root: Path) -> list[Path]:
    """A line is a path from the list's own folder, else from the set's; one that is nowhere stands for itself."""
    search = Finder([listing.parent, root, Path(), PROJECT], [listing.parent, root], str(listing))
    lines = [line.strip() for line in read_text(listing).splitlines()]
    return [search(line) or root / local(line) for line in lines if line]


def _rows(path: Path, nc: int, num_keypoints: int) -> tuple[list[int], list[Box], list[Outline | None]]:
    classes: list[int] = []
    boxes: list[Box] = []
    outlines: list[Outline | None] = []
    try:
        lines = read_text(path, guesses=False).splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields:
            continue
        try:
            label, *values = map(float, fields)
        except ValueError:
            raise InputError(f"{path}:{number}: {line.strip()!r} should be numbers: class x y width height") from None
        if num_keypoints and len(values) == 4 + num_keypoints:
            values = values[:4]
        polygon = not num_keypoints and len(values) >= 6 and len(values) % 2 == 0
        if num_keypoints and len(values) != 4:
            raise InputError(
                f"{path}:{number}: has {len(fields)} numbers, should be {5 + num_keypoints} (kpt_shape) or 5: class "
                "x y width height"
            )
        if len(values) != 4 and not polygon:
            right = "should be 5: class x y width height"
            if len(fields) == 6:
                right += " (a sixth is a confidence, as detect.py --save-conf writes it)"
            elif len(fields) > 6:
                right += "; of key points, right would be kpt_shape in the data.yaml"
            raise InputError(f"{path}:{number}: has {len(fields)} numbers, {right}")
        if not all(map(isfinite, (label, *values))):
            raise InputError(f"{path}:{number}: {line.strip()!r} holds a number that is not finite")
        if max(map(abs, values)) > _FAR:
            raise InputError(f"{path}:{number}: {line.strip()!r} should be shares of the image's size, 0 to 1")
        if polygon and not all(-_ROUNDED <= v <= 1 + _ROUNDED for v in values):
            raise InputError(
                f"{path}:{number}: {line.strip()!r} is read as a polygon, whose points should lie from 0 to 1; of key "
                "points, right would be kpt_shape: [points, 2 or 3] in the data.yaml"
            )
        if label != int(label) or not 0 <= label < nc:
            raise InputError(f"{path}:{number}: class {fields[0]} is not one of 0 to {nc - 1} (nc={nc})")
        classes.append(int(label))
        if polygon:
            boxes.append((min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])))
            outlines.append(Polygons((np.array(values, dtype=np.float64).reshape(-1, 2),)))
        else:
            x, y, w, h = values
            boxes.append((x - w / 2, y - h / 2, x + w / 2, y + h / 2))
            outlines.append(None)
    return classes, boxes, outlines
